"""The evaluator: every method and control over the same rows, scored by the same metrics.

Predictions come first and are kept; every number in a result is computed from them (``latentwire.evaluation.rows``).
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from latentwire.data.task import Example, Task
from latentwire.errors import DataError
from latentwire.evaluation.checks import check_predictions
from latentwire.evaluation.controls import applicable, build_control
from latentwire.evaluation.metrics import METRICS
from latentwire.evaluation.predictions import SCHEMA_VERSION, PredictionHeader, PredictionRecord, Predictions
from latentwire.evaluation.results import ResultRow
from latentwire.evaluation.rows import chance_level, result_rows
from latentwire.files import digest
from latentwire.methods.base import AS_THE_TASK_SAYS, Method, Prediction
from latentwire.models.device import synchronise


@dataclass(frozen=True)
class EvaluationSettings:
    """``batch_size`` changes speed, never results; ``latency_rows`` 0 leaves latency out."""

    batch_size: int = 256
    latency_rows: int = 30
    latency_warmup_rows: int = 3
    with_controls: bool = True
    control_seed: int = 0


@dataclass(frozen=True)
class Origin:
    """What a prediction file says about the rows and the method besides the answers themselves.

    ``seed`` is kept for methods with trained parts only. ``identity``: what a resume compares. ``fit``: what training chose and
    cost.
    """

    split: str
    seed: int | None = None
    data_revision: str = ""
    partial: bool = False
    identity: str = ""
    fit: Mapping[str, Any] = field(default_factory=dict)


Advance = Callable[[str, int], None]


def _silent(what: str, rows: int) -> None:
    pass


def evaluate_task(
    task: Task,
    examples: Sequence[Example],
    methods: Sequence[Method],
    *,
    settings: EvaluationSettings,
    split: str,
    seed: int | None,
    advance: Advance = _silent,
) -> list[ResultRow]:
    """Result rows for every method, control, metric and subset. ``advance`` hears the method's label and the rows done."""
    answered = answer_task(task, examples, methods, settings=settings, origin=Origin(split, seed), advance=advance)
    return [row for predictions in answered for row in result_rows(*predictions)]


def answer_task(
    task: Task,
    examples: Sequence[Example],
    methods: Sequence[Method],
    *,
    settings: EvaluationSettings,
    origin: Origin,
    advance: Advance = _silent,
) -> Iterator[Predictions]:
    """The predictions of every method and control, one after the other, so that each can be kept as soon as it is there."""
    latencies = measure_latencies(task, examples, methods, settings) if settings.latency_rows else {}
    for method in methods:
        for control in (None, *(applicable(method.controls, len(examples)) if settings.with_controls else ())):
            records = predict_all(task, examples, method, control, settings, advance=advance)
            latency = latencies.get(method.label) if control is None else None
            yield describe(task, examples, records, method, control, origin=origin, latency_ms=latency)


def predict_all(
    task: Task,
    examples: Sequence[Example],
    method: Method,
    control: str | None,
    settings: EvaluationSettings,
    *,
    advance: Advance = _silent,
) -> list[PredictionRecord]:
    """One record per example, in their order.

    Raises:
        DataError: there is no example, or two have the same id: methods are compared row by row, so ids must tell rows apart.
    """
    _check_ids(task, examples)
    applied = build_control(control, examples, settings.control_seed) if control else None
    predictions: list[Prediction] = []
    batches = [examples[start : start + settings.batch_size] for start in range(0, len(examples), settings.batch_size)]
    for number, batch in enumerate(batches):
        for coming in batches[number : number + 2]:
            method.expect(coming, control=applied)
        predictions += method.predict(batch, max_new_tokens=task.config.max_new_tokens, control=applied)
        advance(f"{task.name} {method.label}{f' ({control})' if control else ''}", len(batch))
    metrics = task.config.metrics
    return [_record(prediction, example, metrics) for prediction, example in zip(predictions, examples, strict=True)]


def _check_ids(task: Task, examples: Sequence[Example]) -> None:
    if not examples:
        raise DataError(f"task {task.name!r} has no rows to evaluate; check --split and --max_samples")
    seen: set[str] = set()
    for example in examples:
        if example.id in seen:
            raise DataError(f"task {task.name!r}: two rows have the id {example.id!r}; give each its own, or remove the field 'id'")
        seen.add(example.id)


