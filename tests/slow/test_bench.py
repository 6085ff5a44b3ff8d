"""A guard against getting slower: ratios, never seconds, against the bounds stored beside this file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from latentwire.benchmarks.bench_file import BENCH_FILE, Ratio
from latentwire.files import read_json

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
BOUNDS = json.loads((Path(__file__).parent / "bench_bounds.json").read_text())["bounds"]
NANO = str(ROOT / "configs" / "nano.yaml")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ratio]:
    """Ratios of the embedded pair with the paper's eight soft tokens, on options and on free answers."""
    folder = tmp_path_factory.mktemp("bench")
    settings = ["training.steps=2", "training.validate_every=2", "data.train_rows=64", "data.validation_rows=8"]
    settings += ["bridge.name=perceiver", "bridge.soft_tokens=8", f"output_dir={folder}"]
    run("train", NANO, *(part for setting in settings for part in ("--set", setting)))
    ratios: dict[str, Ratio] = {}
    for task, names in (("tinyworld_topic", ("latency", "batched", "training", "options")), ("tinyworld_record1", ("throughput",))):
        chosen = [part for name in names for part in ("--benchmark", name)]
        out = folder / task
        run("bench", str(folder), *chosen, "--batch_sizes", "16", "--task", task, "--threads", "1", "--out", str(out))
        ratios |= {
            f"{ratio['name']} · {ratio['case']}": ratio for ratio in read_json(out / BENCH_FILE, what="benchmark file")["ratios"]
        }
    return ratios


def run(*arguments: str) -> None:
    """A command in a process of its own: the checks of shapes that the tests run with would be timed too."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "latentwire.cli.app", *arguments], env=environment, check=True)


@pytest.mark.parametrize("name", sorted(BOUNDS))
def test_no_ratio_left_its_bounds(found: dict[str, Ratio], name: str) -> None:
    bound, ratio = BOUNDS[name], found[name]
    # a busy machine moves the clock, not processor time; a real loss moves both
    values = [ratio["value"], ratio["value"] if ratio["cpu_value"] is None else ratio["cpu_value"]]
    assert min(values) <= bound.get("most", float("inf")), ratio
    assert max(values) >= bound.get("least", 0.0), ratio
