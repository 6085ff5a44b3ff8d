from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from latentwire.benchmarks import bench_file
from latentwire.benchmarks.bench import BENCHMARKS, chosen_benchmarks
from latentwire.benchmarks.bench_file import BENCH_FILE, FIGURE_FILE
from latentwire.cli.app import main
from latentwire.errors import UnknownNameError
from latentwire.files import read_json
from latentwire.training.plan import WORKING_BYTES

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["--repetitions", "2", "--batch_sizes", "1,2", "--task", "tinyworld_topic", "--device", "cpu"]


def test_the_command_writes_a_file_a_figure_and_prints_the_same(
    sized_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--benchmark", "latency", "--benchmark", "batched", "--benchmark", "memory", "--benchmark", "training"]
    assert main(["bench", str(sized_folder), *QUICK, *chosen, "--out", str(tmp_path), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == read_json(tmp_path / BENCH_FILE, what="benchmark file")
    assert (tmp_path / FIGURE_FILE).stat().st_size > 10_000
    assert [case["case"] for case in printed["latency"]] == ["batch 1", "batch 1, text of 256 tokens", "batch 1", "batch 2"]
    run = printed["run"]
    assert run["command"].startswith("latentwire")
    assert run["threads"] >= 1
    assert run["versions"]["torch"]
    # a folder of this machine is named nowhere but in the command as it was typed
    assert str(sized_folder) not in json.dumps({key: value for key, value in printed.items() if key != "run"})
    assert str(sized_folder) not in json.dumps(run["pair"])
    (memory,) = printed["memory"]
    assert memory["used_weights_bytes"] == memory["estimated_bytes"] - WORKING_BYTES
    assert memory["peak_bytes"] > memory["after_imports_bytes"]


def test_tables_show_ratios_and_stages(sized_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["--benchmark", "latency", "--benchmark", "training"]
    assert main(["bench", str(sized_folder), *QUICK, *chosen, "--out", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "training step: 16 rows of" in output
    assert "bridge / floor" in output
    assert "notes of 32 tokens" in output
    assert "decode" not in output.split("stages, ms:")[1].split("=")[0]  # options are scored


def test_a_missed_bound_is_a_failed_check_where_asked(
    sized_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("latentwire.benchmarks.latency.RELAY_LEAST", 1e6)
    assert main(["bench", str(sized_folder), *QUICK, "--out", str(tmp_path), "--strict"]) == 3
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert "text_relay / bridge at batch 1 is" in error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bench"], "give a run folder"),
        (["bench", "nowhere"], "'nowhere' holds no run"),
        (["bench", "nowhere", "--benchmark", "latancy"], "did you mean latency?"),
        (["bench", "nowhere", "--batch_sizes", "1;2"], "whole numbers with commas"),
        (["bench", "nowhere", "--repetitions", "0"], "must be 1 or more"),
        (["bench", "nowhere", "--dtype", "bf16"], "unknown dtype 'bf16'; use float32, bfloat16"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) != 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line


def test_both_models_are_measured_in_the_format_asked_for(
    sized_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--benchmark", "memory", "--benchmark", "options"]
    before = (sized_folder / "config.json").read_bytes()
    found = {}
    for dtype in ("float32", "bfloat16"):
        command = ["bench", str(sized_folder), *QUICK, *chosen, "--dtype", dtype, "--out", str(tmp_path / dtype), "--json"]
        assert main(command) == 0
        found[dtype] = json.loads(capsys.readouterr().out)
        pair = found[dtype]["run"]["pair"]
        assert pair["sender"]["dtype"] == pair["receiver"]["dtype"] == f"torch.{dtype}"
    # the bridge stays in float32
    bridge = 4 * found["float32"]["run"]["pair"]["bridge"]["params"]
    single, half = (found[dtype]["memory"][0]["used_weights_bytes"] - bridge for dtype in ("float32", "bfloat16"))
    assert single == 2 * half
    assert (sized_folder / "config.json").read_bytes() == before


def test_names_of_benchmarks() -> None:
    assert chosen_benchmarks(["options", "latency", "options"]) == ["latency", "options"]
    assert chosen_benchmarks(["all"]) == list(BENCHMARKS)
    with pytest.raises(UnknownNameError, match="known"):
        chosen_benchmarks(["speed"])


def test_every_key_of_the_file_is_documented() -> None:
    text = (ROOT / "docs" / "performance.md").read_text()
    kinds = ("Bench", "RunFacts", "Ratio", "Spread", "LatencyCase", "MethodTimes", "Stages", "OptionsCase", "ThroughputCase")
    kinds += ("TrainingCase", "MemoryCase", "Curve", "Point")
    keys = {key for kind in kinds for key in getattr(bench_file, kind).__annotations__}
    assert [key for key in sorted(keys) if f"`{key}`" not in text] == []


def test_the_papers_script_has_its_flags() -> None:
    script = [sys.executable, str(ROOT / "telepathy" / "run_benchmarks.py")]
    shown = subprocess.run([*script, "--help"], capture_output=True, text=True, check=True).stdout
    assert all(flag in shown for flag in ("--benchmark", "--checkpoint", "--batch_sizes", "--dataset"))