def _record(prediction: Prediction, example: Example, metrics: Sequence[str]) -> PredictionRecord:
    scores = None
    if prediction.scores is not None:
        scores = [score if isfinite(score) else None for score in prediction.scores]
    return PredictionRecord(
        id=example.id,
        prompt_hash=row_hash(example),
        scores=scores,
        prediction=prediction.text,
        option=prediction.option,
        target=example.answer,
        label=example.label,
        values={name: value for name in metrics if (value := METRICS[name](prediction, example)) is not None},
        chance=example.guess,
        field=example.field,
        held_out=example.held_out,
        message_tokens=prediction.message_tokens,
        message_bytes=prediction.message_bytes,
    )


def describe(
    task: Task,
    examples: Sequence[Example],
    records: list[PredictionRecord],
    method: Method,
    control: str | None,
    *,
    origin: Origin,
    latency_ms: float | None = None,
) -> Predictions:
    """The records with their header, checked."""
    sender_sees, receiver_sees = who_sees(method, examples)
    header = PredictionHeader(
        schema_version=SCHEMA_VERSION,
        task=task.name,
        split=origin.split,
        method=method.label,
        control=control,
        seed=origin.seed if method.seeded else None,
        sender_sees="another row's context" if control == "shuffled" else sender_sees,
        receiver_sees=receiver_sees,
        # a metric that a method cannot serve (a probe scores no texts) is left out, not counted as wrong
        metrics=[name for name in task.config.metrics if all(name in record["values"] for record in records)],
        n=len(records),
        chance=chance_level(records, task.config.metrics[0]),
        latency_ms_p50=latency_ms,
        data_revision=origin.data_revision,
        partial=origin.partial,
        fit=dict(origin.fit),
        identity=origin.identity,
        problems=[],
        records_sha256="",
    )
    learned = method.fits and not method.answers_untrained
    header["problems"] = check_predictions(header, records, blind=method.blind, learned=learned)
    return Predictions(header, records)


def who_sees(method: Method, examples: Sequence[Example]) -> tuple[str, str]:
    """(sender sees, receiver sees); where a method leaves it to the task, what the task's rows say."""
    sender = examples[0].sender_sees if method.sender_sees == AS_THE_TASK_SAYS else method.sender_sees
    receiver = examples[0].receiver_sees if method.receiver_sees == AS_THE_TASK_SAYS else method.receiver_sees
    return sender, receiver


def measure_latencies(
    task: Task, examples: Sequence[Example], methods: Sequence[Method], settings: EvaluationSettings
) -> dict[str, float]:
    """Median milliseconds from text to answer at batch size 1, the methods taking turns row by row."""
    wanted = settings.latency_warmup_rows + settings.latency_rows
    times: dict[str, list[float]] = {method.label: [] for method in methods}
    for turn in range(wanted):
        example = examples[turn % len(examples)]
        for method in methods:
            synchronise(method.parts.receiver.device)
            started = time.perf_counter()
            method.predict([example], max_new_tokens=task.config.max_new_tokens)
            synchronise(method.parts.receiver.device)
            times[method.label].append(1000 * (time.perf_counter() - started))
    return {label: statistics.median(values[settings.latency_warmup_rows :]) for label, values in times.items()}


def row_hash(example: Example) -> str:
    """Changes when any prompt, option or the answer of the row does."""
    return digest(json.dumps(_content(example), ensure_ascii=False))[:16]


def prompt_hash(examples: Sequence[Example]) -> str:
    """Changes when any prompt, option or answer of the evaluation does."""
    return digest(json.dumps([_content(example) for example in examples], ensure_ascii=False))[:16]


def _content(example: Example) -> list[str]:
    prompts = [example.sender_prompt, *example.receiver_prompt, *example.receiver_prompt_aware]
    shown = [*(example.receiver_prompt_options or ()), *example.option_texts]
    return [example.id, *prompts, *shown, *example.options, example.answer, *example.answers]
