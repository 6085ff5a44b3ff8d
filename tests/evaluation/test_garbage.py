"""Planted garbage: a method that knows nothing scores at chance, and one that is broken is flagged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import ClassVar

import pytest

from latentwire.data.readers import read_task
from latentwire.data.task import Example, load_task
from latentwire.evaluation.evaluator import EvaluationSettings, Origin, answer_task, evaluate_task
from latentwire.evaluation.predictions import Predictions
from latentwire.methods.base import Control, Method, Parts, Prediction
from latentwire.methods.receiver_text import ReceiverText
from latentwire.models.receiver import load_receiver
from latentwire.models.sender import load_sender

QUICK = EvaluationSettings(latency_rows=0)


class Garbage(Method):
    """Answers without looking; ``how`` says in which way."""

    name: ClassVar[str] = "garbage"
    sender_sees: ClassVar[str] = "context"
    receiver_sees: ClassVar[str] = "question"
    controls: ClassVar[tuple[str, ...]] = ("zero",)
    fits: ClassVar[bool] = True

    def __init__(self, how: str) -> None:
        self.how = how

    def predict(self, examples: Sequence[Example], *, max_new_tokens: int, control: Control | None = None) -> list[Prediction]:
        return [self.answer(example) for example in examples]

    def answer(self, example: Example) -> Prediction:
        random = Random(f"{self.how}:{example.id}")
        if self.how == "random scores":
            scores = [random.gauss(-20, 5) for _ in example.options]
            option = max(range(len(scores)), key=lambda index: scores[index])
            return Prediction(example.options[option], option, tuple(scores), 1, 1)
        if self.how == "scores that are no numbers":
            option = random.randrange(len(example.options))
            return Prediction(example.options[option], option, (math.nan, *(-1.0 for _ in example.options[1:])), 1, 1)
        if self.how == "one label":
            return Prediction(example.options[0], 0, tuple(-float(index) for index in range(len(example.options))), 1, 1)
        texts = {
            "all answers at once": f"{' '.join(example.options)} {example.answer} Answer: {example.answer} and more",
            "random words": " ".join(random.choices(["blue", "seven", "Lisbon", "Maria", "apples"], k=1)),
            "silence": " ",
            "one answer": "I do not know.",
        }
        return Prediction(texts[self.how], None, None, 1, 1)


def answered(task_name: str, how: str, rows: int) -> list[Predictions]:
    task = load_task(task_name)
    examples = read_task(task, "test", max_rows=rows).examples
    return list(answer_task(task, examples, [Garbage(how)], settings=QUICK, origin=Origin("test")))


@pytest.mark.parametrize("task_name", ["tinyworld_sentiment", "tinyworld_topic", "tinyworld_intent"])
def test_random_scores_are_at_chance_and_pass_the_check(task_name: str) -> None:
    task = load_task(task_name)
    examples = read_task(task, "test", max_rows=600).examples
    row = next(
        row
        for row in evaluate_task(task, examples, [Garbage("random scores")], settings=QUICK, split="test", seed=None)
        if row["subset"] == "all"
    )
    assert row["ci_low"] <= 1 / len(examples[0].options) <= row["ci_high"]
    assert row["value"] <= row["chance"] + 0.05
    assert row["problems"] == []


@pytest.mark.parametrize("task_name", ["tinyworld_record1", "tinyworld_math1", "tinyworld_code8"])
@pytest.mark.parametrize("how", ["all answers at once", "random words"])
def test_free_garbage_is_at_chance_even_where_it_holds_the_answer(task_name: str, how: str) -> None:
    for header, records in answered(task_name, how, 200):
        assert sum(record["values"][header["metrics"][0]] for record in records) / len(records) <= header["chance"]


@pytest.mark.parametrize(
    ("task_name", "how", "line"),
    [
        ("tinyworld_topic", "one label", "one label"),
        ("tinyworld_topic", "scores that are no numbers", "no finite numbers"),
        ("tinyworld_record1", "silence", "the text is empty in 40 of 40 rows"),
        ("tinyworld_record1", "one answer", "the same answer ('I do not know.')"),
    ],
)
def test_broken_methods_are_flagged_and_their_controls_are_not(task_name: str, how: str, line: str) -> None:
    matched, control = answered(task_name, how, 40)
    assert matched.header["control"] is None
    (problem,) = matched.header["problems"]
    assert line in problem
    assert task_name in problem
    assert control.header["problems"] == []


@pytest.mark.parametrize("task_name", ["tinyworld_topic", "tinyworld_record1"])
def test_an_untrained_model_scores_at_chance(task_name: str, family_folder: dict[str, str]) -> None:
    folder = family_folder["llama"]
    method = ReceiverText(Parts(load_sender(folder, layer=1, device="cpu"), load_receiver(folder, device="cpu")))
    task = load_task(task_name)
    examples = read_task(task, "test", max_rows=120).examples
    row = evaluate_task(task, examples, [method], settings=QUICK, split="test", seed=None)[0]
    assert row["ci_low"] <= row["chance"]
