"""Latency from texts to answers: the bridge, the receiver reading the text, the text relay and the floor on the same rows."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch

from latentwire.benchmarks.bench_file import LatencyCase, MethodTimes, Ratio, timed_ratio
from latentwire.benchmarks.floor import Floor, prepare_floor
from latentwire.benchmarks.pair import METHODS, NOTE_TOKENS, BenchPair
from latentwire.benchmarks.stages import measure_stages
from latentwire.benchmarks.timing import Advance, Candidate, Times, count_flops, measure
from latentwire.data.task import Example
from latentwire.methods.base import Method

#: the bridge's path over the floor at most, by batch size; the relay over the bridge at least; see docs/performance.md
FLOOR_MOST, FLOOR_MOST_BATCHED, RELAY_LEAST, TEXT_MOST = 1.15, 1.10, 8.0, 1.0
BATCHED = 16
LONG_CONTEXT = 256
_STAGE_REPETITIONS = 30
#: prepared floors that are kept; every repetition has its own rows as long as there are so many
_KEPT = 64


def measure_latency(
    pair: BenchPair,
    *,
    case: str,
    batch_size: int,
    repetitions: int,
    rows: Sequence[Example] | None = None,
    methods: Sequence[str] = METHODS,
    text_most: float | None = None,
    benchmark: str = "latency",
    advance: Advance = lambda done, total: None,
) -> tuple[LatencyCase, list[Ratio]]:
    """One case. ``rows``: instead of the task's own; ``text_most``: what is asked of the bridge over the receiver reading."""
    rows = pair.rows if rows is None else rows

    def batch(turn: int) -> list[Example]:
        return pair.batch(turn % _KEPT, batch_size, rows)

    @lru_cache(maxsize=_KEPT)
    def floor(turn: int) -> Floor:
        return prepare_floor(pair, batch(turn))

    built = {name: pair.method(name) for name in methods}
    candidates: dict[str, Candidate] = {name: _answering(pair, method, batch) for name, method in built.items()}
    # what a floor is prepared from is no part of its time
    for turn in range(min(_KEPT, 2 * repetitions)):
        floor(turn)
    candidates |= {"floor": lambda turn: floor(turn % _KEPT)(), "bridge_module": _module_alone(floor)}
    # as many rows as are timed go ahead: libraries make a kernel for every shape that they meet for the first time
    times = measure(candidates, device=pair.device, repetitions=repetitions, warmup=repetitions, advance=advance)
    stages = measure_stages(pair, built["bridge"], batch, repetitions=_STAGE_REPETITIONS)
    first = batch(0)
    found = LatencyCase(
        case=case,
        batch_size=batch_size,
        sender_tokens=_mean_tokens(pair.parts.sender.prompter.count_texts([row.sender_prompt for row in rows])),
        receiver_tokens=_mean_tokens(pair.parts.receiver.prompter.count_texts([row.sender_prompt for row in rows])),
        answer_tokens=pair.answer_tokens,
        options=len(first[0].options),
        note_tokens=NOTE_TOKENS,
        floor_sizes=floor(0).sizes,
        methods=[
            *(_method_times(pair, name, method, times, first) for name, method in built.items()),
            MethodTimes(
                method="floor", times=times.spread("floor"), message_tokens=None, message_bytes=None, flops=count_flops(floor(0))
            ),
        ],
        bridge_module=times.spread("bridge_module"),
        bridge_share=round(times.ratio("bridge_module", "floor").value, 4),
        stages=stages,
    )
    own = rows is pair.rows
    return found, _ratios(benchmark, times, case, batch_size, text_most, relay_least=RELAY_LEAST if own else None)


def _ratios(
    benchmark: str, times: Times, case: str, batch_size: int, text_most: float | None, *, relay_least: float | None
) -> list[Ratio]:
    most = FLOOR_MOST_BATCHED if batch_size >= BATCHED else FLOOR_MOST
    found = [timed_ratio(benchmark, times, ("bridge", "floor"), case, most=most)]
    if "text_relay" in times.wall_ms:
        found.append(timed_ratio(benchmark, times, ("text_relay", "bridge"), case, least=relay_least))
    if "receiver_text" in times.wall_ms:
        found.append(timed_ratio(benchmark, times, ("bridge", "receiver_text"), case, most=text_most))
    return found


def _answering(pair: BenchPair, method: Method, batch: Callable[[int], Sequence[Example]]) -> Candidate:
    def answer(turn: int) -> object:
        return pair.predict(method, batch(turn))

    return answer


def _module_alone(floor: Callable[[int], Floor]) -> Candidate:
    @torch.no_grad()
    def run(turn: int) -> object:
        return floor(turn % _KEPT).bridge()

    return run


def _method_times(pair: BenchPair, name: str, method: Method, times: Times, rows: Sequence[Example]) -> MethodTimes:
    answers = method.predict(rows, max_new_tokens=pair.task.config.max_new_tokens)
    return MethodTimes(
        method=name,
        times=times.spread(name),
        message_tokens=round(statistics.fmean(answer.message_tokens for answer in answers), 2),
        message_bytes=round(statistics.fmean(answer.message_bytes for answer in answers), 2),
        flops=count_flops(lambda: pair.predict(method, rows)),
    )


def _mean_tokens(counts: Sequence[int]) -> float:
    return round(statistics.fmean(counts), 1)
