#!/usr/bin/env python3
"""Benchmark a trained bridge: latency, batches, memory, throughput and training speed, against the bare forward passes."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from latentwire.cli.paper import run_script
from latentwire.experiments.terminal import Parser


def parse() -> argparse.Namespace:
    """The command line. The models come with the checkpoint."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--benchmark",
        nargs="+",
        choices=("latency", "batched", "memory", "throughput", "training", "options", "scale", "all"),
        default=["all"],
        help="what to measure",
    )
    parser.add_argument("--checkpoint", default=None, help="run folder, or the bridge folder in it; without it the sized pair")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="of --benchmark batched")
    parser.add_argument("--dataset", default=None, help="task that gives the rows (default: the run's own)")
    parser.add_argument("--data_dir", default=None, help="folder with <set>/<split>.jsonl[.gz]; without it rows come from the Hub")
    parser.add_argument("--repetitions", type=int, default=30, help="timed repetitions; fewer than 30 are for trying out")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads of torch (default: as torch finds them)")
    parser.add_argument("--compile", action="store_true", help="compile both models' passes, for methods and floor alike")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16", "int8", "int4"),
        default=None,
        help="number format of both models (default: the run's)",
    )
    parser.add_argument("--most_size", type=int, default=None, help="leave larger sizes out of the curves")
    parser.add_argument("--device", default=None, help="cpu, mps, cuda or cuda:N")
    parser.add_argument("--output_dir", default=None, help="folder for bench.json and bench.png (default: the run folder)")
    parser.add_argument("--strict", action="store_true", help="exit with 3 where a ratio misses what is asked of it")
    parser.add_argument("--json", action="store_true", help="print bench.json on stdout")
    return parser.parse_args()


def main(flags: argparse.Namespace) -> None:
    """The benchmarks."""
    from latentwire.benchmarks.bench import BenchRequest
    from latentwire.cli.bench import run_benchmarks
    from latentwire.cli.console import say
    from latentwire.evaluation.run_folder import run_folder_of

    folder = None if flags.checkpoint is None else run_folder_of(Path(flags.checkpoint))
    request = BenchRequest(
        folder or Path(),
        benchmarks=tuple(flags.benchmark),
        batch_sizes=tuple(flags.batch_sizes),
        task=flags.dataset,
        data_dir=flags.data_dir,
        repetitions=flags.repetitions,
        threads=flags.threads,
        compiled=flags.compile,
        dtype=flags.dtype,
        sized=folder is None,
        device=flags.device,
        out=Path(flags.output_dir) if flags.output_dir else None,
        most_size=flags.most_size,
        command=" ".join(["python", "telepathy/run_benchmarks.py", *map(shlex.quote, sys.argv[1:])]),
        say=say,
    )
    run_benchmarks(request, has_folder=folder is not None, strict=flags.strict, as_json=flags.json)


if __name__ == "__main__":
    arguments = parse()
    sys.exit(run_script(lambda: main(arguments)))
