"""One run of the benchmarks: loads the pair, measures what is asked for, keeps the file whole after each part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from latentwire.benchmarks.bench_file import BENCH_FILE, SCHEMA_VERSION, Bench, Ratio, RunFacts
from latentwire.benchmarks.latency import LONG_CONTEXT, TEXT_MOST, measure_latency
from latentwire.benchmarks.memory import MemoryRequest, measure_memory
from latentwire.benchmarks.pair import BenchPair, lengthened, load_bench_pair
from latentwire.benchmarks.scale import measure_scale
from latentwire.benchmarks.scoring import WANTED_OPTIONS, measure_options, option_texts
from latentwire.benchmarks.sized import make_sized_pair
from latentwire.benchmarks.throughput import measure_throughput
from latentwire.benchmarks.timing import LEAST_REPETITIONS
from latentwire.benchmarks.training_speed import NANO_LEAST, SIZED_LEAST, measure_training
from latentwire.bridges.base import identity_of
from latentwire.data.task import Example
from latentwire.errors import UnknownNameError, UsageError
from latentwire.files import write_json
from latentwire.models.device import hardware_summary, pick_dtype
from latentwire.provenance import git_state, versions

BENCHMARKS = ("latency", "batched", "memory", "throughput", "training", "options", "scale")
BATCH_SIZES = (1, 2, 4, 8, 16)
#: repetitions of what takes seconds each: enough for a median
_FEW = 12

Watch = Callable[[str, int, int], None]


@dataclass(frozen=True)
class BenchRequest:
    """What to measure. ``sized``: the random pair instead of a run's; it is made in ``folder`` where it is not there yet.

    ``dtype``: the number format of both models, by default the run's. ``repetitions`` fewer than 30 are for trying out only: the
    file says how many there were.
    """

    folder: Path
    benchmarks: Sequence[str] = ("latency",)
    batch_sizes: Sequence[int] = BATCH_SIZES
    task: str | None = None
    data_dir: str | None = None
    repetitions: int = LEAST_REPETITIONS
    threads: int | None = None
    compiled: bool = False
    dtype: str | None = None
    sized: bool = False
    device: str | None = None
    out: Path | None = None
    command: str = ""
    most_size: int | None = None
    say: Callable[[str], None] = lambda line: None

    @property
    def out_folder(self) -> Path:
        return self.out or self.folder


def chosen_benchmarks(names: Sequence[str]) -> list[str]:
    """The benchmarks of these names, ``all`` for every one. Raises ``UnknownNameError``."""
    for name in names:
        if name not in (*BENCHMARKS, "all"):
            raise UnknownNameError("benchmark", name, (*BENCHMARKS, "all"))
    return [name for name in BENCHMARKS if "all" in names or name in names]


def run_bench(request: BenchRequest, *, watch: Watch = lambda what, done, total: None) -> Bench:
    """Measures and writes ``bench.json`` into the output folder.

    Raises:
        UnknownNameError: a benchmark that does not exist. UsageError: numbers that make no sense.
    """
    names = chosen_benchmarks(request.benchmarks)
    if request.repetitions < 1 or min(request.batch_sizes, default=0) < 1:
        raise UsageError("--repetitions and --batch_sizes must be 1 or more, for example --repetitions 30 --batch_sizes 1,16")
    if request.threads is not None and request.threads < 1:
        raise UsageError(f"--threads {request.threads} does not fit; give 1 or more")
    pick_dtype(request.dtype, torch.device("cpu"))  # a name that is none is refused before anything is made
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    if request.sized:
        make_sized_pair(request.folder, say=request.say)
    pair = load_bench_pair(
        request.folder,
        task=request.task,
        data_dir=request.data_dir,
        device=request.device,
        dtype=request.dtype,
        compiled=request.compiled,
    )
    bench = _empty(request, pair, names)
    for name in names:
        request.say(f"measuring: {name}")
        _MEASURED[name](request, pair, bench, watch)
        write_json(request.out_folder / BENCH_FILE, bench)
    return bench


def _empty(request: BenchRequest, pair: BenchPair, names: list[str]) -> Bench:
    parts = pair.parts
    ends = {
        "sender": identity_of(parts.sender.source).model_dump() | {"layer": parts.sender.layer, "dtype": str(parts.sender.dtype)},
        "receiver": identity_of(parts.receiver.source).model_dump() | {"dtype": str(parts.receiver.dtype)},
        "bridge": {**pair.bridge.config.model_dump(), "params": pair.bridge.num_params},
    }
    run = RunFacts(
        command=request.command,
        pair={"name": "sized" if request.sized else "run", **_without_places(ends)},
        task=pair.task.name,
        rows=len(pair.rows),
        data_revision=pair.data_revision,
        benchmarks=names,
        repetitions=request.repetitions,
        threads=torch.get_num_threads(),
        compiled=request.compiled,
        hardware=hardware_summary(pair.device),
        versions=versions(),
        git=git_state(),
    )
    return Bench(
        schema_version=SCHEMA_VERSION,
        run=run,
        ratios=[],
        latency=[],
        options=[],
        throughput=[],
        training=[],
        memory=[],
        scale=[],
    )


def _without_places(ends: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    """A model in a folder is known by its fingerprint; where the folder lies is nobody else's business."""
    for end in ("sender", "receiver"):
        ends[end]["name"] = Path(str(ends[end]["name"])).name
    ends["bridge"].pop("init", None)
    return ends


