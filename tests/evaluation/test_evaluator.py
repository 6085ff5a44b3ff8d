from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from latentwire.bridges.base import Bridge
from latentwire.data.readers import read_task
from latentwire.data.task import Example, load_task
from latentwire.errors import ArtefactError, MismatchError, UnknownNameError
from latentwire.evaluation.evaluator import EvaluationSettings, evaluate_task
from latentwire.evaluation.metrics import METRICS
from latentwire.evaluation.predictions import find_predictions
from latentwire.evaluation.results import read_results
from latentwire.evaluation.run import EvaluationRequest, evaluate_run, load_parts
from latentwire.methods import METHODS, build_method, method_class
from latentwire.methods.base import Control, Method, Parts, Prediction
from latentwire.models.nano.specs import NANO_SPECS
from latentwire.training.run import train_run
from tests.training.test_trainer import small_config

QUICK = EvaluationSettings(latency_rows=0)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train_run(small_config(folder))
    return folder


@pytest.fixture(scope="module")
def parts(run_folder: Path) -> Parts:
    return load_parts(small_config(run_folder), Bridge.from_pretrained(run_folder / "bridge"), device="cpu", writer=True)


class Oracle(Method):
    """Knows the answers: shows that the evaluator can give 100 % and nothing else."""

    name: ClassVar[str] = "oracle"
    sender_sees: ClassVar[str] = "context"
    receiver_sees: ClassVar[str] = "question"

    def predict(self, examples: Sequence[Example], *, max_new_tokens: int, control: Control | None = None) -> list[Prediction]:
        return [Prediction(example.answer, example.label, None, 1, 3) for example in examples]


class Babbler(Method):
    """Names every option in its text and chooses none: substring matching would call it right."""

    name: ClassVar[str] = "babbler"
    sender_sees: ClassVar[str] = "nothing"
    receiver_sees: ClassVar[str] = "question"

    def predict(self, examples: Sequence[Example], *, max_new_tokens: int, control: Control | None = None) -> list[Prediction]:
        return [Prediction(" ".join(example.options) + example.answer + " and more", None, None, 0, 0) for example in examples]


@pytest.mark.parametrize("task_name", ["tinyworld_topic", "tinyworld_record1", "tinyworld_math1"])
def test_an_oracle_scores_everything_and_a_babbler_nothing(parts: Parts, task_name: str) -> None:
    task = load_task(task_name)
    examples = read_task(task, "test", max_rows=30).examples
    rows = evaluate_task(task, examples, [Oracle(parts), Babbler(parts)], settings=QUICK, split="test", seed=None)
    whole = {row["method"]: row for row in rows if row["subset"] == "all"}
    assert whole["oracle"]["value"] == 1.0
    assert whole["babbler"]["value"] == 0.0
    assert whole["oracle"]["ci_low"] < 1.0
    assert whole["oracle"]["message_bytes"] == 3


@pytest.mark.parametrize("name", ["bridge", *(name for name in METHODS if not method_class(name).fits)])
def test_every_method_answers_alike_alone_and_in_a_batch(parts: Parts, name: str) -> None:
    method = build_method(name, parts)
    for task_name in ("tinyworld_topic", "tinyworld_record1"):
        task = load_task(task_name)
        if method.unsuitable(task):
            continue
        examples = read_task(task, "test", max_rows=5).examples
        together = method.predict(examples, max_new_tokens=task.config.max_new_tokens)
        alone = [method.predict([example], max_new_tokens=task.config.max_new_tokens)[0] for example in examples]
        assert [(p.text, p.option, p.message_tokens) for p in together] == [(p.text, p.option, p.message_tokens) for p in alone]
        for one, other in zip(together, alone, strict=True):
            assert one.scores == pytest.approx(other.scores, abs=1e-4) if one.scores else other.scores is None


