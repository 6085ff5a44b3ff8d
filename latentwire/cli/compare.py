"""``latentwire compare``: every method on every task, one table, paired statistics; resumable."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from latentwire.cli.console import DEVICE, SEEDS, emit_json, listed, parse_seeds, progress, say, stop_on_signals
from latentwire.cli.evaluate import check_results
from latentwire.errors import UnknownNameError

if TYPE_CHECKING:
    from latentwire.config import RunConfig
    from latentwire.methods.settings import MethodSettings

CONFIG = typer.Argument(help="Run config: pair, bridge, training settings and data budget for all methods.", show_default=False)
TASKS = typer.Option(None, "--tasks", help="Task names or YAML paths, comma-separated; default: those of the config.")
METHODS = typer.Option("all", "--methods", help="Method names, comma-separated, or all; module:Class for your own.")
SET = typer.Option(None, "--set", help="Override a setting of the config: key.path=value. Repeatable.")
METHOD_SET = typer.Option(None, "--method_set", help="Override a setting of the baselines: shots=3, rank=16. Repeatable.")
OUT = typer.Option(None, "--out", help="Folder; default: runs/compare-CONFIG. The same command goes on where it stopped.")
MAX_SAMPLES = typer.Option(None, "--max_samples", help="Read only so many test rows; the result says so.")
REFERENCE = typer.Option(None, "--reference", help="Method that all others are paired with; default: receiver_text, if it runs.")
WORKERS = typer.Option(1, "--workers", min=1, help="Processes that share the work; the CPU threads are divided among them.")
JSON = typer.Option(False, "--json", help="Print the comparison as JSON on stdout.")


def compare(
    config: Path = CONFIG,
    tasks: str | None = TASKS,
    methods: str = METHODS,
    seeds: str | None = SEEDS,
    overrides: list[str] | None = SET,
    method_overrides: list[str] | None = METHOD_SET,
    out: Path | None = OUT,
    max_samples: int | None = MAX_SAMPLES,
    reference: str | None = REFERENCE,
    workers: int = WORKERS,
    device: str | None = DEVICE,
    as_json: bool = JSON,
) -> None:
    """Run methods on tasks under one budget and print scores, paired differences and the two headlines."""
    from latentwire.config import load_config
    from latentwire.methods.settings import method_settings

    run_config = load_config(config, overrides or [])
    run_comparison(
        run_config,
        tasks=listed(tasks, "--tasks") or list(run_config.task),
        methods=listed(methods, "--methods"),
        seeds=parse_seeds(seeds) or [run_config.seed],
        folder=out or Path("runs") / f"compare-{config.stem}",
        settings=method_settings(method_overrides or []),
        max_rows=max_samples,
        reference=reference,
        device=device,
        as_json=as_json,
        workers=workers,
    )


def run_comparison(
    config: RunConfig,
    *,
    tasks: Sequence[str],
    methods: Sequence[str],
    seeds: Sequence[int],
    folder: Path,
    settings: MethodSettings,
    max_rows: int | None,
    reference: str | None,
    device: str | None,
    as_json: bool,
    workers: int = 1,
) -> None:
    """Runs the suite with progress on stderr and prints the comparison of what it stored."""
    from latentwire.evaluation.comparison import compare as compared
    from latentwire.evaluation.predictions import find_predictions
    from latentwire.evaluation.suite import SuiteRequest
    from latentwire.evaluation.workers import run_suite_in
    from latentwire.methods import METHODS as TABLE
    from latentwire.report.export import GRIDS, chosen_metric, to_rich
    from latentwire.report.tables import print_tables

    chosen = list(TABLE) if list(methods) == ["all"] else list(methods)
    _check_reference(reference, chosen, folder)
    with stop_on_signals() as stop, progress(0, f"compare {folder}") as bar:
        results = run_suite_in(
            workers,
            SuiteRequest(
                config,
                tasks=tasks,
                methods=chosen,
                seeds=seeds,
                folder=folder,
                max_rows=max_rows,
                device=device,
                settings=settings,
                advance=lambda what, rows: bar.add(rows, what),
                say=say,
                should_stop=stop,
            ),
        )
    say(f"predictions and results in {folder}; print them again with `latentwire table {folder}`")
    comparison = compared(find_predictions(folder), reference)
    if as_json:
        emit_json(comparison.as_json())
    else:
        metric = chosen_metric(comparison, None)
        print_tables(to_rich(make(comparison, metric)) for make in GRIDS.values())
    check_results(results)


def _check_reference(reference: str | None, methods: Sequence[str], folder: Path) -> None:
    """Raises ``UnknownNameError`` for a reference that none of the methods is, before any work, as long as nothing is stored."""
    own = any(":" in method for method in methods)  # a class of one's own says itself what it is called
    if reference is None or own or any(folder.rglob("*.jsonl")):
        return
    if reference not in methods and re.split("[:+]", reference)[0] not in methods:
        raise UnknownNameError("reference method", reference, methods)
