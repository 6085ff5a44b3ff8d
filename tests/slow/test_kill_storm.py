"""A training killed with SIGKILL at random moments ends with the bytes of the undisturbed one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from latentwire.files import file_digest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
KILLS = 20
SETTINGS = (
    "task=[tinyworld_record1,tinyworld_topic]", "training.steps=400", "training.checkpoint_every=8", "training.validate_every=100",
    "training.batch_size=8", "data.train_rows=200", "data.validation_rows=20",
)  # fmt: skip


def command(folder: Path) -> list[str]:
    overrides = [part for setting in (*SETTINGS, f"output_dir={folder}") for part in ("--set", setting)]
    return [sys.executable, "-m", "latentwire.cli.app", "train", str(ROOT / "configs/nano.yaml"), *overrides, "--resume"]


def stamp(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def kill_some_time(process: subprocess.Popen[str], checkpoint: Path, rng: Random) -> bool:
    """Kills the training at a random moment; False where it ended before that."""
    if rng.random() < 0.25:  # while it loads
        delay_s = rng.uniform(0.3, 5)
    else:  # once it has written another checkpoint, and may be writing the next
        before = stamp(checkpoint)
        while stamp(checkpoint) == before and process.poll() is None:
            time.sleep(0.01)
        delay_s = rng.uniform(0, 0.15)
    try:
        process.wait(timeout=delay_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


def test_sigkill_at_random_moments(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LATENTWIRE_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    subprocess.run(command(tmp_path / "whole"), env=environment, check=True, capture_output=True)
    rng = Random(7)
    for number in range(KILLS):
        with subprocess.Popen(command(tmp_path / "storm"), env=environment, stderr=subprocess.PIPE, text=True) as process:
            assert kill_some_time(process, tmp_path / "storm/checkpoint.safetensors", rng), f"ended before kill {number + 1}"
            assert process.stderr is not None
            assert "Traceback" not in process.stderr.read()
    done = subprocess.run(command(tmp_path / "storm"), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "resumed at step" in done.stderr
    for name in ("bridge/model.safetensors", "bridge/config.json", "log.jsonl"):
        assert file_digest(tmp_path / "storm" / name) == file_digest(tmp_path / "whole" / name), name
    assert not list((tmp_path / "storm").rglob("*.corrupt"))
