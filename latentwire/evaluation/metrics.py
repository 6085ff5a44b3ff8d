"""Metrics: how right one prediction is, from 0 to 1. The first metric of a task is its headline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from latentwire.data.task import Example
from latentwire.evaluation.answers import MARKER, after_marker, normalised, number_of, spaced
from latentwire.evaluation.predictions import BY_TEXT
from latentwire.methods.base import Prediction


def accuracy(prediction: Prediction, example: Example) -> float:
    """The best-scored option is the gold one."""
    return float(prediction.option is not None and prediction.option == example.label)


def accuracy_by_text(prediction: Prediction, example: Example) -> float | None:
    """The option with the best log-likelihood per byte of its text is the gold one; None where only letters were scored."""
    return None if prediction.option_by_text is None else float(prediction.option_by_text == example.label)


def exact_match(prediction: Prediction, example: Example) -> float:
    """The decoded answer equals a gold one, white space aside."""
    return float(spaced(prediction.text) in {spaced(answer) for answer in _gold(example)})


def exact_match_normalised(prediction: Prediction, example: Example) -> float:
    """The decoded answer equals a gold one but for case, punctuation, articles and white space (SQuAD, Rajpurkar et al. 2016)."""
    return float(normalised(prediction.text) in {normalised(answer) for answer in _gold(example)})


def f1(prediction: Prediction, example: Example) -> float:
    """The best F1 of words over the gold answers, both normalised as in SQuAD."""
    return max(_word_f1(normalised(prediction.text).split(), normalised(answer).split()) for answer in _gold(example))


def final_answer(prediction: Prediction, example: Example) -> float:
    """What stands behind the last ``Answer:`` is equal; the worked lines before it do not count."""
    return float(MARKER in prediction.text and after_marker(prediction.text) == after_marker(example.answer))


def number_match(prediction: Prediction, example: Example) -> float:
    """The answer's number is the gold one: behind the first ``####``, else the last number of the text. 1,000 is 1000.0."""
    found = number_of(prediction.text)
    return float(found is not None and found == number_of(example.answer))


def _gold(example: Example) -> tuple[str, ...]:
    return example.answers or (example.answer,)


def _word_f1(found: list[str], gold: list[str]) -> float:
    if not found or not gold:
        return float(found == gold)
    common = sum((Counter(found) & Counter(gold)).values())
    return 2 * common / (len(found) + len(gold))


METRICS: dict[str, Callable[[Prediction, Example], float | None]] = {
    "accuracy": accuracy,
    BY_TEXT: accuracy_by_text,
    "exact_match": exact_match,
    "exact_match_normalised": exact_match_normalised,
    "f1": f1,
    "final_answer": final_answer,
    "number_match": number_match,
}
