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
KILLS = 8
SETTINGS = (
    "task=[tinyworld_record1,tinyworld_topic]", "training.steps=400", "training.checkpoint_every=20", "training.validate_every=100",
    "training.batch_size=8", "data.train_rows=200", "data.validation_rows=20",
)  # fmt: skip


def command(folder: Path) -> list[str]:
    overrides = [part for setting in (*SETTINGS, f"output_dir={folder}") for part in ("--set", setting)]
    return [sys.executable, "-m", "latentwire.cli.app", "train", str(ROOT / "configs/nano.yaml"), *overrides, "--resume"]


def test_sigkill_at_random_moments(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LATENTWIRE_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    subprocess.run(command(tmp_path / "whole"), env=environment, check=True, capture_output=True)
    rng = Random(7)
    killed = 0
    for _ in range(60):
        process = subprocess.Popen(command(tmp_path / "storm"), env=environment, stderr=subprocess.PIPE, text=True)
        try:
            # a start takes some seconds, so most kills fall into the training and some into loading and saving
            process.wait(timeout=rng.uniform(4, 14) if killed < KILLS else 600)
        except subprocess.TimeoutExpired:
            process.kill()
            killed += 1
        assert process.stderr is not None
        stderr = process.stderr.read()
        assert "Traceback" not in stderr
        if process.returncode == 0:
            break
        time.sleep(0.1)
    assert process.returncode == 0, stderr
    assert killed >= 2
    for name in ("bridge/model.safetensors", "bridge/config.json", "log.jsonl"):
        assert file_digest(tmp_path / "storm" / name) == file_digest(tmp_path / "whole" / name), name
    assert not list((tmp_path / "storm").rglob("*.corrupt"))
