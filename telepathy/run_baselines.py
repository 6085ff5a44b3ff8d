#!/usr/bin/env python3
"""Run the paper's baselines on a dataset: the same rows, prompts, scoring and statistics as the bridge."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from latentwire.cli.paper import add_prompt_flags, paper_bridge, paper_parser, prompt_settings, run_script

#: --baseline → methods
BASELINES = {
    "zeroshot": ("receiver_only", "receiver_text", "sender_text"),
    "fewshot": ("fewshot",),
    "lora": ("lora",),
    "dora": ("dora",),
    "prompt_tuning": ("prompt_tuning", "prior"),
    "linear_probe": ("linear_probe",),
    "text_relay": ("text_relay",),
    "cot_relay": ("cot_relay",),
    "label_byte": ("label_byte", "answer_text"),
    "ensemble": ("ensemble",),
    "ridge": ("ridge",),
    "self_bridge": ("self_bridge",),
}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = paper_parser(__doc__ or "", folder="runs/baselines-<task>")
    add_prompt_flags(parser)
    baselines = parser.add_argument_group("baselines")
    baselines.add_argument("--baseline", choices=(*BASELINES, "all"), default="zeroshot", help="which one")
    baselines.add_argument("--shots", type=int, default=5, help="fewshot: solved rows in the prompt")
    baselines.add_argument("--rank", type=int, default=8, help="lora, dora: rank of the adapters")
    baselines.add_argument("--virtual_tokens", type=int, default=8, help="prompt_tuning: learned tokens")
    baselines.add_argument("--relay_tokens", type=int, default=64, help="text_relay: tokens of a note at most")
    baselines.add_argument("--reasoning_tokens", type=int, default=128, help="cot_relay: tokens of a chain of thought at most")
    baselines.add_argument(
        "--seeds", type=int, nargs="+", default=[42, 123, 456], help="seeds of those that draw at random; the others run once"
    )
    training = parser.add_argument_group("training of those that learn")
    training.add_argument("--steps", type=int, default=2000, help="training steps")
    training.add_argument("--batch_size", type=int, default=16, help="rows per step")
    training.add_argument("--soft_tokens", type=int, default=8, help="self_bridge: soft tokens per message")
    training.add_argument(
        "--source_layer", type=int, default=None, help="block that ridge and self_bridge read (default: the last but one)"
    )
    training.add_argument("--train_rows", type=int, default=None, help="learn from at most so many rows")
    training.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default=None, help="of both models")
    output = parser.add_argument_group("output")
    output.add_argument(
        "--reference", default=None, help="method that all others are paired with; default: receiver_text, if it runs"
    )
    output.add_argument("--json", action="store_true", help="print the comparison as JSON on stdout")
    output.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any other setting of the run config")
    return parser.parse_args()


def main(flags: argparse.Namespace) -> None:
    """The comparison."""
    from latentwire.cli.compare import run_comparison
    from latentwire.config import build_config
    from latentwire.methods.settings import MethodSettings
    from latentwire.schema import validated

    chosen = [method for name, methods in BASELINES.items() if flags.baseline in (name, "all") for method in methods]
    layer, bridge = paper_bridge(flags)
    config = build_config(
        {
            "task": flags.dataset,
            **prompt_settings(flags),
            "sender": {"model": flags.source_model, "layer": layer, "dtype": flags.dtype},
            "receiver": {"model": flags.target_model, "dtype": flags.dtype},
            "bridge": bridge,
            "data": {"data_dir": flags.data_dir, "train_rows": flags.train_rows},
            "training": {"steps": flags.steps, "batch_size": flags.batch_size},
            "seed": flags.seeds[0],
        },
        flags.set,
        where="flags",
    )
    run_comparison(
        config,
        tasks=[flags.dataset],
        methods=chosen,
        seeds=flags.seeds,
        folder=Path(flags.output_dir or f"runs/baselines-{Path(flags.dataset).stem}"),
        settings=validated(
            MethodSettings,
            {name: getattr(flags, name) for name in ("shots", "rank", "virtual_tokens", "relay_tokens", "reasoning_tokens")},
            where="flags",
        ),
        max_rows=flags.max_samples,
        reference=flags.reference,
        device=flags.device,
        as_json=flags.json,
    )


if __name__ == "__main__":
    arguments = parse()
    sys.exit(run_script(lambda: main(arguments)))
