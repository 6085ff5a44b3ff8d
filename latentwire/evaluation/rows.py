"""Result rows from stored predictions. No model is needed here, and none is loaded."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

from latentwire.evaluation.answers import COMPARED
from latentwire.evaluation.predictions import BY_TEXT, PredictionHeader, PredictionRecord
from latentwire.evaluation.results import ResultRow
from latentwire.evaluation.statistics import score_interval


def subsets_of(records: Sequence[PredictionRecord]) -> dict[str, list[PredictionRecord]]:
    """``all``, then every field where there are several, then ``held_out`` where there are such rows."""
    found = {"all": list(records)}
    fields = sorted({record["field"] for record in records})
    if len(fields) > 1:
        found |= {field: [record for record in records if record["field"] == field] for field in fields}
    held_out = [record for record in records if record["held_out"]]
    return found | ({"held_out": held_out} if held_out else {})


def chance_level(records: Sequence[PredictionRecord], metric: str | None = None) -> float:
    """The better of a blind guess and always giving the commonest answer: the same option, or the same text.

    ``metric``: what of the texts it compares counts; None takes them whole.
    """
    return chance_of([(record["target"], record["label"], record["chance"]) for record in records], metric)


def chance_of(rows: Sequence[tuple[str, int | None, float]], metric: str | None) -> float:
    """``chance_level`` of rows of (answer, label, chance of a blind guess)."""
    compared = COMPARED.get(metric or "", str)
    golds = Counter(compared(answer) if label is None else label for answer, label, _ in rows)
    return max(max(golds.values()) / len(rows), statistics.fmean(guess for *_, guess in rows))


def result_rows(header: PredictionHeader, records: Sequence[PredictionRecord]) -> list[ResultRow]:
    """One row per metric and subset."""
    return [
        _row(header, records_of, metric, subset)
        for metric in header["metrics"]
        for subset, records_of in subsets_of(records).items()
    ]


def _row(header: PredictionHeader, records: Sequence[PredictionRecord], metric: str, subset: str) -> ResultRow:
    score = score_interval([record["values"][metric] for record in records])
    return ResultRow(
        task=header["task"],
        split=header["split"],
        subset=subset,
        method=header["method"],
        control=header["control"],
        sender_sees=header["sender_sees"],
        receiver_sees=f"{header['receiver_sees']}, then the options" if metric == BY_TEXT else header["receiver_sees"],
        seed=header["seed"],
        metric=metric,
        value=score.value,
        ci_low=score.low,
        ci_high=score.high,
        interval=score.how,
        n=len(records),
        chance=chance_level(records, metric),
        message_tokens=statistics.fmean(record["message_tokens"] for record in records),
        message_bytes=statistics.fmean(record["message_bytes"] for record in records),
        latency_ms_p50=header["latency_ms_p50"] if subset == "all" else None,
        problems=list(header["problems"]),
    )
