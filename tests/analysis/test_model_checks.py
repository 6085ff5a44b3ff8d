"""What the receiver, a measured bridge and earlier runs say about a task."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from latentwire.analysis.preflight.findings import Check, allowing, verdict_of
from latentwire.analysis.preflight.model_checks import (
    Delivered,
    Reading,
    bits_suffice,
    bridge_delivers,
    measure_bridge,
    measure_reading,
    measured_before,
    message_is_needed,
    receiver_reads,
    soft_tokens_per_message,
)
from latentwire.analysis.preflight.posed_rows import Posed
from latentwire.analysis.preflight.task_bits import RowBits, task_bits
from latentwire.bridges import bridge_config
from latentwire.bridges.base import Bridge, BridgeEnds
from latentwire.errors import ArtefactError
from latentwire.evaluation.statistics import Estimate
from latentwire.messages.settings import MessageSettings
from latentwire.models.receiver import load_receiver
from latentwire.models.sender import SenderStates, load_sender
from latentwire.models.soft_tokens import SoftTokens
from latentwire.models.tokens import pad_right
from tests.analysis.test_limits import entry
from tests.analysis.test_row_checks import posed

POOLED = {"name": "pooled", "tokens_per_soft_token": 2}


@pytest.fixture(scope="module")
def record1() -> Posed:
    return posed("tinyworld_record1", rows=16, bridge=POOLED)


@pytest.fixture(scope="module")
def reading(record1: Posed) -> Reading:
    found = measure_reading(record1, load_receiver("nano-mistral", device="cpu"), rows=16)
    assert found is not None
    return found


def test_a_receiver_that_reads_its_task_passes(record1: Posed, reading: Reading) -> None:
    assert reading.with_text.value > 0.9
    assert receiver_reads(record1, reading).status == "pass"
    assert message_is_needed(reading).status == "pass"


def changed(reading: Reading, *, text: float, alone: float = 0.0, chance: float = 0.05) -> Reading:
    def about(value: float) -> Estimate:
        return Estimate(value, max(0.0, value - 0.1), min(1.0, value + 0.1), "wilson")

    return replace(reading, chance=chance, with_text=about(text), alone=about(alone))


@pytest.mark.parametrize(
    ("text", "open_status", "constrained_status"), [(0.9, "pass", "pass"), (0.4, "warn", "warn"), (0.06, "fail", "warn")]
)
def test_a_weak_reader_is_worse_for_open_answers(
    text: float, open_status: str, constrained_status: str, record1: Posed, reading: Reading
) -> None:
    found = changed(reading, text=text)
    assert receiver_reads(record1, found).status == open_status
    assert receiver_reads(posed("tinyworld_topic", rows=4), found).status == constrained_status


def test_a_question_that_gives_its_answer_away_is_found(reading: Reading) -> None:
    assert message_is_needed(changed(reading, text=0.9, alone=0.88)).status == "fail"
    assert message_is_needed(changed(reading, text=0.9, alone=0.5)).status == "warn"
    assert message_is_needed(changed(reading, text=0.9, alone=0.1)).status == "pass"


def test_without_capacity_the_command_that_measures_it_is_named(record1: Posed, reading: Reading, tmp_path: Path) -> None:
    found = bits_suffice(record1, reading, tmp_path)
    assert (found.status, found.mend) == ("skip", f"run `latentwire capacity {tmp_path}`")
    assert found.numbers["wanted"] == reading.content_bits
    # a receiver whose own guess is far off needs no more than the context holds
    unlikely = replace(reading, content_bits=1.5)
    assert bits_suffice(record1, unlikely, tmp_path).numbers["wanted"] == 1.5 < reading.bits.needed.value
    assert "the sender does not know the question" in found.text


def trained_on(folder: Path, *tasks: str) -> None:
    (folder / "config.json").write_text(json.dumps({"identity": "x", "config": {"task": tasks}}))


@pytest.mark.parametrize(
    ("capacity", "status", "carried"),
    [
        # what `latentwire capacity` writes: the best exact length counts, else the one with most bits
        ({"best": {"exact": {"bits": {"value": 40.0}, "bits_per_soft_token": {"value": 20.0}}, "most": None}}, "pass", 20.0),
        ({"best": {"exact": None, "most": {"bits": {"value": 2.0}, "bits_per_soft_token": {"value": 0.1}}}}, "fail", 0.1),
        ({"bits_per_soft_token": 0.1, "best_bits": 2.0}, "fail", 0.1),
        ({"bits_per_soft_token": None}, "skip", None),
    ],
)
def test_needed_bits_are_held_against_measured_ones(
    capacity: dict[str, Any], status: str, carried: float | None, record1: Posed, reading: Reading, tmp_path: Path
) -> None:
    trained_on(tmp_path, "tinyworld_code8")
    (tmp_path / "capacity.json").write_text(json.dumps(capacity))
    found = bits_suffice(record1, reading, tmp_path)
    assert found.status == status
    if carried is not None:
        tokens, grows = soft_tokens_per_message(record1)
        assert grows
        assert found.numbers["carried"] == pytest.approx(carried * (tokens or 0))


def test_too_few_bits_do_not_condemn_a_bridge_whose_task_arrives(record1: Posed, reading: Reading, tmp_path: Path) -> None:
    trained_on(tmp_path, "tinyworld_code8")
    (tmp_path / "capacity.json").write_text(json.dumps({"bits_per_soft_token": 0.1, "best_bits": 2.0}))
    assert bits_suffice(record1, reading, tmp_path).status == "fail"
    assert bits_suffice(record1, reading, tmp_path, works=True).status == "warn"


def test_codes_that_a_bridge_was_never_taught_do_not_condemn_it(record1: Posed, reading: Reading, tmp_path: Path) -> None:
    trained_on(tmp_path, "tinyworld_record1")
    (tmp_path / "capacity.json").write_text(json.dumps({"bits_per_soft_token": -1.4, "best_bits": -7.0}))
    assert bits_suffice(record1, reading, tmp_path).status == "skip"
    (tmp_path / "capacity.json").write_text(json.dumps({"bits_per_soft_token": 0.1, "best_bits": 2.0}))
    assert bits_suffice(record1, reading, tmp_path).status == "warn"


@pytest.mark.parametrize(
    ("score", "trained", "status"), [(0.95, "tinyworld_record1", "pass"), (0.6, "tinyworld_record1", "warn"),
    (0.2, "tinyworld_record1", "fail"), (0.2, "tinyworld_topic", "warn"), (0.95, "tinyworld_topic", "pass")],
)  # fmt: skip
def test_a_trained_bridge_is_held_against_the_text(
    score: float, trained: str, status: str, record1: Posed, reading: Reading
) -> None:
    read = changed(reading, text=1.0)
    delivered = Delivered(Estimate(score, score - 0.05, score + 0.05, "wilson"), reading.bits.needed, "row")
    assert bridge_delivers(record1, read, delivered, [trained]).status == status


def test_what_a_bridge_brings_is_measured_on_the_same_rows(record1: Posed, reading: Reading) -> None:
    """A bridge of the receiver's own words brings all that the text does, one of noise nothing."""
    receiver, sender = load_receiver("nano-mistral", device="cpu"), load_sender("nano-llama", layer=1, device="cpu")
    ends = BridgeEnds(sender_width=sender.width, receiver_width=receiver.width, receiver_rms=receiver.embedding_rms)
    untrained = bridge_config(POOLED).build(ends).eval()
    poor = measure_bridge(record1, reading, untrained, sender, receiver)
    assert poor.score.value < 0.3
    assert poor.bits.value < reading.bits.needed.value / 2
    texts = iter([row.sender_prompt for row in reading.examples])

    class Words(Bridge):
        def forward(self, read: SenderStates) -> SoftTokens:
            ids = [receiver.tokenizer(next(texts), add_special_tokens=False)["input_ids"] for _ in read.mask]
            tokens, mask = pad_right(ids, 0, receiver.device)
            return SoftTokens(receiver.embed(tokens), mask)

    whole = measure_bridge(record1, reading, Words(bridge_config(POOLED), ends), sender, receiver)
    assert whole.score.value == reading.with_text.value
    assert whole.bits.value == pytest.approx(reading.bits.needed.value, abs=0.5)


