"""Tables of a comparison as Markdown, CSV, LaTeX or for the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from latentwire.errors import UnknownNameError
from latentwire.evaluation.comparison import ComparedRow, Comparison, Contrast

if TYPE_CHECKING:
    from rich.table import Table

NONE = "–"


@dataclass(frozen=True)
class Grid:
    """A table before it has a format: cells are plain text, ``notes`` stand below it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    #: so many columns from the left hold words, the others numbers
    words: int = 1


def chosen_metric(comparison: Comparison, metric: str | None) -> str | None:
    """``metric``, if a row has it. Raises ``UnknownNameError``."""
    known = {row.metric for row in comparison.rows}
    if metric is not None and metric not in known:
        raise UnknownNameError("metric", metric, known)
    return metric


def wide_grid(comparison: Comparison, metric: str | None = None) -> Grid:
    """Methods and controls down, tasks across; each task's headline metric unless ``metric`` names one.

    One seed: value ± half of its 95 % interval. Several: mean (standard deviation).
    """
    rows = [row for row in _of_metric(comparison, metric) if row.subset == "all" and (metric or row.headline)]
    tasks = list(dict.fromkeys(row.task for row in rows))
    cells = {(_name(row), row.task): row for row in rows}
    head = {row.task: row for row in reversed(rows)}
    lines = [("chance", *(_percent(head[task].chance) for task in tasks))]
    for name in dict.fromkeys(name for name, _ in cells):
        lines.append((name, *(_short(cells.get((name, task))) for task in tasks)))
    columns = ("method", *(f"{task} ({head[task].metric})" for task in tasks))
    sizes = "; ".join(f"{task} n = {head[task].n:,}{' (a part of the split)' if head[task].partial else ''}" for task in tasks)
    notes = (
        "One seed, or nothing trained: value ± half of the 95 % interval. Several seeds: mean (standard deviation).",
        sizes,
        *_problem_notes(comparison),
    )
    return Grid("Scores, %", columns, tuple(lines), notes)


def long_grid(comparison: Comparison, metric: str | None = None) -> Grid:
    """Every score with its interval, seeds, paired difference and p values."""
    against = comparison.reference or "reference"
    columns = (
        "task", "subset", "metric", "method", "sender sees", "receiver sees", "n", "score (95 %)", "sd", "seeds",
        f"minus {against} (95 %)", "p", "p (Holm)", "message", "ms",
    )  # fmt: skip
    lines = [_long_line(row) for row in _of_metric(comparison, metric)]
    notes = (
        f"Difference: paired bootstrap (BCa) over the rows that {against} answered too. p: exact McNemar, of several seeds the "
        "median one's; Holm over the methods of a task.",
        *_problem_notes(comparison),
    )
    return Grid("Every score", columns, tuple(lines), notes, words=6)


def _long_line(row: ComparedRow) -> tuple[str, ...]:
    return (
        row.task,
        row.subset,
        row.metric,
        _name(row) + _mark(row),
        row.sender_sees,
        row.receiver_sees,
        f"{row.n:,}",
        f"{_percent(row.mean)} ({_percent(row.low)}–{_percent(row.high)})",
        NONE if row.deviation is None else _percent(row.deviation),
        " ".join(f"{seed}: {_percent(value)}" for seed, value in zip(row.seeds, row.values, strict=False)) or NONE,
        _difference(row.versus),
        _p(row.p),
        _p(row.p_holm),
        f"{row.message_tokens:.0f} tok, {row.message_bytes:,.0f} B" if row.message_bytes else NONE,
        NONE if row.latency_ms_p50 is None else f"{row.latency_ms_p50:.1f}",
    )


def headline_grid(comparison: Comparison, metric: str | None = None) -> Grid:
    """What a bridge's message brought: against another row's message, and against the sender's label as text."""
    lines = [
        (
            line.task,
            line.metric,
            line.method,
            line.against,
            _difference(line.whole),
            NONE if line.whole is None else f"{line.whole.n:,}",
            _difference(line.disagreeing),
            NONE if line.n_disagreeing is None else f"{line.n_disagreeing:,}",
        )
        for line in comparison.headlines
        if metric is None or line.metric == metric
    ]
    columns = ("task", "metric", "method", "minus", "difference (95 %)", "n", "where the two readings differ", "n differing")
    notes = ("The two readings: sender_text and receiver_text. Differences in points, paired bootstrap (BCa).",)
    return Grid("Headlines", columns, tuple(lines), notes, words=4)


