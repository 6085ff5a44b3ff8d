"""``latentwire table``: any table again from stored predictions, without a model."""

from __future__ import annotations

from pathlib import Path

import typer

from latentwire.cli.console import emit_json
from latentwire.errors import UnknownNameError, UsageError

FORMATS = ("rich", "md", "csv", "latex")

RUNS = typer.Argument(help="Run folders, or folders with several runs.", show_default=False)
FORMAT = typer.Option("rich", "--format", help="rich (terminal), md, csv or latex.")
TABLE = typer.Option(
    None, "--table", help="wide (methods × tasks), long (everything) or headlines. Repeatable; default: all, as CSV: long."
)
METRIC = typer.Option(None, "--metric", help="Only this metric; default: each task's first, in the long table all.")
REFERENCE = typer.Option(
    None, "--reference", help="The method all others are compared with; default: receiver_text where there is one."
)
TASK = typer.Option(None, "--task", help="Only this task. Repeatable.")
JSON = typer.Option(False, "--json", help="Print the whole comparison as JSON.")


def table(
    runs: list[Path] = RUNS,
    form: str = FORMAT,
    which: list[str] | None = TABLE,
    metric: str | None = METRIC,
    reference: str | None = REFERENCE,
    task: list[str] | None = TASK,
    as_json: bool = JSON,
) -> None:
    """Make any table again from stored predictions."""
    from latentwire.evaluation.comparison import compare
    from latentwire.evaluation.predictions import find_predictions
    from latentwire.report.export import GRIDS, chosen_metric, comparison_csv, to_csv, to_latex, to_markdown, to_rich
    from latentwire.report.tables import print_tables

    if form not in FORMATS:
        raise UnknownNameError("format", form, FORMATS)
    names = which or (["long"] if form == "csv" else list(GRIDS))
    for name in names:
        if name not in GRIDS:
            raise UnknownNameError("table", name, GRIDS)
    if form == "csv" and len(names) > 1:
        raise UsageError("a CSV holds one table; give --table once")
    files = list(dict.fromkeys(path for run in runs for path in find_predictions(run)))
    comparison = compare(files, reference, tasks=task or ())
    chosen = chosen_metric(comparison, metric)
    if as_json:
        emit_json(comparison.as_json())
    elif form == "csv" and names == ["long"]:
        print(comparison_csv(comparison, chosen), end="")
    elif form == "rich":
        print_tables(to_rich(GRIDS[name](comparison, chosen)) for name in names)
    else:
        render = {"md": to_markdown, "csv": to_csv, "latex": to_latex}[form]
        print("\n".join(render(GRIDS[name](comparison, chosen)) for name in names), end="")
