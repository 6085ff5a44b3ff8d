"""``latentwire recall``: what a bridge's message keeps of real text."""

from __future__ import annotations

from pathlib import Path

import typer

from latentwire.cli.console import DEVICE, emit_json, listed, say, watching
from latentwire.errors import UsageError

RUNS = typer.Argument(help="Run folders with trained bridges, for example runs/demo; several give one figure.", show_default=False)
TEXTS = typer.Option(
    None, "--texts", help="Tasks (what their sender reads), text files or folders, with commas between; default: those of the run."
)
ROWS = typer.Option(200, "--rows", help="Texts of each source.")
MOST_TOKENS = typer.Option(64, "--most_tokens", help="Sender tokens of a text at most.")
SPLIT = typer.Option("test", "--split", help="Of tasks: train, validation or test. Of plain text the held-out end is read.")
DATA_DIR = typer.Option(None, "--data_dir", help="Folder with <set>/<split>.jsonl[.gz]; default: that of the training run.")
SEED = typer.Option(0, "--seed", help="Which excerpts of plain text are drawn.")
BATCH_SIZE = typer.Option(64, "--batch_size", help="Texts at once; changes speed and memory, not results.")
OUT = typer.Option(None, "--out", help="Folder for recall.json and recall.png; default: the run folder (of several: the first).")
JSON = typer.Option(False, "--json", help="Print the measurements as JSON on stdout.")


def recall(
    runs: list[Path] = RUNS,
    texts: str | None = TEXTS,
    rows: int = ROWS,
    most_tokens: int = MOST_TOKENS,
    split: str = SPLIT,
    data_dir: str | None = DATA_DIR,
    seed: int = SEED,
    batch_size: int = BATCH_SIZE,
    device: str | None = DEVICE,
    out: Path | None = OUT,
    as_json: bool = JSON,
) -> None:
    """Measure what a message keeps of real text: the receiver writes it again; loss, numbers and entities, against the rate."""
    from latentwire.analysis.recall import RecallRequest, measure_recall
    from latentwire.analysis.recall_file import FIGURE_FILE, RECALL_FILE
    from latentwire.report.recall import draw_recall, recall_table
    from latentwire.report.tables import print_tables

    if out is not None and len(runs) > 1:
        raise UsageError(f"--out {str(out)!r} would take the files of {len(runs)} runs; leave it out, or measure them one by one")
    sources = tuple(listed(texts, "--texts"))
    measured = []
    for run in runs:
        request = RecallRequest(
            run, texts=sources, rows=rows, most_tokens=most_tokens, split=split, data_dir=data_dir, seed=seed, device=device,
            batch_size=batch_size, out=out,
        )  # fmt: skip
        with watching() as watch:
            measured.append(measure_recall(request, watch=watch))
        say(f"written: {request.folder / RECALL_FILE}")
    figure = (out or runs[0]) / FIGURE_FILE
    draw_recall(measured, figure)
    if as_json:
        emit_json(measured[0] if len(measured) == 1 else measured)
    else:
        print_tables([recall_table(one) for one in measured])
    say(f"figure: {figure}")
