#!/usr/bin/env python3
"""Train one bridge as in the paper: Llama-3.1-8B-Instruct → Mistral-7B-Instruct-v0.3, 8 soft tokens, 2,000 steps."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from latentwire.cli.paper import add_prompt_flags, paper_bridge, paper_parser, prompt_settings, run_script


def parse() -> argparse.Namespace:
    """The command line."""
    parser = paper_parser(__doc__ or "", folder="runs/<task>-<bridge>-seed<seed>")
    add_prompt_flags(parser)
    bridge = parser.add_argument_group("bridge")
    bridge.add_argument("--bridge_type", default="perceiver", help="perceiver, pooled, attentive, linear or multi_layer")
    bridge.add_argument("--soft_tokens", type=int, default=8, help="soft tokens per message (perceiver)")
    bridge.add_argument("--tokens_per_soft_token", type=int, default=1, help="sender tokens per soft token (all but perceiver)")
    bridge.add_argument("--source_layer", type=int, default=None, help="sender block to read (default: the last but one, 31 of 32)")
    training = parser.add_argument_group("training")
    training.add_argument("--steps", type=int, default=2000, help="training steps")
    training.add_argument("--batch_size", type=int, default=16, help="rows per step")
    training.add_argument("--lr", type=float, default=2e-4, help="peak learning rate")
    training.add_argument("--optimizer", choices=("adamw", "muon"), default="adamw", help="optimiser")
    training.add_argument("--warmup_steps", type=int, default=100, help="linear warm-up")
    training.add_argument("--first_stage", choices=("none", "note", "text"), default="none", help="dense stage before the task")
    training.add_argument("--seed", type=int, default=42, help="seed of weights and row order")
    training.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default=None,
        help="of both models (default: bfloat16; float32 on a CPU)",
    )
    run = parser.add_argument_group("run")
    run.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    run.add_argument("--overwrite", action="store_true", help="start again in the same folder")
    run.add_argument("--dry_run", action="store_true", help="print parameters, memory, disk and rows; load nothing")
    run.add_argument("--tensorboard", action="store_true", help="write TensorBoard events")
    run.add_argument("--json", action="store_true", help="print the summary as JSON on stdout")
    run.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any other setting of the run config; repeatable"
    )
    return parser.parse_args()


def _at_most(rows: int | None) -> dict[str, int]:
    """``--max_samples`` rows of both splits that a training reads."""
    from latentwire.config import DataSettings

    return {} if rows is None else {"train_rows": rows, "validation_rows": min(rows, DataSettings().validation_rows or rows)}


def main(flags: argparse.Namespace) -> None:
    """The training run."""
    from latentwire.cli.train import run_training
    from latentwire.config import build_config

    layer, bridge = paper_bridge(flags)
    if flags.bridge_type != "perceiver":
        bridge = {"name": flags.bridge_type, "tokens_per_soft_token": flags.tokens_per_soft_token}
    config = build_config(
        {
            "task": flags.dataset,
            **prompt_settings(flags),
            "sender": {"model": flags.source_model, "layer": layer, "dtype": flags.dtype},
            "receiver": {"model": flags.target_model, "dtype": flags.dtype},
            "bridge": bridge,
            "data": {"data_dir": flags.data_dir} | _at_most(flags.max_samples),
            "training": {
                "steps": flags.steps,
                "batch_size": flags.batch_size,
                "lr": flags.lr,
                "optimizer": flags.optimizer,
                "warmup_steps": flags.warmup_steps,
                "first_stage": {"objective": flags.first_stage},
            },
            "seed": flags.seed,
            "output_dir": flags.output_dir,
        },
        flags.set,
        where="flags",
    )
    run_training(
        config,
        dry_run=flags.dry_run,
        resume=flags.resume,
        overwrite=flags.overwrite,
        device=flags.device,
        tensorboard=flags.tensorboard,
        as_json=flags.json,
    )


if __name__ == "__main__":
    arguments = parse()
    sys.exit(run_script(lambda: main(arguments)))