def test_result_rows_carry_all_that_is_needed_to_believe_them(run_folder: Path) -> None:
    settings = EvaluationSettings(latency_rows=2, latency_warmup_rows=1)
    results = evaluate_run(EvaluationRequest(run_folder, max_rows=40, device="cpu", settings=settings))
    assert read_results(run_folder / "results.json") == json.loads(json.dumps(results))
    assert results["run"]["models"]["sender"]["name"] == "nano-llama@1"
    assert results["run"]["git"].keys() == {"commit", "dirty"}
    assert set(results["run"]["prompt_hashes"]) == {"tinyworld_record1", "tinyworld_topic"}
    record = [row for row in results["rows"] if row["task"] == "tinyworld_record1"]
    assert {row["method"] for row in record} == {"receiver_only", "receiver_text", "text_relay", "bridge:pooled"}
    assert {row["control"] for row in record} == {None, "zero", "shuffled", "noise"}
    assert {row["subset"] for row in record} >= {"all", "who", "item", "count", "place", "colour", "held_out"}
    by_field = [row for row in record if row["method"] == "bridge:pooled" and row["control"] is None]
    assert sum(row["n"] for row in by_field if row["subset"] not in ("all", "held_out")) == 40
    for row in results["rows"]:
        assert 0 <= row["ci_low"] <= row["value"] <= row["ci_high"] <= 1
        assert (row["seed"] is None) == (not row["method"].startswith("bridge"))
        assert (row["latency_ms_p50"] is not None) == (row["control"] is None and row["subset"] == "all")
    relay = next(row for row in record if row["method"] == "text_relay" and row["subset"] == "all")
    bridge = next(row for row in record if row["method"] == "bridge:pooled" and row["control"] is None and row["subset"] == "all")
    assert relay["message_bytes"] < bridge["message_bytes"] == bridge["message_tokens"] * NANO_SPECS["nano-mistral"].hidden_size * 4


def test_an_evaluation_of_other_rows_leaves_no_answers_to_the_old_ones(run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    request = EvaluationRequest(run_folder, tasks=["tinyworld_topic"], max_rows=6, device="cpu", settings=QUICK, out=out)
    evaluate_run(request)
    evaluate_run(replace(request, methods=["bridge"], max_rows=4))
    assert {path.stem.split("-")[0] for path in find_predictions(tmp_path)} == {"bridge"}


def test_results_do_not_depend_on_the_batch_size(parts: Parts) -> None:
    task = load_task("tinyworld_record1")
    examples = read_task(task, "test", max_rows=20).examples
    methods = [build_method("bridge", parts)]
    values = [
        [
            (row["control"], row["subset"], row["value"])
            for row in evaluate_task(
                task, examples, methods, settings=EvaluationSettings(latency_rows=0, batch_size=size), split="test", seed=1
            )
        ]
        for size in (3, 20)
    ]
    assert values[0] == values[1]


def test_a_worked_line_may_differ_but_the_final_answer_counts() -> None:
    example = read_task(load_task("tinyworld_math1"), "test", max_rows=1).examples[0]
    number = example.answer.rpartition(" ")[2]

    def verdict(text: str) -> bool:
        return METRICS["final_answer"](Prediction(text, None, None, 0, 0), example)

    assert verdict(f"something else. Answer: {number}")
    assert not verdict(f"{number}")
    assert not verdict(f"Answer: {number}0")


def test_other_models_than_the_trained_ones_are_refused(run_folder: Path) -> None:
    with pytest.raises(MismatchError, match=r"of 'nano-mistral@2', given are .* of 'nano-llama@1'"):
        evaluate_run(EvaluationRequest(run_folder, max_rows=2, device="cpu", receiver="nano-llama", settings=QUICK))


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="latentwire train"):
        evaluate_run(EvaluationRequest(tmp_path))


def test_an_unknown_method_suggests_the_nearest(parts: Parts) -> None:
    with pytest.raises(UnknownNameError, match="text_relay"):
        build_method("text_rely", parts)


def test_a_cut_result_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"schema_version": 2, "ro')
    with pytest.raises(ArtefactError, match=r"results.json.*cut or corrupt"):
        read_results(tmp_path / "results.json")
