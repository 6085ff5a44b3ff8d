"""From a pretraining run to an embedded model: bf16 weights, tokenizer, and a card with what it can read."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from latentwire.errors import ModelError, UsageError
from latentwire.files import file_digest, write_json, write_text
from latentwire.training.nano.exams import examine, held_out_loss
from latentwire.training.nano.pretrain import Pretrainer, recipe_record

#: an embedded model must stay small enough for git
MOST_BYTES = 12 * 10**6
CARD_FILE, FIGURES_FILE = "README.md", "card.json"


def export_model(trainer: Pretrainer, target: Path, *, name: str, n: int = 1000) -> dict[str, Any]:
    """Writes ``target`` whole or not at all; returns the figures of the card, measured on the rounded weights.

    Raises:
        UsageError: the name does not fit, or the folder exists.
    """
    check_export(trainer.recipe.model, target, name=name)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        trainer.model.to(torch.bfloat16).save_pretrained(temporary)
        trainer.tokenizer.save_pretrained(temporary)
        trainer.model.to(torch.float32)  # now the rounded weights
        figures = {**_training_figures(trainer, name), **_scores(trainer, n=n)}
        weights = temporary / "model.safetensors"
        if weights.stat().st_size > MOST_BYTES:
            raise ModelError(f"{name} weighs {weights.stat().st_size / 1e6:.1f} MB, at most {MOST_BYTES / 1e6:.0f} MB may ship")
        figures["weights_sha256"] = file_digest(weights)
        write_json(temporary / FIGURES_FILE, figures)
        write_text(temporary / CARD_FILE, _card(figures))
        temporary.chmod(0o755)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return figures


def check_export(model: str, target: Path, *, name: str) -> None:
    """Raises ``UsageError`` where a model cannot be exported into this folder under this name."""
    base, _, version = name.partition("@")
    if base != model or not version.isdecimal():
        raise UsageError(f"name {name!r} does not fit; write {model}@VERSION, for example {model}@2")
    if target.exists():
        raise UsageError(f"{str(target)!r} exists; embedded versions never change, choose the next version")


def _training_figures(trainer: Pretrainer, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "params": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "recipe": recipe_record(trainer.recipe),
        "steps": trainer.step,
        "tokens": trainer.tokens,
        "plain_text_tokens": trainer.text_tokens,
        "minutes": round(trainer.seconds / 60, 1),
        "threads": torch.get_num_threads(),
        "compiled": trainer.compiled,
    }


def _scores(trainer: Pretrainer, *, n: int) -> dict[str, Any]:
    trainer.model.eval()
    return {
        "rows_per_exam": n,
        "exact_match_test": examine(trainer.model, trainer.tokenizer, split="test", n=n),
        "held_out_text_nats_per_token": round(held_out_loss(trainer.model, trainer.tokenizer, trainer.text), 4),
    }


def _card(figures: dict[str, Any]) -> str:
    scores: dict[str, float] = figures["exact_match_test"]
    kinds = [kind for kind in scores if not kind.startswith("note:")]
    table = "\n".join(f"| {kind} | {scores[kind]:.1%} | {scores[f'note:{kind}']:.1%} |" for kind in kinds)
    share = figures["plain_text_tokens"] / figures["tokens"]
    base = figures["name"].partition("@")[0]
    return f"""# {figures["name"]}

A language model of {figures["params"]:,} parameters for demonstrations and tests of LatentWire; no evidence for larger ones.

- **Data**: {figures["tokens"] / 1e6:.1f} M tokens, {share:.0%} plain English text (novels, textbooks, encyclopedia, stories;
  the last 2 % of every file held out), the rest generated tiny-world lessons (training split only). No benchmark rows.
- **Training**: {figures["steps"]:,} steps, {figures["minutes"]:.0f} minutes on {figures["threads"]} CPU thread.
  `latentwire nano train {base} --seed {figures["recipe"]["seed"]}{" --compile" if figures["compiled"] else ""} --text_dir TEXT \
  --out runs/nano/{base}`
- **Held-out plain text**: {figures["held_out_text_nats_per_token"]:.3f} nats per token.
- **Reading the tiny world as text**, exact match on {figures["rows_per_exam"]} test rows each (a fifth of them with names, places
  or symbol pairs never seen in training); *note* is the share of notes written without a fault:

| scene | answers | note |
| --- | --- | --- |
{table}

Weights: bfloat16, SHA-256 `{figures["weights_sha256"]}`. Licence: MIT, as LatentWire.
"""
