"""Interleaved timing: candidates take turns in every repetition, so that load on the machine hits all of them alike.

A comparison is the median of the ratios within repetitions, with a bootstrap interval (Efron 1979): what slows one repetition
down slows both of its candidates and leaves their ratio alone. Nothing here knows a model.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from random import Random
from typing import NamedTuple, TypedDict

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from latentwire.models.device import synchronise
from latentwire.models.products import plain_products

LEAST_REPETITIONS = 30
_RESAMPLES = 2000

#: called with the number of the repetition, so that every candidate works on the same rows in the same repetition
Candidate = Callable[[int], object]
#: called with how many repetitions are done, and of how many
Advance = Callable[[int, int], None]


class Spread(TypedDict):
    """Milliseconds of ``n`` repetitions; ``device_ms`` is the median between two events of the device, None on a CPU."""

    n: int
    median_ms: float
    p25_ms: float
    p75_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    device_ms: float | None


@dataclass(frozen=True)
class PairedRatio:
    """Median over repetitions of one candidate's time over another's, with its 95 % interval.

    ``cpu``: the same of the process's processor time, which time that others take on a busy machine does not enter.
    """

    value: float
    low: float
    high: float
    cpu: float | None = None


@dataclass(frozen=True)
class Times:
    """Milliseconds of every repetition: by the clock on the wall, of processor time, and between device events where the device
    has them.
    """

    wall_ms: Mapping[str, Sequence[float]]
    cpu_ms: Mapping[str, Sequence[float]]
    device_ms: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def spread(self, name: str) -> Spread:
        """Median and percentiles of a candidate."""
        values = np.asarray(self.wall_ms[name])
        p25, p50, p75, p95, p99 = (round(float(value), 4) for value in np.percentile(values, [25, 50, 75, 95, 99]))
        device = round(float(np.median(self.device_ms[name])), 4) if self.device_ms.get(name) else None
        return Spread(
            n=len(values), median_ms=p50, p25_ms=p25, p75_ms=p75, p50_ms=p50, p95_ms=p95, p99_ms=p99, device_ms=device
        )  # fmt: skip

    def ratio(self, name: str, other: str) -> PairedRatio:
        """The time of ``name`` over that of ``other``."""
        return replace(paired_ratio(self.wall_ms[name], self.wall_ms[other]), cpu=self.cpu_ratio(name, other))

    def cpu_ratio(self, name: str, other: str) -> float:
        """The same of processor time."""
        return paired_ratio(self.cpu_ms[name], self.cpu_ms[other]).value


def paired_ratio(times: Sequence[float], others: Sequence[float], *, seed: int = 0) -> PairedRatio:
    """Median of the ratios within repetitions; the interval is the percentile bootstrap over repetitions."""
    ratios = np.asarray(times) / np.asarray(others)
    drawn = np.random.default_rng(seed).integers(0, len(ratios), size=(_RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(ratios[drawn], axis=1), [2.5, 97.5])
    return PairedRatio(float(np.median(ratios)), float(low), float(high))


def measure(
    candidates: Mapping[str, Candidate],
    *,
    device: torch.device,
    repetitions: int,
    warmup: int = 3,
    advance: Advance = lambda done, total: None,
) -> Times:
    """Runs every candidate ``warmup`` times untimed and ``repetitions`` times timed, in an order drawn anew for each repetition.

    The collector of cyclic garbage rests between its runs ahead of every repetition. On an accelerator every candidate begins and
    ends with a synchronisation, so that it pays for its own work only.
    """
    names, rng = list(candidates), Random(0)
    taken: dict[str, list[Sample]] = {name: [] for name in names}
    for turn in range(warmup + repetitions):
        with _without_collection():
            for name in rng.sample(names, len(names)):
                sample = timed(candidates[name], turn, device)
                if turn >= warmup:
                    taken[name].append(sample)
        advance(turn + 1, warmup + repetitions)
    return Times(
        {name: [sample.wall_ms for sample in samples] for name, samples in taken.items()},
        {name: [sample.cpu_ms for sample in samples] for name, samples in taken.items()},
        {name: [sample.device_ms for sample in samples if sample.device_ms is not None] for name, samples in taken.items()},
    )


class Sample(NamedTuple):
    """One run: milliseconds by the clock on the wall, of processor time, and between two events of a CUDA device."""

    wall_ms: float
    cpu_ms: float
    device_ms: float | None


def timed(candidate: Candidate, turn: int, device: torch.device) -> Sample:
    """Runs a candidate once; whatever the device still has to do ahead of it or for it is waited for."""
    synchronise(device)
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if device.type == "cuda" else []
    started, cpu_started = time.perf_counter(), time.process_time()
    if events:
        events[0].record(torch.cuda.current_stream(device))
    candidate(turn)
    if events:
        events[1].record(torch.cuda.current_stream(device))
    synchronise(device)
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu_started
    return Sample(1000 * wall, 1000 * cpu, events[0].elapsed_time(events[1]) if events else None)


@contextmanager
def _without_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.collect(0)
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def loglog_slope(sizes: Sequence[int], times: Sequence[float]) -> float:
    """Least-squares slope of log time over log size: 1 where twice the size costs twice the time."""
    slope, _ = np.polyfit(np.log(np.asarray(sizes, float)), np.log(np.asarray(times, float)), 1)
    return float(slope)


def count_flops(run: Callable[[], object]) -> int:
    """Multiplications and additions of matrix products and attention, counted by torch.

    Attention as plain products: torch does not count the fused one of a CPU, nor oneDNN's products.
    """
    with plain_products(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())
