"""Prediction files by hand, for tests that need no model."""

from __future__ import annotations

from collections.abc import Sequence

from latentwire.evaluation.predictions import SCHEMA_VERSION, PredictionHeader, PredictionRecord, Predictions
from latentwire.evaluation.rows import chance_level

OPTIONS = ("no", "yes")


def record(index: int, *, option: int, label: int, **changes: object) -> PredictionRecord:
    made = PredictionRecord(
        id=f"test-{index}",
        prompt_hash=f"{index:016x}",
        scores=[-1.0 if choice == option else -2.0 for choice in range(len(OPTIONS))],
        prediction=OPTIONS[option],
        option=option,
        target=OPTIONS[label],
        label=label,
        values={"accuracy": float(option == label)},
        chance=0.5,
        field="all",
        held_out=False,
        message_tokens=2,
        message_bytes=8,
    )
    return made | changes  # type: ignore[return-value]


def free(index: int, text: str, target: str, **changes: object) -> PredictionRecord:
    made = record(index, option=0, label=0, scores=None, **changes)
    right = {"exact_match": float(text == target)}
    return made | {"prediction": text, "option": None, "target": target, "label": None, "values": right, "chance": 0.0}  # type: ignore[return-value]


def header(records: Sequence[PredictionRecord], **changes: object) -> PredictionHeader:
    made = PredictionHeader(
        schema_version=SCHEMA_VERSION,
        task="questions",
        split="test",
        method="receiver_text",
        control=None,
        seed=None,
        sender_sees="context",
        receiver_sees="question",
        metrics=list(records[0]["values"]),
        n=len(records),
        chance=chance_level(records),
        latency_ms_p50=None,
        data_revision="rows@1",
        partial=False,
        fit={},
        identity="",
        problems=[],
        records_sha256="",
    )
    return made | changes  # type: ignore[return-value]


def answered(right: Sequence[bool], **changes: object) -> Predictions:
    """Rows with two options, gold alternating, right where ``right`` says so."""
    records = [record(index, option=index % 2 if good else 1 - index % 2, label=index % 2) for index, good in enumerate(right)]
    return Predictions(header(records, **changes), records)
