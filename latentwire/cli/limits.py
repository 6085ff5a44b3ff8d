"""``latentwire limits``: what was measured to work, at which rate; the data that preflight reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from latentwire.cli.console import JSON, emit_json, say


class _Listing(TyperGroup):
    """``latentwire limits`` alone, or with an option, is ``latentwire limits list``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        listing = not args or (args[0].startswith("-") and args[0] != "--help")
        return list(super().parse_args(ctx, ["list", *args] if listing else args))


app = typer.Typer(help="What worked at which rate (also without a command); add measured runs, write the page.", cls=_Listing)

FILE = typer.Option(None, "--file", help="The data file; default: the one in the package.", show_default=False)
RUNS = typer.Argument(help="Run folders with results.json, or result files.", show_default=False)
COMMAND = typer.Option(None, "--command", help="What makes the numbers again; default: latentwire eval RUN.", show_default=False)
OUT = typer.Option(Path("docs/limits.md"), "--out", help="Where the page goes.")


@app.command("list")
def list_limits(file: Path | None = FILE, as_json: bool = JSON) -> None:
    """Every measured case with its verdict."""
    from latentwire.analysis.limits import read_limits

    entries = read_limits(file, missing_is_empty=file is None)
    if as_json:
        emit_json([entry.as_dict() for entry in entries])
    elif not entries:
        say("nothing is measured yet; add an evaluated run with `latentwire limits add RUN`")
    else:
        from latentwire.report.tables import print_tables

        print_tables([_table(entries)])
        if any(entry.reader_is_weak for entry in entries):
            print("* the receiver itself is not halfway from chance to 100 % when it reads the text")


@app.command("add")
def add(runs: list[Path] = RUNS, command: str | None = COMMAND, file: Path | None = FILE) -> None:
    """Take up evaluated runs: every task with both a bridge and the receiver reading the text. Seeds join their entry."""
    from latentwire.analysis.limits import entries_of, merged, read_limits, write_limits

    # all are read before anything is written
    found = [entries_of(run, command=command) for run in runs]
    new = [entry for entries, _ in found for entry in entries]
    before = read_limits(file)
    write_limits(merged(before, new), file)
    for entry in new:
        say(f"{entry.task}, {entry.bridge}, {entry.rate}: {entry.verdict}, {entry.shown_relative} of the receiver reading the text")
    for task, problem in (item for _, left_out in found for item in left_out.items()):
        say(f"{task}: left out, the prediction check found: {problem}")
    say("next: latentwire limits page")


@app.command("page")
def page(out: Path = OUT, file: Path | None = FILE) -> None:
    """Write docs/limits.md from the data."""
    from latentwire.analysis.limits import limits_page, read_limits
    from latentwire.files import write_text

    write_text(out, limits_page(read_limits(file, missing_is_empty=file is None)))
    say(f"page in {out}")


def _table(entries: list[Any]) -> Any:
    from rich.table import Table

    table = Table(title="Measured, context-unaware; relative: to the receiver reading the text", title_justify="left")
    for column in ("verdict", "kind", "task", "bridge", "message", "score, % (95 %)", "reads the text", "relative", "n", "seeds"):
        table.add_column(column, justify="left" if column in ("verdict", "kind", "task", "bridge") else "right")
    for entry in entries:
        low, high = entry.interval
        table.add_row(
            f"{entry.verdict}{' *' if entry.reader_is_weak else ''}",
            entry.kind,
            entry.task,
            f"{entry.bridge}, {entry.rate}",
            f"{entry.message_tokens:.0f} tok, {entry.message_bytes:,.0f} B",
            f"{100 * entry.score:.1f} ({100 * low:.1f}–{100 * high:.1f})",
            f"{100 * entry.text_score:.1f}",
            entry.shown_relative,
            f"{entry.n:,}",
            str(len(entry.seeds)),
        )
    return table
