from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from latentwire.cli.app import main
from latentwire.evaluation.comparison import compare
from latentwire.evaluation.predictions import find_predictions, read_predictions
from latentwire.evaluation.results import read_results
from latentwire.evaluation.rows import result_rows
from latentwire.training.run import train_run
from tests.cli.test_bad_input import failing
from tests.training.test_trainer import small_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trained run, evaluated on a few rows."""
    folder = tmp_path_factory.mktemp("run")
    train_run(small_config(folder))
    assert main(["eval", str(folder), "--max_samples", "12", "--device", "cpu"]) == 0
    return folder


def test_stored_predictions_give_the_table_of_the_live_run(run: Path) -> None:
    live = read_results(run / "results.json")
    assert live["run"]["state"] == "completed"
    stored = [row for path in find_predictions(run) for row in result_rows(*read_predictions(path))]

    def name(row: dict[str, object]) -> tuple[str, ...]:
        return tuple(str(row[key]) for key in ("task", "metric", "subset", "method", "control", "seed"))

    assert sorted(stored, key=name) == sorted(live["rows"], key=name)  # type: ignore[arg-type]
    compared = {
        (row.task, row.metric, row.subset, row.method, row.control): (row.mean, row.low, row.high, row.n, row.chance)
        for row in compare(find_predictions(run)).rows
    }
    assert compared == {
        (row["task"], row["metric"], row["subset"], row["method"], row["control"]): (
            row["value"], row["ci_low"], row["ci_high"], row["n"], row["chance"],
        )
        for row in live["rows"]
    }  # fmt: skip


@pytest.mark.parametrize("form", ["rich", "md", "csv", "latex"])
def test_a_table_needs_no_model(form: str, run: Path) -> None:
    code = (
        "import sys; from latentwire.cli.app import main; code = main(sys.argv[1:]); "
        "heavy = {'torch', 'transformers', 'datasets'} & set(sys.modules); sys.exit(f'loaded {heavy}' if heavy else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "table", str(run), "--format", form],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    bridge = "bridge:pooled"
    assert bridge in done.stdout
    assert "shuffled" in done.stdout
    assert "…" not in done.stdout


def test_choices(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", str(run), "--format", "md", "--table", "wide", "--task", "tinyworld_topic"]) == 0
    shown = capsys.readouterr().out
    assert "tinyworld_topic (accuracy)" in shown
    assert "tinyworld_record1" not in shown
    assert main(["table", str(run), "--reference", "receiver_only", "--metric", "accuracy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reference"] == "receiver_only"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--format", "html"], "unknown format 'html'; known: csv, latex, md, rich"),
        (["--table", "wyde"], "did you mean wide"),
        (["--reference", "reciever_text"], "did you mean receiver_text"),
        (["--metric", "acuracy"], "did you mean accuracy"),
        (["--task", "tinyworld_tpic"], "did you mean tinyworld_topic"),
        (["--format", "csv", "--table", "wide", "--table", "long"], "give --table once"),
    ],
)
def test_wrong_names_are_one_line(arguments: list[str], expected: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = failing(["table", str(run), *arguments], capsys)
    assert code == 2
    assert expected in line


def test_a_cut_file_and_an_empty_folder_are_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = failing(["table", str(tmp_path)], capsys)
    assert code == 1
    assert "latentwire eval" in line
    shutil.copytree(run / "predictions", tmp_path / "run" / "predictions")
    path = find_predictions(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:-7])
    code, line = failing(["table", str(tmp_path)], capsys)
    assert code == 1
    assert path.name in line
    assert "cut or corrupt" in line


def test_a_broken_bridge_makes_the_run_invalid(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    weights = broken / "bridge" / "model.safetensors"
    save_file({name: torch.full_like(value, float("nan")) for name, value in load_file(weights).items()}, weights)
    task = ["--task", "tinyworld_topic", "--max_samples", "8"]
    code, line = failing(["eval", str(broken), "--method", "bridge", *task], capsys)
    assert code == 3
    assert "tinyworld_topic, bridge:pooled (seed 1): scores of 8 of 8 rows are no finite numbers" in line
    results = read_results(broken / "results.json")
    assert results["run"]["state"] == "invalid"
    assert {row["control"] for row in results["rows"] if row["problems"]} == {None}
    assert main(["table", str(broken), "--format", "md", "--table", "wide", "--task", "tinyworld_topic"]) == 0
    assert "! the prediction check found: tinyworld_topic, bridge:pooled" in capsys.readouterr().out
