"""What of an answer's text counts: the parts that metrics compare. No model is needed here, and none is loaded."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from decimal import Decimal

MARKER = "Answer:"
_SOLUTION_MARK = "####"
#: a minus behind a digit is no sign: 10-3 ends in 3
_NUMBER = re.compile(r"(?:(?<![0-9])-)?(?:[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?|\.[0-9]+)")
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalised(text: str) -> str:
    """Lower case without punctuation, articles and spare white space, in the order of the official SQuAD script."""
    bare = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def number_of(text: str) -> Decimal | None:
    """The number a worked or bare answer ends in; None where there is none."""
    text = text.replace("\N{MINUS SIGN}", "-")
    _, mark, behind = text.partition(_SOLUTION_MARK)
    numbers = _NUMBER.findall(behind if mark else text)
    return Decimal(numbers[0 if mark else -1].replace(",", "")) if numbers else None


def spaced(text: str) -> str:
    """With one blank wherever there is white space, and none at the ends."""
    return re.sub(r"\s+", " ", text).strip()


def after_marker(text: str) -> str:
    """What stands behind the last ``Answer:``."""
    return spaced(text.rpartition(MARKER)[2])


#: what of a text some metrics compare, so that answers that count as the same are counted together
COMPARED: dict[str, Callable[[str], object]] = {
    "exact_match_normalised": normalised,
    "f1": normalised,
    "final_answer": after_marker,
    "number_match": number_of,
}
