"""``latentwire capacity``: how many bits a trained bridge's message carries."""

from __future__ import annotations

from pathlib import Path

import typer

from latentwire.cli.console import DEVICE, emit_json, numbers, say, watching

RUN = typer.Argument(help="Run folder with a trained bridge, for example runs/demo.", show_default=False)
LENGTHS = typer.Option("1,2,4,8,16,24,32", "--lengths", help="Symbols in a code.")
CODES = typer.Option(200, "--codes", help="Codes of each length.")
ALPHABET = typer.Option("tinyworld", "--alphabet", help="tinyworld, digits, letters, or a file with one word per line.")
CEILING = typer.Option(True, "--ceiling/--no-ceiling", help="Also optimise soft tokens directly, without sender and bridge.")
CEILING_TOKENS = typer.Option("1,2,4,8", "--ceiling_tokens", help="Soft tokens of the ceiling.")
CEILING_CODES = typer.Option(16, "--ceiling_codes", help="Codes of each length for the ceiling.")
CEILING_STEPS = typer.Option(500, "--ceiling_steps", help="Steps for a code at most.")
CEILING_LR = typer.Option(0.3, "--ceiling_lr", help="Adam's rate, in units of the scale of the receiver's embeddings.")
CEILING_NORM = typer.Option("free", "--ceiling_norm", help="free, or kept: every vector at the scale of the bridge's soft tokens.")
CEILING_FILE = typer.Option(
    None, "--ceiling_file", help="Where finished parts of the ceiling are kept; runs with the same receiver can share it."
)
PLACE = typer.Option(True, "--place/--no-place", help="Also say where bits are lost: sender, bridge or receiver.")
EXACT_SHARE = typer.Option(0.9, "--exact_share", help="The best length must have this share of its codes greedy-exact.")
SENTENCE = typer.Option(None, "--sentence", help="How the sender is told a code; default: 'The code is {code}.'")
QUESTION = typer.Option(None, "--question", help="How the receiver is asked for it; default: 'What is the code?'")
RECEIVER_PROMPT = typer.Option(
    None, "--receiver_prompt", help="Instead of the one the bridge was trained with; with {message}, and {question} if it asks."
)
SEED = typer.Option(0, "--seed", help="Which codes are drawn.")
BATCH_SIZE = typer.Option(64, "--batch_size", help="Codes at once; changes speed and memory, not results.")
OUT = typer.Option(None, "--out", help="Folder for capacity.json and capacity.png; default: the run folder.")
JSON = typer.Option(False, "--json", help="Print capacity.json on stdout.")


def capacity(
    run: Path = RUN,
    lengths: str = LENGTHS,
    codes: int = CODES,
    alphabet: str = ALPHABET,
    ceiling: bool = CEILING,
    ceiling_tokens: str = CEILING_TOKENS,
    ceiling_codes: int = CEILING_CODES,
    ceiling_steps: int = CEILING_STEPS,
    ceiling_lr: float = CEILING_LR,
    ceiling_norm: str = CEILING_NORM,
    ceiling_file: Path | None = CEILING_FILE,
    place: bool = PLACE,
    exact_share: float = EXACT_SHARE,
    sentence: str | None = SENTENCE,
    question: str | None = QUESTION,
    receiver_prompt: str | None = RECEIVER_PROMPT,
    seed: int = SEED,
    batch_size: int = BATCH_SIZE,
    device: str | None = DEVICE,
    out: Path | None = OUT,
    as_json: bool = JSON,
) -> None:
    """Measure the bits that a bridge's message carries: random codes, controls, the ceiling, and where bits are lost."""
    from latentwire.analysis.capacity.ceiling import CeilingSettings
    from latentwire.analysis.capacity.file import CAPACITY_FILE, FIGURE_FILE
    from latentwire.analysis.capacity.measure import CapacityRequest, measure_capacity
    from latentwire.report.capacity import best_lines, ceiling_table, curve_table, draw_capacity, places_table
    from latentwire.report.tables import print_tables
    from latentwire.schema import validated

    settings = {
        "soft_tokens": numbers("--ceiling_tokens", ceiling_tokens),
        "codes": ceiling_codes,
        "steps": ceiling_steps,
        "lr": ceiling_lr,
        "norm": ceiling_norm,
        "seed": seed,
    }
    request = CapacityRequest(
        run,
        lengths=numbers("--lengths", lengths),
        codes=codes,
        alphabet=alphabet,
        seed=seed,
        exact_share=exact_share,
        ceiling=validated(CeilingSettings, settings, where="--ceiling_…") if ceiling else None,
        ceiling_file=ceiling_file,
        place=place,
        sentence=sentence,
        question=question,
        receiver_prompt=receiver_prompt,
        device=device,
        batch_size=batch_size,
        out=out,
    )
    with watching() as watch:
        measured = measure_capacity(request, watch=watch)
    draw_capacity(measured, request.folder / FIGURE_FILE)
    if as_json:
        emit_json(measured)
    else:
        print_tables([curve_table(measured), places_table(measured), ceiling_table(measured)])
        print("\n".join(best_lines(measured)))
    say(f"written: {request.folder / CAPACITY_FILE} and {FIGURE_FILE} beside it")
