"""Metrics: how right one prediction is, from 0 to 1. The first metric of a task is its headline."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable
from decimal import Decimal

from latentwire.data.task import Example
from latentwire.evaluation.predictions import BY_TEXT
from latentwire.methods.base import Prediction

_MARKER = "Answer:"
_SOLUTION_MARK = "####"
#: a minus behind a digit is no sign: 10-3 ends in 3
_NUMBER = re.compile(r"(?:(?<![0-9])-)?(?:[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?|\.[0-9]+)")
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def accuracy(prediction: Prediction, example: Example) -> float:
    """The best-scored option is the gold one."""
    return float(prediction.option is not None and prediction.option == example.label)


def accuracy_by_text(prediction: Prediction, example: Example) -> float | None:
    """The option with the best log-likelihood per byte of its text is the gold one; None where only letters were scored."""
    return None if prediction.option_by_text is None else float(prediction.option_by_text == example.label)


def exact_match(prediction: Prediction, example: Example) -> float:
    """The decoded answer equals a gold one, white space aside."""
    return float(_spaced(prediction.text) in {_spaced(answer) for answer in _gold(example)})


def exact_match_normalised(prediction: Prediction, example: Example) -> float:
    """The decoded answer equals a gold one but for case, punctuation, articles and white space (SQuAD, Rajpurkar et al. 2016)."""
    return float(normalised(prediction.text) in {normalised(answer) for answer in _gold(example)})


def f1(prediction: Prediction, example: Example) -> float:
    """The best F1 of words over the gold answers, both normalised as in SQuAD."""
    return max(_word_f1(normalised(prediction.text).split(), normalised(answer).split()) for answer in _gold(example))


def final_answer(prediction: Prediction, example: Example) -> float:
    """What stands behind the last ``Answer:`` is equal; the worked lines before it do not count."""
    return float(_MARKER in prediction.text and _after_marker(prediction.text) == _after_marker(example.answer))


def number_match(prediction: Prediction, example: Example) -> float:
    """The answer's number is the gold one: behind the first ``####``, else the last number of the text. 1,000 is 1000.0."""
    found = number_of(prediction.text)
    return float(found is not None and found == number_of(example.answer))


def normalised(text: str) -> str:
    """Lower case without punctuation, articles and spare white space, in the order of the official SQuAD script."""
    bare = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def number_of(text: str) -> Decimal | None:
    """The number a worked or bare answer ends in; None where there is none."""
    _, mark, behind = text.partition(_SOLUTION_MARK)
    numbers = _NUMBER.findall(behind if mark else text)
    return Decimal(numbers[0 if mark else -1].replace(",", "")) if numbers else None


def _gold(example: Example) -> tuple[str, ...]:
    return example.answers or (example.answer,)


def _word_f1(found: list[str], gold: list[str]) -> float:
    if not found or not gold:
        return float(found == gold)
    common = sum((Counter(found) & Counter(gold)).values())
    return 2 * common / (len(found) + len(gold))


def _spaced(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _after_marker(text: str) -> str:
    return _spaced(text.rpartition(_MARKER)[2])


METRICS: dict[str, Callable[[Prediction, Example], float | None]] = {
    "accuracy": accuracy,
    BY_TEXT: accuracy_by_text,
    "exact_match": exact_match,
    "exact_match_normalised": exact_match_normalised,
    "f1": f1,
    "final_answer": final_answer,
    "number_match": number_match,
}

#: what of a text some metrics compare, so that answers that count as the same are counted together
COMPARED: dict[str, Callable[[str], object]] = {
    "exact_match_normalised": normalised,
    "f1": normalised,
    "final_answer": _after_marker,
    "number_match": number_of,
}
