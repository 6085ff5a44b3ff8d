"""The file of a benchmark: every key of ``bench.json`` is typed and explained here and in ``docs/performance.md``."""

from __future__ import annotations

from typing import Any, TypedDict

from latentwire.benchmarks.timing import PairedRatio, Spread, Times

SCHEMA_VERSION = 1
BENCH_FILE, FIGURE_FILE = "bench.json", "bench.png"


class Ratio(TypedDict):
    """How many times longer, more or faster: the median over paired repetitions with its 95 % bootstrap interval."""

    benchmark: str
    #: what was compared where, for example ``bridge / floor`` at ``batch 1``
    name: str
    case: str
    value: float
    low: float
    high: float
    #: the same of processor time, None where that is no time at all: on a busy machine the steadier of the two
    cpu_value: float | None
    n: int
    #: what it should be at most or at least, and whether it is; None where nothing is asked
    most: float | None
    least: float | None
    met: bool | None


class MethodTimes(TypedDict):
    """One method, from texts to answers."""

    method: str
    times: Spread
    #: means over the rows: what crossed, and FLOPs of all passes of one batch (matrix products and attention)
    message_tokens: float | None
    message_bytes: float | None
    flops: int | None


class Stages(TypedDict):
    """The bridge's path cut into stages: medians in milliseconds; ``covered`` is the median share of the total they explain."""

    n: int
    total_ms: float
    stages_ms: dict[str, float]
    covered: float


class LatencyCase(TypedDict):
    """All methods on the same rows."""

    case: str
    batch_size: int
    #: mean tokens of a context for the sender and for the receiver; decode steps of an answer, or options that are scored
    sender_tokens: float
    receiver_tokens: float
    answer_tokens: int
    options: int
    #: sender tokens of the relay's note
    note_tokens: int
    #: tokens of the floor's passes for the first batch
    floor_sizes: dict[str, int]
    methods: list[MethodTimes]
    #: the bridge module alone, and its share of the floor
    bridge_module: Spread
    bridge_share: float
    stages: Stages


class OptionsCase(TypedDict):
    """Scoring so many options behind one prefix."""

    options: int
    nodes: int
    prefix_tokens: int
    trie: Spread
    #: one bare pass with the tree's mask, and one causal pass of the same length
    bare: Spread
    bare_causal: Spread
    #: the same options one by one, bare; all of one repetition
    separate: Spread


class ThroughputCase(TypedDict):
    """Rows per second of the evaluator over a batch, and of the same method row by row."""

    batch_size: int
    batched: Spread
    batched_rows_per_second: float
    single: Spread
    single_rows_per_second: float


class TrainingCase(TypedDict):
    """A step of the trainer against the paper's procedure on the same rows."""

    task: str
    batch_size: int
    sender_tokens: float
    answer_tokens: float
    step: Spread
    rows_per_second: float
    baseline: Spread
    baseline_rows_per_second: float
    #: of one step of each on the first batch
    flops: int
    baseline_flops: int
    #: cosine and relative distance of the two procedures' bridge gradients on the first batch
    gradient_cosine: float
    gradient_distance: float


class MemoryCase(TypedDict):
    """Bytes of a process that loads the pair and answers at batch 1."""

    #: parameters that are used: the sender's lower blocks, the receiver, the bridge
    used_weights_bytes: int
    #: what `latentwire train --dry-run` counts for the same
    estimated_bytes: int
    #: anonymous memory after imports, and its peak while loading and answering
    after_imports_bytes: int
    peak_bytes: int
    #: the most that the device's allocator held, None on a CPU
    device_peak_bytes: int | None
    #: the same of the whole resident set, files mapped into it included
    after_imports_resident_bytes: int
    resident_peak_bytes: int


class Point(TypedDict):
    """One point of a curve."""

    size: int
    times: Spread


class Curve(TypedDict):
    """Cost against a size. ``slope``: of log time over log size, over all points, and between the two largest."""

    what: str
    unit: str
    points: list[Point]
    slope: float | None
    last_slope: float | None
    #: why it ends where it does, where it had to end early
    ends_because: str | None


class RunFacts(TypedDict):
    """What was measured, on what."""

    command: str
    pair: dict[str, Any]
    task: str
    rows: int
    data_revision: str
    benchmarks: list[str]
    repetitions: int
    threads: int
    compiled: bool
    hardware: dict[str, Any]
    versions: dict[str, str]
    git: dict[str, Any]


class Bench(TypedDict):
    """The whole file; what was not asked for is empty."""

    schema_version: int
    run: RunFacts
    ratios: list[Ratio]
    latency: list[LatencyCase]
    options: list[OptionsCase]
    throughput: list[ThroughputCase]
    training: list[TrainingCase]
    memory: list[MemoryCase]
    scale: list[Curve]


def ratio_row(
    benchmark: str, name: str, case: str, found: PairedRatio, n: int, *, most: float | None = None, least: float | None = None
) -> Ratio:
    """A ratio held against what is asked of it."""
    met = (
        None
        if most is None and least is None
        else (most is None or found.value <= most) and (least is None or found.value >= least)
    )
    low, value, high = (round(number, 4) for number in (found.low, found.value, found.high))
    return Ratio(
        benchmark=benchmark, name=name, case=case, value=value, low=low, high=high,
        cpu_value=None if found.cpu is None else round(found.cpu, 4), n=n, most=most, least=least, met=met,
    )  # fmt: skip


def timed_ratio(
    benchmark: str, times: Times, over: tuple[str, str], case: str, *, most: float | None = None, least: float | None = None
) -> Ratio:
    """The time of the first of ``over`` over that of the second."""
    name, other = over
    found = times.ratio(name, other)
    return ratio_row(benchmark, f"{name} / {other}", case, found, len(times.wall_ms[name]), most=most, least=least)
