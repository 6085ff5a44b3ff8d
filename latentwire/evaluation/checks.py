"""The prediction check: output that no working method gives. A run with such output is invalid, not completed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from latentwire.evaluation.predictions import PredictionHeader, PredictionRecord

#: fewer rows may be alike by chance
MIN_ROWS = 20
EMPTY_SHARE = 0.5
SAME_SHARE = 0.9


def check_predictions(
    header: PredictionHeader, records: Sequence[PredictionRecord], *, blind: bool = False, learned: bool = True
) -> list[str]:
    """One line for each problem; none for sound output.

    A control may be degenerate: it was made so. A ``blind`` method, to which nothing of the row arrives, may give one answer to all
    rows (it can give no other). So may one that has not ``learned`` from rows of the task: a model that cannot do a task zero-shot
    is weak, and its score says so; a trained method that does the same is broken.
    """
    if header["control"] is not None:
        return []
    found = _scores(records)
    if not blind and len(records) >= MIN_ROWS:
        found += _empty(records) or ([*_labels(records), *_same(records)] if learned else [])
    return [f"{header['task']}, {header['method']}{_seed(header)}: {line}" for line in found]


def _seed(header: PredictionHeader) -> str:
    return "" if header["seed"] is None else f" (seed {header['seed']})"


def _scores(records: Sequence[PredictionRecord]) -> list[str]:
    bad = [record["id"] for record in records if record["scores"] is not None and None in record["scores"]]
    return [f"scores of {len(bad):,} of {len(records):,} rows are no finite numbers, the first in row {bad[0]}"] if bad else []


def _labels(records: Sequence[PredictionRecord]) -> list[str]:
    """One option for all rows whose gold options differ."""
    rows = [record for record in records if record["option"] is not None and record["label"] is not None]
    given, golds = {record["option"] for record in rows}, {record["label"] for record in rows}
    if len(rows) < MIN_ROWS or len(given) > 1 or len(golds) == 1:
        return []
    return [f"one label ({rows[0]['prediction']!r}, option {rows[0]['option']}) for all {len(rows):,} rows; gold has {len(golds)}"]


def _free(records: Sequence[PredictionRecord]) -> list[PredictionRecord]:
    rows = [record for record in records if record["option"] is None]
    return rows if len(rows) >= MIN_ROWS else []


def _empty(records: Sequence[PredictionRecord]) -> list[str]:
    """Free answers that are mostly silence."""
    rows = _free(records)
    empty = sum(not record["prediction"].strip() for record in rows)
    return [f"the text is empty in {empty:,} of {len(rows):,} rows"] if rows and empty >= EMPTY_SHARE * len(rows) else []


def _same(records: Sequence[PredictionRecord]) -> list[str]:
    """One free answer nearly everywhere though gold answers differ."""
    rows = _free(records)
    if not rows:
        return []
    text, count = Counter(record["prediction"].strip() for record in rows).most_common(1)[0]
    commonest_gold = max(Counter(record["target"].strip() for record in rows).values())
    if count < SAME_SHARE * len(rows) or commonest_gold >= SAME_SHARE * len(rows):
        return []
    return [f"the same answer ({text[:40]!r}) in {count:,} of {len(rows):,} rows"]
