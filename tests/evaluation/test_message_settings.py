"""Runs with hybrid and quantised messages, from training to result rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from latentwire.bridges.base import Bridge
from latentwire.data.readers import read_task
from latentwire.data.task import load_task
from latentwire.errors import UsageError
from latentwire.evaluation.controls import build_control, derangement
from latentwire.evaluation.evaluator import EvaluationSettings
from latentwire.evaluation.predictions import find_predictions, read_header
from latentwire.evaluation.results import ResultRow, Results
from latentwire.evaluation.run import EvaluationRequest, evaluate_run, load_parts
from latentwire.evaluation.suite import SuiteRequest, run_suite
from latentwire.messages.settings import MessageSettings
from latentwire.messages.spans import find_spans, joined
from latentwire.methods.base import Method, Parts
from latentwire.methods.bridge import BridgeMethod
from latentwire.models.nano.specs import NANO_SPECS
from latentwire.training.run import train_run
from tests.training.test_trainer import small_config

QUICK = EvaluationSettings(latency_rows=0)
WIDTH = NANO_SPECS["nano-mistral"].hidden_size
PER_TOKEN = {"float32": 4 * WIDTH, "bf16": 2 * WIDTH, "int8": 4 + WIDTH, "int4": 4 + WIDTH // 2}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    config = small_config(folder, task="tinyworld_record1", message={"verbatim": "rules", "precision": "int8"})
    train_run(config)
    return folder


@pytest.fixture(scope="module")
def parts(run_folder: Path) -> Parts:
    return load_parts(small_config(run_folder), Bridge.from_pretrained(run_folder / "bridge"), device="cpu", writer=False)


def whole(results: Results) -> dict[tuple[str, str | None], ResultRow]:
    return {(row["method"], row["control"]): row for row in results["rows"] if row["subset"] == "all"}


def test_a_bridge_keeps_the_message_it_was_trained_with(run_folder: Path) -> None:
    assert Bridge.from_pretrained(run_folder / "bridge").message == MessageSettings(verbatim="rules", precision="int8")
    assert "| message | int8, verbatim text by rules |" in (run_folder / "bridge" / "README.md").read_text()


def test_one_result_row_for_every_precision_with_measured_bytes(run_folder: Path) -> None:
    precisions = ("float32", "bf16", "int8", "int4", "int8")
    request = EvaluationRequest(
        run_folder, methods=["receiver_only", "bridge"], precisions=precisions, max_rows=8, device="cpu", settings=QUICK
    )
    rows = whole(evaluate_run(request))
    assert {method for method, _ in rows} == {"receiver_only", *(f"bridge:pooled+rules@{name}" for name in PER_TOKEN)}
    texts = [
        joined(find_spans(row.sender_prompt)) for row in read_task(load_task("tinyworld_record1"), "test", max_rows=8).examples
    ]
    text_bytes = sum(len(text.encode()) for text in texts) / 8
    soft_tokens = rows["bridge:pooled+rules@int8", "zero"]["message_tokens"]
    for name, size in PER_TOKEN.items():
        label = f"bridge:pooled+rules@{name}"
        for control in (None, "shuffled", "verbatim_only"):
            assert rows[label, control]["message_tokens"] > soft_tokens
        assert rows[label, None]["message_bytes"] == pytest.approx(soft_tokens * size + text_bytes)
        assert rows[label, "verbatim_only"]["message_bytes"] == rows[label, None]["message_bytes"]
        # zeros and noise bring no text of the row
        for control in ("zero", "noise"):
            assert rows[label, control]["message_bytes"] == pytest.approx(soft_tokens * size)
    files = {path.name for path in find_predictions(run_folder)}
    assert "bridge-pooled+rules@int4-seed1-shuffled.jsonl" in files


def test_without_a_choice_it_is_sent_as_trained(run_folder: Path, tmp_path: Path) -> None:
    request = EvaluationRequest(
        run_folder, methods=["bridge"], max_rows=3, device="cpu", settings=QUICK, out=tmp_path / "results.json"
    )
    assert {method for method, _ in whole(evaluate_run(request))} == {"bridge:pooled+rules@int8"}


def test_precisions_need_the_bridge(run_folder: Path) -> None:
    with pytest.raises(UsageError, match="--precision is for the bridge, and only receiver_only would run"):
        evaluate_run(EvaluationRequest(run_folder, methods=["receiver_only"], precisions=["int8"], device="cpu"))


def test_answers_with_verbatim_text_do_not_depend_on_the_batch(parts: Parts) -> None:
    examples = read_task(load_task("tinyworld_record1"), "test", max_rows=5).examples
    method = BridgeMethod(parts)
    together = method.predict(examples, max_new_tokens=8)
    alone = [method.predict([example], max_new_tokens=8)[0] for example in examples]
    assert [(p.text, p.message_tokens, p.message_bytes) for p in together] == [
        (p.text, p.message_tokens, p.message_bytes) for p in alone
    ]


def test_shuffled_rows_get_the_verbatim_text_of_the_row_they_read(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = read_task(load_task("tinyworld_record1"), "test", max_rows=6).examples
    seen: list[tuple[str, ...]] = []
    receiver = parts.receiver
    prefix = receiver.prefix

    def watched(prompts, soft=None):  # type: ignore[no-untyped-def]
        seen.append(soft.verbatim)
        return prefix(prompts, soft)

    monkeypatch.setattr(receiver, "prefix", watched)
    method = BridgeMethod(parts)
    own = tuple(joined(find_spans(example.sender_prompt)) for example in examples)
    for control in (None, "shuffled", "zero", "noise", "verbatim_only"):
        method.predict(examples, max_new_tokens=2, control=build_control(control, examples) if control else None)
    partners = derangement(len(examples))
    others = tuple(own[partners[row]] for row in range(len(examples)))
    assert seen == [own, others, (), (), own]
    assert all(mine != theirs for mine, theirs in zip(own, others, strict=True))


def test_a_comparison_sends_what_the_config_says_by_every_bridge(tmp_path: Path) -> None:
    config = small_config(
        tmp_path,
        task="tinyworld_record1",
        message={"verbatim": "budget", "verbatim_bytes": 12, "precision": "int4"},
        data={"train_rows": 12, "validation_rows": 6},
        training={"steps": 2, "batch_size": 4, "warmup_steps": 1, "validate_every": 2},
    )
    request = SuiteRequest(
        config, tasks=["tinyworld_record1"], methods=["ridge", "self_bridge", "bridge"], seeds=[1], folder=tmp_path / "out",
        max_rows=4, device="cpu",
    )  # fmt: skip
    rows = whole(run_suite(request))
    suffix = "+budget12@int4"
    assert {method for method, _ in rows} == {f"ridge{suffix}", f"self_bridge{suffix}", f"bridge:pooled{suffix}"}
    for label in (f"ridge{suffix}", f"self_bridge{suffix}", f"bridge:pooled{suffix}"):
        text = rows[label, None]["message_bytes"] - rows[label, "zero"]["message_bytes"]
        assert 0 < text <= 12
    kept: list[str] = []
    run_suite(replace(request, say=kept.append))
    assert sum("kept" in line for line in kept) == 3
    other = config.model_copy(update={"message": MessageSettings(verbatim="budget", verbatim_bytes=12)})
    made: list[str] = []
    run_suite(replace(request, config=other, methods=["ridge"], say=made.append))
    assert not any("kept" in line for line in made)


def test_the_default_message_leaves_the_identity_of_a_run_as_it_was(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    assert "message" in json.loads(config.model_dump_json())
    assert config.identity != config.model_copy(update={"message": MessageSettings(precision="int8")}).identity
    assert config.identity == config.model_copy(update={"message": MessageSettings()}).identity


def test_methods_name_their_controls(parts: Parts) -> None:
    assert BridgeMethod(parts).controls == ("zero", "shuffled", "noise", "verbatim_only")
    plain: Method = BridgeMethod(replace(parts, message=MessageSettings()))
    assert plain.controls == ("zero", "shuffled", "noise")
    assert plain.label == "bridge:pooled"


def test_prediction_files_carry_the_label(run_folder: Path) -> None:
    labels = {read_header(path)["method"] for path in find_predictions(run_folder)}
    assert "bridge:pooled+rules@int4" in labels
