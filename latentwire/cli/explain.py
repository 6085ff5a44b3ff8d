"""``latentwire explain``: what each soft token of one message says."""

from __future__ import annotations

from pathlib import Path

import typer

from latentwire.cli.console import DEVICE, emit_json, say

RUN = typer.Argument(help="Run folder, for example runs/demo.", show_default=False)
ROW = typer.Option("0", "--row", help="Which row, counted from 0 as `latentwire tasks show` does, or its id.")
TASK = typer.Option(None, "--task", help="Task name or YAML path; default: the one it was trained on.")
SPLIT = typer.Option("test", "--split", help="train, validation or test.")
DATA_DIR = typer.Option(None, "--data_dir", help="Folder with <set>/<split>.jsonl[.gz]; default: that of the training run.")
OUT = typer.Option(None, "--out", help="Also write a page (.html) or the figure alone (.png, .svg, .pdf).")
JSON = typer.Option(False, "--json", help="Print everything as JSON on stdout.")


def explain(
    run: Path = RUN,
    row: str = ROW,
    task: str | None = TASK,
    split: str = SPLIT,
    data_dir: str | None = DATA_DIR,
    out: Path | None = OUT,
    device: str | None = DEVICE,
    as_json: bool = JSON,
) -> None:
    """Explain one message: for each soft token the nearest words, where it came from, attention on it, effect of removing it."""
    from latentwire.analysis.explain import explain_run
    from latentwire.report.explanation import check_ending, foot_lines, head_lines, story_table, write_explanation
    from latentwire.report.tables import print_tables

    if out is not None:
        check_ending(out)
    found = explain_run(run, row, task=task, split=split, data_dir=data_dir, device=device)
    if as_json:
        emit_json(found.as_dict())
    else:
        print("\n".join(head_lines(found)))
        print_tables([story_table(found)])
        print("\n".join(foot_lines(found)))
    if out is not None:
        write_explanation(found, out)
        say(f"{'page' if out.suffix == '.html' else 'figure'} in {out}")
