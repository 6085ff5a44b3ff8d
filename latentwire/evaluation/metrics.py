"""Metrics: whether one prediction is right. All are 0 or 1 per row."""

from __future__ import annotations

import re
from collections.abc import Callable

from latentwire.data.task import Example
from latentwire.methods.base import Prediction

_MARKER = "Answer:"


def accuracy(prediction: Prediction, example: Example) -> bool:
    """The best-scored option is the gold one."""
    return prediction.option is not None and prediction.option == example.label


def exact_match(prediction: Prediction, example: Example) -> bool:
    """The decoded answer equals the gold one, white space aside."""
    return _normalised(prediction.text) == _normalised(example.answer)


def final_answer(prediction: Prediction, example: Example) -> bool:
    """What stands behind the last ``Answer:`` is equal; the worked lines before it do not count."""
    return _MARKER in prediction.text and _after_marker(prediction.text) == _after_marker(example.answer)


def _normalised(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _after_marker(text: str) -> str:
    return _normalised(text.rpartition(_MARKER)[2])


METRICS: dict[str, Callable[[Prediction, Example], bool]] = {
    "accuracy": accuracy,
    "exact_match": exact_match,
    "final_answer": final_answer,
}
