"""Score against the bytes of a message, from result files alone.

Runs whose configs differ in the seed only are one line: each of its points is the mean over the seeds, its error bar the mean of
their 95 % intervals (which are over rows), and small dots are the single seeds.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from latentwire.errors import UnknownNameError, UsageError
from latentwire.evaluation.results import ResultRow, Results
from latentwire.evaluation.run_folder import line_of
from latentwire.files import replacing
from latentwire.report.axes import plain_logarithmic
from latentwire.report.tables import LABELS

#: methods whose message is made of soft tokens
SOFT = ("bridge", "self_bridge", "ridge")
#: palette that survives colour blindness (Okabe & Ito 2008)
COLOURS = ("#D55E00", "#0072B2", "#E69F00", "#CC79A7", "#56B4E9", "#000000")
TEXT_COLOUR, ALONE_COLOUR = "#009E73", "#999999"
MARKERS = {"float32": "s", "bf16": "D", "int8": "o", "int4": "^", "": "*"}
#: the marker of what was sent as the bridge was trained
AS_TRAINED = "as trained"
TEXT_MARKERS = ("P", "X", "d", "v", "<", ">")
#: what a picture may be
SUFFIXES = (".png", ".pdf", ".svg")


@dataclass(frozen=True)
class Point:
    """One method at one size. ``seeds``: the score of each; ``series``: the line it belongs to, empty for text."""

    task: str
    metric: str
    series: str
    method: str
    precision: str
    message_bytes: float
    value: float
    low: float
    high: float
    n: int
    seeds: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def collect_points(runs: Sequence[tuple[str, Results]], *, tasks: Sequence[str] = (), metric: str | None = None) -> list[Point]:
    """Every method without control of these (run name, result file), by task, text first, then each line by size.

    Raises:
        UnknownNameError: no such task or metric. UsageError: nothing in the files sends soft tokens.
    """
    rows = [(name, results, row) for name, results in runs for row in results["rows"] if _counts(row)]
    _check_names("task", tasks, {row["task"] for _, _, row in rows})
    wanted = [item for item in rows if not tasks or item[2]["task"] in tasks]
    _check_names("metric", [metric] if metric else [], {row["metric"] for _, _, row in wanted})
    chosen = [(name, results, row) for name, results, row in wanted if row["metric"] == (metric or _headline(results, row["task"]))]
    if not any(_is_soft(row["method"]) for _, _, row in chosen):
        raise UsageError("none of the runs has a bridge with this task and metric; evaluate one with `latentwire eval RUN`")
    names = _series_names(chosen)
    groups: dict[tuple[str, tuple[str, str], str], list[ResultRow]] = {}
    for _, results, row in chosen:
        groups.setdefault((row["task"], _line(results, row), row["method"]), []).append(row)
    points = [_point(names[line], found) for (_, line, _), found in groups.items()]
    order = {task: place for place, task in enumerate(dict.fromkeys(row["task"] for _, _, row in chosen))}
    return sorted(points, key=lambda point: (order[point.task], point.series, point.message_bytes))


def _counts(row: ResultRow) -> bool:
    return row["control"] is None and row["subset"] == "all"


def _check_names(what: str, given: Sequence[str], known: set[str]) -> None:
    for name in given:
        if name not in known:
            raise UnknownNameError(what, name, known)


def _headline(results: Results, task: str) -> str:
    """The task's first metric."""
    return next(row["metric"] for row in results["rows"] if row["task"] == task)


def _is_soft(method: str) -> bool:
    return re.split("[:+@]", method)[0] in SOFT


def _line(results: Results, row: ResultRow) -> tuple[str, str]:
    """What the points of one line have in common: the method up to its precision, and the config up to its seed."""
    if not _is_soft(row["method"]):
        return "", ""
    return row["method"].partition("@")[0], line_of(results["run"]["config"])


def _series_names(chosen: Sequence[tuple[str, Results, ResultRow]]) -> dict[tuple[str, str], str]:
    """Each line's name: the method; with its runs' name where two have the same; and a number where they share that too."""
    runs: dict[tuple[str, str], str] = {}
    for name, results, row in chosen:
        runs.setdefault(_line(results, row), re.sub(r"-?seed\d+$", "", name) or name)
    methods = Counter(method for method, _ in runs)
    names = {line: line[0] if methods[line[0]] == 1 else f"{line[0]} ({run})" for line, run in runs.items()}
    counted, seen = Counter(names.values()), Counter[str]()
    for line, name in names.items():
        if counted[name] > 1:
            seen[name] += 1
            names[line] = f"{name} {seen[name]}"
    return names


