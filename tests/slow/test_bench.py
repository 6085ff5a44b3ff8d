"""A guard against getting slower: ratios, never seconds, against the bounds stored beside this file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from latentwire.benchmarks.bench import BenchRequest, run_bench
from latentwire.benchmarks.bench_file import Ratio
from latentwire.cli.app import main

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
    assert main(["train", NANO, *(part for setting in settings for part in ("--set", setting))]) == 0
    ratios: dict[str, Ratio] = {}
    for task, benchmarks in (
        ("tinyworld_topic", ("latency", "batched", "training", "options")),
        ("tinyworld_record1", ("throughput",)),
    ):
        request = BenchRequest(
            folder, benchmarks=benchmarks, batch_sizes=(16,), task=task, repetitions=30, threads=1, out=folder / task
        )
        ratios |= {f"{ratio['name']} · {ratio['case']}": ratio for ratio in run_bench(request)["ratios"]}
    return ratios


@pytest.mark.parametrize("name", sorted(BOUNDS))
def test_no_ratio_left_its_bounds(found: dict[str, Ratio], name: str) -> None:
    bound, ratio = BOUNDS[name], found[name]
    # a busy machine moves the clock, not processor time; a real loss moves both
    values = [ratio["value"], ratio["value"] if ratio["cpu_value"] is None else ratio["cpu_value"]]
    assert min(values) <= bound.get("most", float("inf")), ratio
    assert max(values) >= bound.get("least", 0.0), ratio
