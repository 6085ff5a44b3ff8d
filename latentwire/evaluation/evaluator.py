"""The evaluator: every method and control over the same rows, scored by the same metric."""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from latentwire.data.task import Example, Task
from latentwire.evaluation.controls import build_control
from latentwire.evaluation.metrics import METRICS
from latentwire.evaluation.results import ResultRow
from latentwire.evaluation.statistics import wilson_interval
from latentwire.files import digest
from latentwire.methods.base import Method, Prediction


@dataclass(frozen=True)
class EvaluationSettings:
    """``batch_size`` changes speed, never results; ``latency_rows`` 0 leaves latency out."""

    batch_size: int = 64
    latency_rows: int = 30
    latency_warmup_rows: int = 3
    with_controls: bool = True
    control_seed: int = 0


@dataclass(frozen=True)
class Scored:
    """Predictions of one method on one task, each with its verdict."""

    method: Method
    control: str | None
    predictions: list[Prediction]
    right: list[bool]


Advance = Callable[[str, int], None]


def evaluate_task(
    task: Task,
    examples: Sequence[Example],
    methods: Sequence[Method],
    *,
    settings: EvaluationSettings,
    split: str,
    seed: int | None,
    advance: Advance = lambda what, rows: None,
) -> list[ResultRow]:
    """Result rows for every method, control and subset. ``advance`` hears the method's label and the rows done."""
    latencies = _latencies(task, examples, methods, settings) if settings.latency_rows else {}
    rows: list[ResultRow] = []
    for method in methods:
        controls = [None, *(method.controls if settings.with_controls else ())]
        for control in controls:
            scored = _score(task, examples, method, control, settings, advance)
            latency = latencies.get(method.label) if control is None else None
            rows += _result_rows(task, examples, scored, split=split, seed=seed, latency_ms=latency)
    return rows


def _score(
    task: Task, examples: Sequence[Example], method: Method, control: str | None, settings: EvaluationSettings, advance: Advance
) -> Scored:
    applied = build_control(control, examples, settings.control_seed) if control else None
    metric = METRICS[task.config.metrics[0]]
    predictions: list[Prediction] = []
    for start in range(0, len(examples), settings.batch_size):
        batch = examples[start : start + settings.batch_size]
        predictions += method.predict(batch, max_new_tokens=task.config.max_new_tokens, control=applied)
        advance(f"{task.name} {method.label}{f' ({control})' if control else ''}", len(batch))
    right = [metric(prediction, example) >= 1.0 for prediction, example in zip(predictions, examples, strict=True)]
    return Scored(method, control, predictions, right)


def _latencies(
    task: Task, examples: Sequence[Example], methods: Sequence[Method], settings: EvaluationSettings
) -> dict[str, float]:
    """Median milliseconds from text to answer at batch size 1, the methods taking turns row by row."""
    wanted = settings.latency_warmup_rows + settings.latency_rows
    times: dict[str, list[float]] = {method.label: [] for method in methods}
    for turn in range(wanted):
        example = examples[turn % len(examples)]
        for method in methods:
            _synchronise(method)
            started = time.perf_counter()
            method.predict([example], max_new_tokens=task.config.max_new_tokens)
            _synchronise(method)
            times[method.label].append(1000 * (time.perf_counter() - started))
    return {label: statistics.median(values[settings.latency_warmup_rows :]) for label, values in times.items()}


def _synchronise(method: Method) -> None:
    import torch

    device = method.parts.receiver.device
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _result_rows(
    task: Task, examples: Sequence[Example], scored: Scored, *, split: str, seed: int | None, latency_ms: float | None
) -> list[ResultRow]:
    subsets: dict[str, list[int]] = {"all": list(range(len(examples)))}
    fields = sorted({example.field for example in examples})
    if len(fields) > 1:
        for field in fields:
            subsets[field] = [index for index, example in enumerate(examples) if example.field == field]
    held_out = [index for index, example in enumerate(examples) if example.held_out]
    if held_out:
        subsets["held_out"] = held_out
    method = scored.method
    trained = method.parts.bridge is not None and method.name == "bridge"
    rows = []
    for subset, indexes in subsets.items():
        right = sum(scored.right[index] for index in indexes)
        low, high = wilson_interval(right, len(indexes))
        rows.append(
            ResultRow(
                task=task.name,
                split=split,
                subset=subset,
                method=method.label,
                control=scored.control,
                sender_sees="another row's context" if scored.control == "shuffled" else method.sender_sees,
                receiver_sees=method.receiver_sees,
                seed=seed if trained else None,
                metric=task.config.metrics[0],
                value=right / len(indexes),
                ci_low=low,
                ci_high=high,
                n=len(indexes),
                chance=chance_level([examples[index] for index in indexes]),
                message_tokens=statistics.fmean(scored.predictions[index].message_tokens for index in indexes),
                message_bytes=statistics.fmean(scored.predictions[index].message_bytes for index in indexes),
                latency_ms_p50=latency_ms if subset == "all" else None,
            )
        )
    return rows


def chance_level(examples: Sequence[Example]) -> float:
    """The better of a blind guess and always giving the commonest answer."""
    majority = max(Counter(example.answer for example in examples).values()) / len(examples)
    blind = [1 / len(example.options) if example.options else (example.chance or 0.0) for example in examples]
    return max(majority, statistics.fmean(blind))


def prompt_hash(examples: Sequence[Example]) -> str:
    """Changes when any prompt, option or answer of the evaluation does."""
    content = [
        [row.id, row.sender_prompt, *row.receiver_prompt, *row.receiver_prompt_aware, *row.options, row.answer] for row in examples
    ]
    return digest(json.dumps(content, ensure_ascii=False))[:16]
