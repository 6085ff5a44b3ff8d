"""Which results are believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from latentwire.experiments.registry.model import State
from latentwire.experiments.registry.outcome import read_outcome
from latentwire.experiments.registry.registry import Registry
from tests.experiments.helping import claimed, plan, write_result

ROW = {
    "task": "sst2",
    "method": "bridge",
    "metric": "accuracy",
    "subset": "all",
    "control": None,
    "seed": 42,
    "value": 0.9,
    "problems": [],
}


def results(*rows: dict[str, object], state: str = "completed") -> dict[str, object]:
    return {"schema_version": 2, "run": {"state": state, "seeds": [42]}, "rows": list(rows)}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({}, "the result file results.json holds no finite number"),
        ({"results": {}}, "the result file results.json holds no finite number"),
        ({"accuracy": None, "n": 200, "seed": 42}, "the result file results.json holds no finite number"),
        ({"accuracy": float("nan")}, "the result file results.json holds no finite number"),
        (results(), "the result file results.json holds no finite number"),
        (results({**ROW, "control": "shuffled"}), "the result file results.json holds no finite number"),
        (
            results({**ROW, "problems": ["sst2, bridge: one label for all rows"]}, state="invalid"),
            "the prediction check failed: sst2, bridge: one label for all rows",
        ),
    ],
)
def test_results_that_say_nothing_are_invalid(tmp_path: Path, content: object, problem: str) -> None:
    registry = Registry(tmp_path / "runs")
    plan(registry, "a")
    write_result(registry, "a", content)
    assert registry.complete(claimed(registry, "a"), result_file=None) is State.INVALID
    assert registry.experiment("a").reason == problem
    assert registry.should_run("a") == (False, f"invalid; mark it for re-run when that is mended: {problem}")


def test_the_numbers_of_a_result_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(
        json.dumps(results(ROW, {**ROW, "method": "receiver_only", "seed": None, "value": 0.5}, {**ROW, "subset": "who"}))
    )
    outcome = read_outcome(path)
    assert outcome.problem is None
    assert outcome.metrics == {"sst2/bridge/accuracy/seed42": 0.9, "sst2/receiver_only/accuracy": 0.5}


def test_a_missing_a_cut_and_no_result(tmp_path: Path) -> None:
    assert read_outcome(tmp_path / "none.json").problem == "the result file none.json does not exist"
    (tmp_path / "cut.json").write_text('{"accuracy": 0.')
    assert "is cut or no JSON" in str(read_outcome(tmp_path / "cut.json").problem)
    assert read_outcome(None).problem == "no result file was named, neither by the command nor by the plan"


@pytest.mark.parametrize(
    ("predictions", "problem"),
    [
        ('{"n": 1, "problems": []}\n{}\n', None),
        ('{"n": 1, "problems": ["the text is empty"]}\n{}\n', "the prediction check failed: the text is empty"),
        ('{"n": 2, "problems": []}\n{}\n', "the predictions bridge.jsonl are cut (1 of 2 rows)"),
        ('{"n": 2, "prob', "the predictions bridge.jsonl are cut or have no header"),
    ],
)  # fmt: skip
def test_predictions_must_have_passed_their_check(tmp_path: Path, predictions: str, problem: str | None) -> None:
    (tmp_path / "results.json").write_text('{"accuracy": 0.5}')
    folder = tmp_path / "predictions" / "sst2"
    folder.mkdir(parents=True)
    (folder / "bridge.jsonl").write_text(predictions)
    assert read_outcome(tmp_path / "results.json").problem == problem


def test_a_metric_that_is_no_number_and_a_command_that_said_no(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "runs")
    for name in ("a", "b"):
        plan(registry, name)
        write_result(registry, name)
    assert registry.complete(claimed(registry, "a"), result_file=None, metrics={"loss": float("nan")}) is State.INVALID
    assert registry.experiment("a").reason == "the metric loss is no finite number (nan)"
    assert registry.complete(claimed(registry, "b"), result_file=None, exit_code=3) is State.INVALID
    assert registry.experiment("b").reason == "the command's own check failed (exit code 3)"
