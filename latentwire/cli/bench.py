"""``latentwire bench``: latency, throughput, training speed, memory and scaling of a trained bridge, against the bare passes."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from latentwire.cli.console import DEVICE, emit_json, numbers, say, watching
from latentwire.errors import CheckFailedError, UsageError

if TYPE_CHECKING:
    from latentwire.benchmarks.bench import BenchRequest

RUN = typer.Argument(
    None, help="Run folder with a trained bridge; with --sized where the random pair is made (default: a temporary folder)."
)
BENCHMARK = typer.Option(
    ["latency"], "--benchmark", help="latency, batched, memory, throughput, training, options, scale or all; repeatable."
)
BATCH_SIZES = typer.Option("1,2,4,8,16", "--batch_sizes", help="Of --benchmark batched.")
TASK = typer.Option(None, "--task", help="Task that gives the rows; default: the run's own.")
DATA_DIR = typer.Option(None, "--data_dir", help="Folder with <set>/<split>.jsonl[.gz].")
REPETITIONS = typer.Option(30, "--repetitions", help="Timed repetitions; fewer than 30 are for trying out.")
THREADS = typer.Option(None, "--threads", help="CPU threads of torch; default: as torch finds them.")
COMPILE = typer.Option(False, "--compile", help="Compile both models' passes, for the methods and the floor alike.")
DTYPE = typer.Option(None, "--dtype", help="float32, bfloat16, float16, int8 or int4, for both models; default: the run's.")
SIZED = typer.Option(False, "--sized", help="A random 100 M + 60 M pair, made on the spot.")
MOST_SIZE = typer.Option(None, "--most_size", help="Leave larger sizes out of the curves.")
OUT = typer.Option(None, "--out", help="Folder for bench.json and bench.png; default: the run folder.")
STRICT = typer.Option(False, "--strict", help="Exit with 3 where a ratio misses what is asked of it.")
JSON = typer.Option(False, "--json", help="Print bench.json on stdout.")


def bench(
    run: Path | None = RUN,
    benchmark: list[str] = BENCHMARK,
    batch_sizes: str = BATCH_SIZES,
    task: str | None = TASK,
    data_dir: str | None = DATA_DIR,
    repetitions: int = REPETITIONS,
    threads: int | None = THREADS,
    compiled: bool = COMPILE,
    dtype: str | None = DTYPE,
    sized: bool = SIZED,
    most_size: int | None = MOST_SIZE,
    device: str | None = DEVICE,
    out: Path | None = OUT,
    strict: bool = STRICT,
    as_json: bool = JSON,
) -> None:
    """Measure speed and memory against the bare forward passes: interleaved, paired ratios, medians with spread."""
    from latentwire.benchmarks.bench import BenchRequest

    request = BenchRequest(
        run or Path(),
        benchmarks=tuple(benchmark),
        batch_sizes=numbers("--batch_sizes", batch_sizes),
        task=task,
        data_dir=data_dir,
        repetitions=repetitions,
        threads=threads,
        compiled=compiled,
        dtype=dtype,
        sized=sized,
        device=device,
        out=out,
        most_size=most_size,
        command=" ".join(["latentwire", *map(shlex.quote, sys.argv[1:])]),
        say=say,
    )
    run_benchmarks(request, has_folder=run is not None, strict=strict, as_json=as_json)


def run_benchmarks(request: BenchRequest, *, has_folder: bool, strict: bool, as_json: bool) -> None:
    """Measures, draws and prints.

    Raises:
        UsageError: neither a folder nor ``sized``. CheckFailedError: ``strict``, and a ratio misses its bound.
    """
    from dataclasses import replace
    from tempfile import TemporaryDirectory

    if has_folder:
        return _measured(request, strict=strict, as_json=as_json)
    if not request.sized:
        raise UsageError("give a run folder with a trained bridge, for example `latentwire bench runs/demo`, or --sized")
    with TemporaryDirectory(prefix="latentwire-sized-") as folder:
        made = replace(request, folder=Path(folder), out=request.out or Path("runs/bench-sized"))
        return _measured(made, strict=strict, as_json=as_json)


def _measured(request: BenchRequest, *, strict: bool, as_json: bool) -> None:
    from latentwire.benchmarks.bench import run_bench
    from latentwire.benchmarks.bench_file import BENCH_FILE, FIGURE_FILE
    from latentwire.report.bench import bench_tables, draw_bench, missed
    from latentwire.report.tables import print_tables

    with watching() as watch:
        found = run_bench(request, watch=watch)
    draw_bench(found, request.out_folder / FIGURE_FILE)
    if as_json:
        emit_json(found)
    else:
        print_tables(bench_tables(found))
    say(f"written: {request.out_folder / BENCH_FILE} and {FIGURE_FILE} beside it")
    if strict and (lines := missed(found)):
        raise CheckFailedError(f"{len(lines)} of the ratios miss what is asked of them: {'; '.join(lines)}")