GRIDS: dict[str, Callable[[Comparison, str | None], Grid]] = {"wide": wide_grid, "long": long_grid, "headlines": headline_grid}


def _of_metric(comparison: Comparison, metric: str | None) -> list[ComparedRow]:
    return [row for row in comparison.rows if metric is None or row.metric == metric]


def _name(row: ComparedRow) -> str:
    return f"{row.method} · {row.control}" if row.control else row.method


def _mark(row: ComparedRow) -> str:
    return " !" if row.problems else ""


def _problem_notes(comparison: Comparison) -> tuple[str, ...]:
    return tuple(f"! the prediction check found: {problem}" for problem in comparison.problems)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _short(row: ComparedRow | None) -> str:
    if row is None:
        return NONE
    if row.deviation is not None:
        return f"{_percent(row.mean)} ({_percent(row.deviation)}){_mark(row)}"
    return f"{_percent(row.mean)} ± {_percent((row.high - row.low) / 2)}{_mark(row)}"


def _difference(contrast: Contrast | None) -> str:
    if contrast is None:
        return NONE
    difference = f"{100 * contrast.difference:+.1f}"
    if contrast.interval == "constant":  # the same in every row, of which a bootstrap makes no interval
        return difference
    return f"{difference} ({100 * contrast.low:+.1f} to {100 * contrast.high:+.1f})"


def _p(p: float | None) -> str:
    if p is None:
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def to_markdown(grid: Grid) -> str:
    """A GitHub table under its title."""
    aligned = ["---" if index < grid.words else "---:" for index in range(len(grid.columns))]
    lines = [grid.columns, tuple(aligned), *grid.rows]
    body = "\n".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines)
    return "\n\n".join((f"### {grid.title}", body, *grid.notes)) + "\n"


def to_latex(grid: Grid) -> str:
    """A ``tabular`` with booktabs rules, every special character escaped."""
    layout = "".join("l" if index < grid.words else "r" for index in range(len(grid.columns)))

    def line(cells: Iterable[str]) -> str:
        return "  " + " & ".join(escape_latex(cell) for cell in cells) + r" \\"

    return "\n".join(
        (
            f"% {' '.join(grid.title.split())}; needs \\usepackage{{booktabs}}",
            *(f"% {' '.join(note.split())}" for note in grid.notes),
            rf"\begin{{tabular}}{{{layout}}}",
            r"  \toprule",
            line(grid.columns),
            r"  \midrule",
            *(line(row) for row in grid.rows),
            r"  \bottomrule",
            r"\end{tabular}",
            "",
        )
    )


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$", "|": r"$|$",
    "±": r"$\pm$", "·": r"$\cdot$", "–": "--", "→": r"$\to$", "…": r"\ldots{}", "\n": " ",
}  # fmt: skip


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it stands."""
    return "".join(_LATEX.get(character, character) for character in text)


def to_csv(grid: Grid) -> str:
    """The cells as they are; for numbers use ``comparison_csv``."""
    return _csv(grid.columns, grid.rows)


def comparison_csv(comparison: Comparison, metric: str | None = None) -> str:
    """Every score with every key, as plain numbers: one line per task, subset, method, control and metric."""
    plain = [field.name for field in fields(ComparedRow) if field.name != "versus"]
    versus = [field.name for field in fields(Contrast)]
    lines = []
    for row in _of_metric(comparison, metric):
        contrast = ["" if row.versus is None else getattr(row.versus, name) for name in versus]
        lines.append([_plain(getattr(row, name)) for name in plain] + contrast)
    return _csv((*plain, *(f"versus_{name}" for name in versus)), lines)


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return "; ".join(str(item) for item in value)
    return "" if value is None else value


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return file.getvalue()


def to_rich(grid: Grid) -> Table:
    """A table for the terminal."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=grid.title, caption=escape("\n".join(grid.notes)), title_justify="left", caption_justify="left")
    for index, column in enumerate(grid.columns):
        table.add_column(escape(column), justify="left" if index < grid.words else "right", overflow="fold")
    for row in grid.rows:
        table.add_row(*(escape(cell) for cell in row))
    return table
