from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from latentwire.data.readers import read_task
from latentwire.data.task import load_task
from latentwire.errors import LatentWireError, StoppedEarlyError, UnknownNameError, UsageError
from latentwire.evaluation.predictions import find_predictions, read_predictions
from latentwire.evaluation.suite import SuiteRequest, _TaskData, run_suite
from latentwire.evaluation.workers import run_suite_in
from latentwire.training.run import train_run
from tests.methods.conftest import SETTINGS, small_config


def request(folder: Path, **changes: object) -> SuiteRequest:
    base = SuiteRequest(
        small_config(),
        tasks=["tinyworld_topic"],
        methods=["receiver_only", "receiver_text", "fewshot", "bridge"],
        seeds=[1, 2],
        folder=folder,
        max_rows=12,
        device="cpu",
        settings=SETTINGS,
    )
    return replace(base, **changes)


def test_methods_that_draw_run_once_per_seed_and_the_others_once(tmp_path: Path) -> None:
    results = run_suite(request(tmp_path))
    found = [(row["method"], row["seed"], row["control"]) for row in results["rows"] if row["subset"] == "all"]
    assert found.count(("receiver_text", None, None)) == 1
    assert [seed for method, seed, _ in found if method == "fewshot"] == [1, 2]
    assert {(seed, control) for method, seed, control in found if method == "bridge:pooled"} == {
        (seed, control) for seed in (1, 2) for control in (None, "zero", "shuffled", "noise")
    }
    assert {row["n"] for row in results["rows"] if row["subset"] == "all"} == {12}
    assert results["run"]["partial"] == []


def test_a_second_run_keeps_everything_and_another_budget_runs_what_depends_on_it(tmp_path: Path) -> None:
    first = run_suite(request(tmp_path, seeds=[1]))
    lines: list[str] = []
    second = run_suite(request(tmp_path, seeds=[1], say=lines.append))
    assert first["rows"] == second["rows"]
    assert sum(line.endswith("kept") for line in lines) == 4
    lines.clear()
    longer = small_config()
    longer = longer.model_copy(update={"training": longer.training.model_copy(update={"steps": 4})})
    run_suite(request(tmp_path, config=longer, seeds=[1], say=lines.append))
    assert [line.split(" ")[0] for line in lines if line.endswith("kept")] == ["receiver_only", "receiver_text"]
    assert [line.split(" ")[0] for line in lines if line.endswith("fitting")] == ["fewshot", "bridge:pooled"]


def test_a_damaged_file_is_named_and_made_again(tmp_path: Path) -> None:
    run_suite(request(tmp_path, methods=["receiver_text"]))
    [path] = find_predictions(tmp_path)
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    lines: list[str] = []
    run_suite(request(tmp_path, methods=["receiver_text"], say=lines.append))
    assert any("made again" in line for line in lines)
    assert len(read_predictions(path).records) == 12


def test_a_stop_keeps_what_is_done(tmp_path: Path) -> None:
    done: list[str] = []
    with pytest.raises(StoppedEarlyError, match="same command"):
        run_suite(request(tmp_path, advance=lambda what, rows: done.append(what), should_stop=lambda: len(done) >= 2))
    lines: list[str] = []
    run_suite(request(tmp_path, say=lines.append))
    assert any(line.startswith("receiver_only on") and line.endswith("kept") for line in lines)


def test_unknown_names_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="linear_probe"):
        run_suite(request(tmp_path, methods=["linear_prob"]))
    with pytest.raises(UnknownNameError, match="tinyworld_topic"):
        run_suite(request(tmp_path, tasks=["tinyworld_topics"]))
    assert not any(tmp_path.iterdir())


def test_methods_that_fit_no_task_are_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to run"):
        run_suite(request(tmp_path, methods=["answer_text"]))


def test_two_processes_leave_what_one_would_have_left(tmp_path: Path) -> None:
    methods = ["receiver_only", "receiver_text", "fewshot"]
    alone = run_suite(request(tmp_path / "one", methods=methods))
    shared = run_suite_in(2, request(tmp_path / "two", methods=methods))
    assert shared["rows"] == alone["rows"]
    lines: list[str] = []
    run_suite(request(tmp_path / "two", methods=methods, say=lines.append))
    assert sum(line.endswith("kept") for line in lines) == 4


def test_a_process_that_fails_is_named_and_the_command_says_how_it_goes_on(tmp_path: Path) -> None:
    (tmp_path / "predictions").write_text("a file where the folder should be")
    with pytest.raises(LatentWireError, match=r"worker \d failed .* the same command goes on"):
        run_suite_in(2, request(tmp_path, methods=["receiver_only"]))


def test_bounds_in_place_of_hopeless_options_change_no_answer(tmp_path: Path) -> None:
    every, some = (
        run_suite(
            request(tmp_path / scores, methods=["receiver_text"], settings=SETTINGS.model_copy(update={"option_scores": scores}))
        )
        for scores in ("all", "contenders")
    )
    assert every["rows"] == some["rows"]


def test_what_decides_an_answer_is_looked_at_before_one_is_kept(tmp_path: Path) -> None:
    run_suite(request(tmp_path, methods=["receiver_text"]))
    for changes in ({"variant": {"max_new_tokens": 3}}, {"receiver": {"model": "nano-mistral", "dtype": "bfloat16"}}):
        lines: list[str] = []
        run_suite(request(tmp_path, methods=["receiver_text"], config=small_config(**changes), say=lines.append))
        assert not any(line.endswith("kept") for line in lines), changes


def test_weights_to_begin_with_are_told_apart_by_what_they_hold(tmp_path: Path) -> None:
    begin = tmp_path / "begin"
    for seed in (1, 2):
        train_run(small_config(output_dir=str(begin), seed=seed), overwrite=True)
        bridge = {**small_config().bridge, "init": str(begin)}
        lines: list[str] = []
        chosen = request(tmp_path / "suite", methods=["bridge"], seeds=[1], config=small_config(bridge=bridge), say=lines.append)
        run_suite(chosen)
        assert not any(line.endswith("kept") for line in lines)
    run_suite(chosen)
    assert any(line.endswith("kept") for line in lines)


def test_rows_that_stand_in_train_are_noted_for_test_and_validation() -> None:
    task = load_task("tinyworld_topic")
    train, test = (read_task(task, split, max_rows=5) for split in ("train", "test"))
    assert "5 validation rows also stand in train" in _TaskData(task, train, train, test).notes
    assert "5 rows also stand in train" in _TaskData(task, train, test, train).notes
    assert not any("stand in train" in line for line in _TaskData(task, train, test, test).notes)