def test_a_message_of_fixed_length_carries_its_best_and_not_more(reading: Reading, tmp_path: Path) -> None:
    fixed = posed("tinyworld_record1", rows=4, bridge={"name": "perceiver", "soft_tokens": 8})
    assert soft_tokens_per_message(fixed) == (8.0, False)
    (tmp_path / "capacity.json").write_text(json.dumps({"bits_per_soft_token": 99.0, "best_bits": 10.0}))
    assert bits_suffice(fixed, reading, tmp_path).numbers["carried"] == 10.0
    (tmp_path / "capacity.json").write_text("{")
    with pytest.raises(ArtefactError, match="cut or corrupt"):
        bits_suffice(fixed, reading, tmp_path)


def test_bits_of_a_text_that_does_not_help_say_nothing(record1: Posed, reading: Reading) -> None:
    worse = replace(reading, bits=task_bits([RowBits(str(index), "all", 2.0 + index / 50, 9.0) for index in range(8)]))
    found = bits_suffice(record1, worse, None)
    assert found.status == "warn"
    assert "less likely" in found.text


def test_earlier_runs_of_the_same_case_count_and_others_are_only_named(record1: Posed) -> None:
    rate = "one soft token per 2 sender tokens"
    same = {"sender": record1.sender.name, "receiver": record1.receiver.name, "rate": rate}
    assert measured_before(record1, []).status == "skip"
    assert measured_before(record1, [entry(0.95, **same)]).status == "pass"
    assert measured_before(record1, [entry(0.6, **same)]).status == "warn"
    assert measured_before(record1, [entry(0.2, **same)]).status == "warn"
    other = measured_before(record1, [entry(0.2, **{**same, "receiver": "another"})])
    assert (other.status, "another pair" in other.text) == ("skip", True)
    kind = measured_before(record1, [entry(0.2, task="squad")])
    assert (kind.status, "1 fails" in kind.text) == ("skip", True)