def _told(watch: Watch, what: str) -> Callable[[int, int], None]:
    return lambda done, total: watch(what, done, total)


def _add(bench: Bench, ratios: list[Ratio]) -> None:
    bench["ratios"] += ratios


def _latency(request: BenchRequest, pair: BenchPair, bench: Bench, watch: Watch) -> None:
    cases: list[tuple[str, tuple[Example, ...] | None, float | None]] = [("batch 1", None, None)]
    if min(pair.parts.receiver.max_tokens, pair.parts.sender.max_tokens) > 2 * LONG_CONTEXT + pair.answer_tokens:
        most = None if request.sized else TEXT_MOST
        cases.append((f"batch 1, text of {LONG_CONTEXT} tokens", lengthened(pair, receiver_tokens=LONG_CONTEXT), most))
    for case, rows, text_most in cases:
        found, ratios = measure_latency(
            pair,
            case=case,
            batch_size=1,
            repetitions=request.repetitions,
            rows=rows,
            text_most=text_most,
            advance=_told(watch, case),
        )
        bench["latency"].append(found)
        _add(bench, ratios)


def _batched(request: BenchRequest, pair: BenchPair, bench: Bench, watch: Watch) -> None:
    for size in request.batch_sizes:
        found, ratios = measure_latency(
            pair,
            case=f"batch {size}",
            batch_size=size,
            repetitions=request.repetitions,
            methods=("bridge", "receiver_text"),
            benchmark="batched",
            advance=_told(watch, f"batch {size}"),
        )
        bench["latency"].append(found)
        _add(bench, ratios)


def _memory(request: BenchRequest, pair: BenchPair, bench: Bench, watch: Watch) -> None:
    asked = MemoryRequest(
        request.folder,
        task=request.task,
        data_dir=request.data_dir,
        device=request.device,
        dtype=request.dtype,
        threads=torch.get_num_threads(),
        asked=request.sized,
    )
    found, ratios = measure_memory(asked)
    bench["memory"].append(found)
    _add(bench, ratios)
    watch("memory", 1, 1)


def _throughput(request: BenchRequest, pair: BenchPair, bench: Bench, watch: Watch) -> None:
    found, ratios = measure_throughput(pair, repetitions=min(request.repetitions, _FEW), advance=_told(watch, "throughput"))
    bench["throughput"].append(found)
    _add(bench, ratios)


def _training(request: BenchRequest, pair: BenchPair, bench: Bench, watch: Watch) -> None:
    found, ratios = measure_training(
        pair,
        repetitions=request.repetitions,
        least=SIZED_LEAST if request.sized else NANO_LEAST,
        advance=_told(watch, "training"),
    )
    bench["training"].append(found)
    _add(bench, ratios)


def _options(request: BenchRequest, pair: BenchPair, bench: Bench, watch: Watch) -> None:
    for count in WANTED_OPTIONS:
        found, ratios = measure_options(
            pair,
            option_texts(pair, count),
            repetitions=request.repetitions,
            advance=_told(watch, f"{count} options"),
        )
        bench["options"].append(found)
        _add(bench, ratios)


def _scale(request: BenchRequest, pair: BenchPair, bench: Bench, watch: Watch) -> None:
    bench["scale"] = measure_scale(
        pair,
        repetitions=request.repetitions,
        most_size=request.most_size,
        advance=_told(watch, "curves"),
    )


_MEASURED: dict[str, Callable[[BenchRequest, BenchPair, Bench, Watch], None]] = {
    "latency": _latency,
    "batched": _batched,
    "memory": _memory,
    "throughput": _throughput,
    "training": _training,
    "options": _options,
    "scale": _scale,
}
