"""What the rows of a run are like, kept beside it so that a failure can be explained without reading the data again."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from latentwire.data.budget import Reader
from latentwire.data.readers import TaskRows
from latentwire.data.task import Example, Task

ROWS_FILE = "rows.json"
MOST_LABELS = 200


def portrait(task: Task, split: str, whole: TaskRows, fitted: TaskRows, *, reader: Reader) -> dict[str, Any]:
    """One split of one task, as JSON.

    ``contexts_cut`` and ``options_lost`` count rows that were cut for the sender, and among them those that lost an option by it;
    ``target_tokens`` are tokens of the receiver, ``at_max`` the share of targets with exactly the greatest number;
    ``sender_words_shown`` is the share of the sender's words that the receiver's own prompt holds; ``bits`` the mean
    information of a row, where the task knows it.
    """
    examples = fitted.examples
    free = [example.answer for example in examples if not example.options]
    bits = [example.bits for example in examples if example.bits is not None]
    return {
        "task": task.name,
        "split": split,
        "rows": len(examples),
        "revision": fitted.revision,
        "sender_sees": examples[0].sender_sees,
        "receiver_sees": examples[0].receiver_sees,
        "metrics": list(task.config.metrics),
        "labels": dict(Counter(example.answer for example in examples if example.options).most_common(MOST_LABELS)),
        "contexts_cut": len({cut.row_id for cut in fitted.cuts if cut.end == "sender"}),
        "options_lost": options_lost(whole.examples, examples),
        "max_new_tokens": task.config.max_new_tokens if free else None,
        "target_tokens": _lengths(reader.count_texts([f" {answer}" for answer in free])) if free else None,
        "target_words_p50": statistics.median(len(answer.split()) for answer in free) if free else None,
        "target_samples": free[:2],
        "sender_words_shown": round(statistics.fmean(_shown(example) for example in examples), 4),
        "bits": round(statistics.fmean(bits), 3) if bits else None,
    }


def options_lost(whole: Sequence[Example], fitted: Sequence[Example]) -> int:
    """Rows in which an option stood in what the sender reads, and no longer does after the cut."""
    lost = 0
    for before, after in zip(whole, fitted, strict=True):
        if before.sender_prompt != after.sender_prompt and before.option_texts:
            lost += any(text in before.sender_prompt and text not in after.sender_prompt for text in before.option_texts)
    return lost


def _lengths(counts: Sequence[int]) -> dict[str, int | float]:
    most = max(counts)
    return {"p50": statistics.median(counts), "max": most, "at_max": round(sum(count == most for count in counts) / len(counts), 4)}


def _shown(example: Example) -> float:
    sender, receiver = _words(example.sender_prompt), _words(example.receiver_prompt.text)
    return len(sender & receiver) / len(sender) if sender else 0.0


@lru_cache(maxsize=256)
def _words(text: str) -> frozenset[str]:
    # the questions about one context stand together
    return frozenset(re.findall(r"\w+", text.lower()))
