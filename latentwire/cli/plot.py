"""``latentwire plot``: pictures from result files, without a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from latentwire.cli.console import emit_json, say

if TYPE_CHECKING:
    from rich.table import Table

    from latentwire.evaluation.results import Results
    from latentwire.report.bytes_figure import Point

app = typer.Typer(help="Draw pictures from result files.", no_args_is_help=True)

RUNS = typer.Argument(help="Run folders with a results.json, or such files.", show_default=False)
OUT = typer.Option(Path("bytes.png"), "--out", help="The picture: .png, .pdf or .svg.")
TASK = typer.Option(None, "--task", help="Only this task. Repeatable.")
METRIC = typer.Option(None, "--metric", help="Only this metric; default: each task's first.")
JSON = typer.Option(False, "--json", help="Print the points as JSON on stdout.")


@app.callback()
def plot() -> None:
    """Draw pictures from result files."""


@app.command("bytes")
def bytes_(
    runs: list[Path] = RUNS,
    out: Path = OUT,
    task: list[str] | None = TASK,
    metric: str | None = METRIC,
    as_json: bool = JSON,
) -> None:
    """Score against the bytes of a message: bridges at several precisions and runs, beside text."""
    from latentwire.report.bytes_figure import check_picture, collect_points, draw_bytes

    check_picture(out)
    read = list({path.resolve(): _named_results(path) for path in runs}.values())
    points = collect_points(read, tasks=task or (), metric=metric)
    draw_bytes(points, out)
    say(f"picture in {out}")
    if as_json:
        emit_json([point.as_dict() for point in points])
        return
    from latentwire.report.tables import print_tables

    print_tables([_table(points)])


def _named_results(path: Path) -> tuple[str, Results]:
    """A run's name and its result file. Raises ``ArtefactError`` where there is none."""
    from latentwire.errors import ArtefactError
    from latentwire.evaluation.results import read_results
    from latentwire.evaluation.run import RESULTS_FILE

    file = path / RESULTS_FILE if path.is_dir() else path
    if not file.is_file():
        raise ArtefactError(f"{str(file)!r} does not exist; write it with `latentwire eval {path if path.is_dir() else 'RUN'}`")
    return file.resolve().parent.name, read_results(file)


def _table(points: list[Point]) -> Table:
    from rich.table import Table

    from latentwire.report.tables import LABELS

    table = Table(title="Score against bytes", title_justify="left")
    for column in ("task", "method", "bytes", "score (95 % interval)", "seeds"):
        table.add_column(column, justify="left" if column in ("task", "method") else "right")
    for point in points:
        name = f"{point.series}@{point.precision}" if point.precision else point.series or LABELS.get(point.method, point.method)
        score = f"{point.value:.1%} ({100 * point.low:.1f}–{100 * point.high:.1f})"
        table.add_row(point.task, name, f"{point.message_bytes:,.0f}", score, str(len(point.seeds)) if point.series else "")
    return table
