#!/usr/bin/env python3
"""Evaluate a trained bridge on a dataset's official evaluation split, with baselines and controls."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from latentwire.cli.paper import paper_parser, run_script


def parse() -> argparse.Namespace:
    """The command line."""
    parser = paper_parser(__doc__ or "", folder="that of the checkpoint")
    # the models come with the checkpoint; naming them only checks that they are the same
    parser.set_defaults(source_model=None, target_model=None, dataset=None)
    evaluation = parser.add_argument_group("evaluation")
    evaluation.add_argument("--checkpoint", required=True, help="run folder, or the bridge folder in it")
    evaluation.add_argument("--method", action="append", default=None, help="only these methods; repeatable")
    evaluation.add_argument("--split", default="test", help="train, validation or test")
    evaluation.add_argument("--json", action="store_true", help="print results.json on stdout")
    return parser.parse_args()


def main(flags: argparse.Namespace) -> None:
    """The evaluation."""
    from latentwire.cli.console import emit_json
    from latentwire.cli.evaluate import check_results, evaluate_with_progress, print_results
    from latentwire.evaluation.run import EvaluationRequest
    from latentwire.evaluation.run_folder import run_folder_of

    folder = run_folder_of(Path(flags.checkpoint))
    request = EvaluationRequest(
        folder,
        tasks=[flags.dataset] if flags.dataset else None,
        methods=flags.method,
        split=flags.split,
        data_dir=flags.data_dir,
        max_rows=flags.max_samples,
        device=flags.device,
        sender=flags.source_model,
        receiver=flags.target_model,
        out=Path(flags.output_dir) / "results.json" if flags.output_dir else None,
    )
    results = evaluate_with_progress(request)
    if flags.json:
        emit_json(results)
    else:
        print_results(results)
    check_results(results)


if __name__ == "__main__":
    arguments = parse()
    sys.exit(run_script(lambda: main(arguments)))
