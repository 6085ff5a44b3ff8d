"""``latentwire nano``: train and examine the embedded models."""

from __future__ import annotations

from pathlib import Path

import typer

from latentwire.cli.console import JSON, emit_json, say, stop_on_signals

app = typer.Typer(help="Train and examine the embedded models.", no_args_is_help=True)
MODEL = typer.Argument(help="nano-llama or nano-mistral.", show_default=False)
TEXT_DIR = typer.Option(..., "--text_dir", help="Folder of plain-text files (*.txt, searched in depth).")
OUT = typer.Option(None, "--out", help="Run folder; default: runs/nano/MODEL.")
SEED = typer.Option(0, "--seed", help="Seed of the weights and of the order of the lessons.")
RESUME = typer.Option(False, "--resume", help="Go on from the last checkpoint.")
THREADS = typer.Option(1, "--threads", help="CPU threads; one each lets two models train side by side.")
COMPILE = typer.Option(False, "--compile", help="Compile the model: half as fast again; needs a C++ compiler.")
VERSION = typer.Option(
    None, "--embed_as", help="After training, also install it in the package under this name, for example nano-llama@2."
)
NAME = typer.Argument(help="Embedded name, folder or Hub id.", show_default=False)
ROWS = typer.Option(1000, "--rows", min=1, help="Test rows per exam.")


@app.command()
def train(
    model: str = MODEL,
    text_dir: Path = TEXT_DIR,
    out: Path | None = OUT,
    seed: int = SEED,
    resume: bool = RESUME,
    threads: int = THREADS,
    compiled: bool = COMPILE,
    embed_as: str | None = VERSION,
) -> None:
    """Pretrain an embedded model on plain text and the tiny world."""
    from dataclasses import replace

    import torch

    from latentwire.errors import StoppedEarlyError, UnknownNameError
    from latentwire.models.source import EMBEDDED_FOLDER
    from latentwire.training.nano.export import check_export, export_model
    from latentwire.training.nano.pretrain import Pretrainer
    from latentwire.training.nano.recipe import RECIPES
    from latentwire.training.nano.stream import PlainText

    if model not in RECIPES:
        raise UnknownNameError("embedded model", model, RECIPES)
    torch.set_num_threads(threads)
    recipe = replace(RECIPES[model], seed=seed)
    folder = out or Path("runs/nano") / model
    name = embed_as or f"{model}@0"
    target = EMBEDDED_FOLDER / name if embed_as else folder / name
    check_export(model, target, name=name)
    trainer = Pretrainer(recipe, PlainText(text_dir), folder, resume=resume, compiled=compiled)
    with stop_on_signals() as stop:
        finished = trainer.run(report=say, should_stop=stop)
    if not finished:
        raise StoppedEarlyError(f"stopped at step {trainer.step} (phase {trainer.phase.name}), all saved; go on with --resume")
    figures = export_model(trainer, target, name=name)
    say(f"{name}: {figures['exact_match_test']}")
    print(target)


@app.command()
def examine(name: str = NAME, rows: int = ROWS, as_json: bool = JSON) -> None:
    """How well a model reads the tiny world as text: exact match on test rows."""
    from latentwire.models.receiver import load_receiver
    from latentwire.training.nano.exams import examine as run_exams

    receiver = load_receiver(name, device="cpu", dtype="float32")
    scores = run_exams(receiver.model, receiver.tokenizer, split="test", n=rows)
    if as_json:
        emit_json(scores)
        return
    for exam, score in scores.items():
        print(f"{exam:<18} {score:.1%}")