def test_a_verdict_is_that_of_the_worst_check_and_a_failure_can_be_allowed() -> None:
    checks = [Check("rows", "pass", ""), Check("bits", "skip", "")]
    assert verdict_of(checks) == "yes"
    checks.append(Check("prompts", "warn", ""))
    assert verdict_of(checks) == "risky"
    checks.append(Check("targets", "fail", "cut"))
    assert verdict_of(checks) == "no"
    assert verdict_of(allowing(checks, ["prompts"])) == "no"
    assert verdict_of(allowing(checks, ["targets"])) == "risky"


@pytest.mark.parametrize(
    ("message", "label", "status"),
    [({}, "pooled", "pass"), ({}, "pooled@int4", "skip"), ({"precision": "int4"}, "pooled@int4", "pass"),
     ({"precision": "int4"}, "pooled", "skip"), ({"verbatim": "rules"}, "pooled+rules", "pass"),
     ({"verbatim": "rules"}, "pooled", "skip")],
)  # fmt: skip
def test_what_was_measured_with_other_messages_does_not_decide(
    record1: Posed, message: dict[str, Any], label: str, status: str
) -> None:
    config = record1.config.model_copy(update={"message": MessageSettings(**message)})
    rate = bridge_config(record1.config.bridge).describe_rate()
    found = entry(0.95, sender=record1.sender.name, receiver=record1.receiver.name, bridge=label, rate=rate)
    assert measured_before(replace(record1, config=config), [found]).status == status
