"""Rows per second of an evaluation: the evaluator's batches against the same method row by row."""

from __future__ import annotations

from dataclasses import replace

from latentwire.benchmarks.bench_file import Ratio, ThroughputCase, ratio_row
from latentwire.benchmarks.pair import BenchPair
from latentwire.benchmarks.timing import Advance, measure, paired_ratio
from latentwire.evaluation.evaluator import EvaluationSettings, predict_all

BATCHED_LEAST = 10.0
#: single rows that stand against one batch in each repetition
_SINGLE_ROWS = 4


def measure_throughput(
    pair: BenchPair, *, repetitions: int, batch_size: int | None = None, advance: Advance = lambda done, total: None
) -> tuple[ThroughputCase, list[Ratio]]:
    """The bridge over as many rows as the evaluator takes at once, scoring and packing of records included."""
    settings = EvaluationSettings(with_controls=False, latency_rows=0)
    size = min(batch_size or settings.batch_size, len(pair.rows))
    method = pair.method("bridge")

    def batched(turn: int) -> object:
        start = (turn * size) % max(1, len(pair.rows) - size + 1)
        return predict_all(pair.task, pair.rows[start : start + size], method, None, settings)

    def single(turn: int) -> object:
        return [pair.predict(method, pair.batch(turn * _SINGLE_ROWS + place, 1)) for place in range(_SINGLE_ROWS)]

    times = measure({"batched": batched, "single": single}, device=pair.device, repetitions=repetitions, warmup=1, advance=advance)
    rates = {
        name: [1000 * rows / value for value in times.wall_ms[name]] for name, rows in (("batched", size), ("single", _SINGLE_ROWS))
    }
    cpu = times.cpu_ratio("single", "batched") * size / _SINGLE_ROWS
    gain = replace(paired_ratio(rates["batched"], rates["single"]), cpu=cpu)
    medians = {name: sorted(values)[len(values) // 2] for name, values in rates.items()}
    case = ThroughputCase(
        batch_size=size,
        batched=times.spread("batched"),
        batched_rows_per_second=round(medians["batched"], 2),
        single=times.spread("single"),
        single_rows_per_second=round(medians["single"], 2),
    )
    name = "rows per second, batched / single"
    return case, [ratio_row("throughput", name, f"batch {size}", gain, repetitions, least=BATCHED_LEAST)]