def _point(series: str, rows: Sequence[ResultRow]) -> Point:
    # a run that stands here twice is one, and so is a seed that was evaluated again: what was evaluated on most rows counts
    most = max(row["n"] for row in rows)
    rows = list({row["seed"]: row for row in rows if row["n"] == most}.values())
    head = rows[0]
    values = tuple(row["value"] for row in rows)
    return Point(
        task=head["task"],
        metric=head["metric"],
        series=series,
        method=head["method"],
        precision=head["method"].partition("@")[2],
        message_bytes=statistics.fmean(row["message_bytes"] for row in rows),
        value=statistics.fmean(values),
        low=statistics.fmean(row["ci_low"] for row in rows),
        high=statistics.fmean(row["ci_high"] for row in rows),
        n=head["n"],
        seeds=values,
    )


# ---------------------------------------------------------------------------------------------------------------- picture


def check_picture(path: Path) -> None:
    """Raises ``UsageError`` where the name says no format that can be drawn."""
    if path.suffix not in SUFFIXES:
        raise UsageError(f"cannot draw {str(path)!r}; end the name of the picture with {' or '.join(SUFFIXES)}")


def draw_bytes(points: Sequence[Point], path: Path) -> None:
    """Writes a picture with one panel per task: score in % against bytes on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    check_picture(path)
    tasks = list(dict.fromkeys(point.task for point in points))
    series = list(dict.fromkeys(point.series for point in points if point.series))
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(series)}
    columns = min(3, len(tasks))
    lines = -(-len(tasks) // columns)
    figure, panels = pyplot.subplots(
        lines, columns, figsize=(1.5 + 5.5 * columns, 1.8 + 3.6 * lines), constrained_layout=True, squeeze=False
    )
    for panel in panels.flat[len(tasks) :]:
        panel.set_visible(False)
    for panel, task in zip(panels.flat, tasks, strict=False):
        own = [point for point in points if point.task == task]
        for name in series:
            _draw_line(panel, [point for point in own if point.series == name], colours[name], name)
        _draw_text(panel, [point for point in own if not point.series])
        panel.set_title(f"{task}, n = {own[0].n:,}", loc="left")
        panel.set_xscale("log")
        plain_logarithmic(panel.xaxis)
        panel.set_xlabel("bytes of a message (mean)")
        panel.set_ylabel(f"{own[0].metric}, % (95 % intervals)")
        panel.set_ylim(-3, 103)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", alpha=0.3)
    _legend(figure, panels, 2 * columns, {point.precision for point in points if point.series})
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format=path.suffix[1:])
    pyplot.close(figure)


def _draw_line(panel: Any, points: Sequence[Point], colour: str, name: str) -> None:
    """The points of one bridge, joined from small to large."""
    if not points:
        return
    sizes = [point.message_bytes for point in points]
    panel.plot(sizes, [100 * point.value for point in points], color=colour, linewidth=1, label=name)
    for point in points:
        marker = MARKERS.get(point.precision, MARKERS[""])
        _draw_point(panel, point, marker, colour)
        if len(point.seeds) > 1:
            dots = [100 * value for value in point.seeds]
            panel.plot([point.message_bytes] * len(dots), dots, ".", color=colour, markersize=3, alpha=0.5)


def _draw_text(panel: Any, points: Sequence[Point]) -> None:
    """Baselines: those that send bytes as points, the receiver that gets none as a line."""
    sending = [point for point in points if point.message_bytes > 0]
    for index, point in enumerate(sending):
        marker = TEXT_MARKERS[index % len(TEXT_MARKERS)]
        _draw_point(panel, point, marker, TEXT_COLOUR, label=LABELS.get(point.method, point.method))
    for point in points:
        if point.method == "receiver_only":
            panel.axhline(100 * point.value, color=ALONE_COLOUR, linestyle="--", linewidth=1, label="receiver alone (no message)")


def _draw_point(panel: Any, point: Point, marker: str, colour: str, label: str | None = None) -> None:
    error = [[100 * max(0.0, point.value - point.low)], [100 * max(0.0, point.high - point.value)]]
    size, score = [point.message_bytes], [100 * point.value]
    panel.errorbar(size, score, yerr=error, fmt=marker, color=colour, markersize=7, elinewidth=1, capsize=2, label=label)


def _legend(figure: Any, panels: Any, columns: int, precisions: set[str]) -> None:
    """Lines and text by colour, then the precisions by their marks."""
    from matplotlib.lines import Line2D

    entries: dict[str, Any] = {}
    for panel in panels.flat:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    for precision, marker in MARKERS.items():
        if precision in precisions:
            entries[precision or AS_TRAINED] = Line2D([], [], color="#555555", marker=marker, linestyle="")
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=min(columns, len(entries)), frameon=False)
