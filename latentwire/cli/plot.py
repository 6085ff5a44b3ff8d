"""``latentwire plot``: pictures from result files and logs, without a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from latentwire.cli.console import emit_json, say

if TYPE_CHECKING:
    from rich.table import Table

    from latentwire.evaluation.results import Results
    from latentwire.report.bytes_figure import Point
    from latentwire.report.curve_figure import Curve

app = typer.Typer(help="Draw pictures from result files and logs.", no_args_is_help=True)

RUNS = typer.Argument(help="Run folders with a results.json, or such files.", show_default=False)
OUT = typer.Option(Path("bytes.png"), "--out", help="The picture: .png, .pdf or .svg.")
TASK = typer.Option(None, "--task", help="Only this task. Repeatable.")
METRIC = typer.Option(None, "--metric", help="Only this metric; default: each task's first.")
JSON = typer.Option(False, "--json", help="Print the points as JSON on stdout.")
TRAINED = typer.Argument(help="Run folders that `latentwire train` wrote, all of the same tasks.", show_default=False)
CURVE_OUT = typer.Option(Path("curve.png"), "--out", help="The picture: .png, .pdf or .svg.")
SCORE = typer.Option(None, "--score", min=0, max=1, help="The score (0 to 1) to be reached; default: the best of the first run.")


@app.callback()
def plot() -> None:
    """Draw pictures from result files and logs."""


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


@app.command("curve")
def curve(
    runs: list[Path] = TRAINED,
    out: Path = CURVE_OUT,
    score: float | None = SCORE,
    as_json: bool = JSON,
) -> None:
    """Validation score against training steps, and the step at which each run reaches a score."""
    from latentwire.report.bytes_figure import check_picture
    from latentwire.report.curve_figure import draw_curves, read_curves

    check_picture(out)
    curves = read_curves(runs)
    wanted = curves[0].best if score is None else score
    draw_curves(curves, out, score=wanted)
    say(f"picture in {out}")
    if as_json:
        emit_json([found.as_dict() | {"score": wanted, "reached_at_step": found.reaches(wanted)} for found in curves])
        return
    from latentwire.report.tables import print_tables

    print_tables([_steps_table(curves, wanted)])


def _steps_table(curves: list[Curve], score: float) -> Table:
    from rich.table import Table

    table = Table(title=", ".join(curves[0].tasks), title_justify="left")
    for column in ("run", "seeds", "steps", "best validation", f"reaches {score:.1%} at step"):
        table.add_column(column, justify="left" if column == "run" else "right")
    for found in curves:
        reached = found.reaches(score)
        table.add_row(
            found.name,
            str(len(found.seeds)),
            str(found.steps[-1]),
            f"{found.best:.1%}",
            "never" if reached is None else str(reached),
        )
    return table


def _named_results(path: Path) -> tuple[str, Results]:
    """A run's name and its result file. Raises ``ArtefactError`` where there is none."""
    from latentwire.config import RESULTS_FILE
    from latentwire.errors import ArtefactError
    from latentwire.evaluation.results import read_results

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
