"""Flags shared by the paper's scripts under ``telepathy/``. Standard library only, so that every ``--help`` works anywhere."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib.util import find_spec

from latentwire.experiments.terminal import Parser

PAPER_SENDER = "meta-llama/Llama-3.1-8B-Instruct"
PAPER_RECEIVER = "mistralai/Mistral-7B-Instruct-v0.3"
NEEDED_MODULES = ("torch", "transformers", "pydantic", "yaml", "typer")


def paper_parser(description: str, *, folder: str) -> argparse.ArgumentParser:
    """A parser with the flags that all scripts share. ``folder``: where a script writes by default, in words."""
    parser = Parser(description=description)
    models = parser.add_argument_group("models and data")
    models.add_argument("--source_model", default=PAPER_SENDER, help="sender: embedded name, folder or Hub id")
    models.add_argument("--target_model", default=PAPER_RECEIVER, help="receiver: embedded name, folder or Hub id")
    models.add_argument("--dataset", default="sst2", help="task name, or the path of a task YAML file")
    models.add_argument("--data_dir", default=None, help="folder with <set>/<split>.jsonl[.gz]; without it rows come from the Hub")
    models.add_argument("--max_samples", type=int, default=None, help="use at most so many rows of a split; results say so")
    models.add_argument("--output_dir", default=None, help=f"folder for what is written (default: {folder})")
    models.add_argument(
        "--device", default=None, help="cpu, mps, cuda or cuda:N (default: LATENTWIRE_DEVICE, else the best present)"
    )
    return parser


def add_prompt_flags(parser: argparse.ArgumentParser) -> None:
    """Flags about how a task is posed; ``prompt_settings`` makes the config's keys of them."""
    prompts = parser.add_argument_group("prompts")
    prompts.add_argument(
        "--prompt_style", choices=("plain", "chat", "auto"), default="auto", help="auto: chat where the tokenizer has a template"
    )
    prompts.add_argument("--sender_sees", choices=("context", "all"), default="context", help="all: also the question")
    prompts.add_argument(
        "--target", choices=("answer", "solution"), default="answer", help="solution: the worked text that ends in the answer"
    )


def prompt_settings(flags: argparse.Namespace) -> dict[str, object]:
    """The keys of a run config that ``add_prompt_flags`` gives."""
    return {"prompt_style": flags.prompt_style, "variant": {"sender_sees": flags.sender_sees, "target": flags.target}}


def paper_bridge(flags: argparse.Namespace) -> tuple[int, dict[str, object]]:
    """The sender block that is read and the paper's bridge between these models, for it and for what is compared with it."""
    from latentwire.data.task import load_task
    from latentwire.models.source import resolve

    load_task(flags.dataset)  # a mistyped name is found before the models are looked for
    layer = flags.source_layer
    if layer is None:
        layer = max(1, resolve(flags.source_model).config.num_hidden_layers - 1)
    bridge: dict[str, object] = {"name": "perceiver", "soft_tokens": flags.soft_tokens}
    if (flags.source_model, flags.target_model) == (PAPER_SENDER, PAPER_RECEIVER):
        bridge |= {"hidden_size": 512, "heads": 8}
    return layer, bridge


def run_script(main: Callable[[], None]) -> int:
    """Runs a script's work; a missing environment and known errors become one line and an exit code."""
    missing = [module for module in NEEDED_MODULES if find_spec(module) is None]
    if missing:
        print(f"error: {missing[0]} is not installed here; run `make setup` and use .venv/bin/python", file=sys.stderr)
        return 1
    from latentwire.cli.app import guarded

    return guarded(main)
