"""One bridge trained by two processes is the bridge that one process trains with the same global batch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from latentwire.errors import StoppedEarlyError
from latentwire.experiments.registry.registry import Registry
from latentwire.experiments.work.worker import Worker, WorkerSettings
from latentwire.files import file_digest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
SETTINGS = (
    "task=[tinyworld_record1,tinyworld_topic]", "training.steps=12", "training.batch_size=8", "training.validate_every=6",
    "training.checkpoint_every=6", "training.log_every=2", "training.warmup_steps=2", "data.train_rows=60",
    "data.validation_rows=40",
)  # fmt: skip
ALONE = [sys.executable, "-m", "latentwire.cli.app"]
TOGETHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "latentwire.cli.app"]


def train(
    folder: Path, name: str, launch: list[str], *, more: tuple[str, ...] = (), parts: str = "1", flags: tuple[str, ...] = ()
) -> str:
    run = folder / name
    overrides = [part for setting in (*SETTINGS, *more, f"output_dir={run}") for part in ("--set", setting)]
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "LATENTWIRE_CACHE": str(folder / f"cache-{name}"), "LATENTWIRE_DEVICE": "cpu",
        "OMP_NUM_THREADS": "1", "LATENTWIRE_BATCH_PARTS": parts,
    }  # fmt: skip
    command = [*launch, "train", str(ROOT / "configs/nano.yaml"), *overrides, "--resume", *flags]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stderr


def log(folder: Path, name: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / name / "log.jsonl").read_text().splitlines()]


def test_two_processes_equal_one(tmp_path: Path) -> None:
    train(tmp_path, "one", ALONE)
    train(tmp_path, "parts", ALONE, parts="2")
    said = train(tmp_path, "two", TOGETHER)
    # one of the two speaks and writes
    assert said.count("rows: 120 to train") == 1
    # the same parts of the same batches: not one bit differs
    assert file_digest(tmp_path / "two/bridge/model.safetensors") == file_digest(tmp_path / "parts/bridge/model.safetensors")
    # against the batch at once only the order of float additions differs
    one, two = (load_file(tmp_path / name / "bridge/model.safetensors") for name in ("one", "two"))
    start = {name: np.abs(value).max() for name, value in one.items()}
    assert all(np.abs(one[name] - two[name]).max() <= 1e-5 * max(1.0, start[name]) for name in one)
    for key in ("loss", "validation", "validation_loss", "gradient_norm"):
        pairs = [(a[key], b[key]) for a, b in zip(log(tmp_path, "one"), log(tmp_path, "two"), strict=True) if key in a]
        assert pairs
        assert np.allclose(*zip(*pairs, strict=True), rtol=1e-4, atol=1e-4), key
    assert json.loads((tmp_path / "two/train.json").read_text())["hardware"]["processes"] == 2


def test_two_processes_train_both_stages_one_after_the_other(tmp_path: Path) -> None:
    """Each stage has a group of its own on the same torchrun."""
    more = (
        "pretraining.training.steps=4", "pretraining.training.validate_every=4", "pretraining.training.checkpoint_every=4",
        "pretraining.training.batch_size=4", "training.steps=4", "training.validate_every=4",
    )  # fmt: skip
    train(tmp_path, "both", TOGETHER, more=more, flags=("--pretrain",))
    assert (tmp_path / "both/stage1/bridge/model.safetensors").exists()
    assert json.loads((tmp_path / "both/train.json").read_text())["hardware"]["processes"] == 2


def test_without_the_sum_of_gradients_they_would_differ(tmp_path: Path) -> None:
    """The comparison above can fail: half of the batch alone is another training."""
    train(tmp_path, "whole", ALONE)
    train(tmp_path, "half", ALONE, more=("training.batch_size=4",))
    one, two = (load_file(tmp_path / name / "bridge/model.safetensors") for name in ("whole", "half"))
    assert max(np.abs(one[name] - two[name]).max() for name in one) > 1e-3


def planned(registry: Registry, name: str) -> None:
    settings = [part for setting in (*SETTINGS, "training.steps=60", f"output_dir=runs/{name}") for part in ("--set", setting)]
    registry.plan(
        name,
        config={"experiment": {"threads": 1}},
        config_hash=name,
        command=["latentwire", "train", str(ROOT / "configs/nano.yaml"), *settings, "--resume", "--device", "cpu"],
        run_folder=f"runs/{name}",
        result_file=f"runs/{name}/train.json",
    )


def test_a_worker_with_two_gpus_trains_on_both_and_goes_on_after_a_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    registry = Registry(tmp_path / "runs")
    lines: list[str] = []

    def work() -> Worker:
        return Worker(registry, WorkerSettings(gpu="0,1"), root=tmp_path, say=lines.append)

    planned(registry, "whole")
    work().run()
    planned(registry, "stopped")
    checkpoint = tmp_path / "runs/stopped/checkpoint.safetensors"

    def stop() -> None:
        while not checkpoint.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(StoppedEarlyError):
        work().run()
    thread.join()
    work().run()
    states = {name: [attempt.state.value for attempt in item.attempts] for name, item in registry.experiments().items()}
    assert states == {"whole": ["completed"], "stopped": ["preempted", "completed"]}, lines
    assert json.loads((tmp_path / "runs/stopped/train.json").read_text())["hardware"]["processes"] == 2
    for name in ("bridge/model.safetensors", "log.jsonl"):
        assert file_digest(tmp_path / "runs/stopped" / name) == file_digest(tmp_path / "runs/whole" / name), name
