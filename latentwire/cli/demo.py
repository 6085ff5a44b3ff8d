"""``latentwire demo``: the whole idea on the embedded pair, in minutes, offline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from latentwire.cli.console import same_command_goes_on, say

if TYPE_CHECKING:
    from latentwire.config import RunConfig
    from latentwire.evaluation.results import Results

CONFIG = typer.Option(
    "configs/demo.yaml", "--config", help="The run config; its record tasks are shown where the receiver can read them."
)
ROWS = typer.Option(500, "--rows", min=1, help="Test rows per task.")

#: a record task is shown only where the receiver, reading the text itself, is right this often on validation rows
READS_WELL = 0.90
VALIDATION_ROWS = 200


def demo(config: str = CONFIG, rows: int = ROWS) -> None:
    """Train one bridge for many tasks on the embedded pair, evaluate it with its controls, show tables and a figure."""
    from latentwire.config import load_config
    from latentwire.evaluation.results import problems_of
    from latentwire.report.demo_figure import draw_demo
    from latentwire.report.tables import demo_cost_table, demo_score_table, print_tables

    run = readable_tasks(load_config(config), device=_device())
    with same_command_goes_on():
        _train(run)
    results = _evaluate(run, rows)
    figure = run.folder / "demo.png"
    draw_demo(results, figure)
    print_tables([demo_score_table(results), demo_cost_table(results)])
    for problem in problems_of(results["rows"]):
        say(f"prediction check: {problem}")
    sender, receiver = (results["run"]["models"][end]["name"] for end in ("sender", "receiver"))
    print(
        f"\n{sender} read each text, {receiver} saw only the question and the message. Controls (zero, shuffled, noise) destroy the"
        "\nmessage: what is left there was not communicated. The receiver itself reads a short text about as fast or faster;"
        "\nthe bridge replaces the relay. These small models are a test bench, no evidence for large ones."
    )
    print(f"\nresults: {run.folder / 'results.json'}   figure: {figure}   bridge: {run.folder / 'bridge'}")
    print('next: .venv/bin/latentwire send "Maria left 47 apples in Lisbon." --ask "How many apples?"')


def _device() -> str:
    """The demo's models are so small that a CPU is fastest."""
    import os

    return os.environ.get("LATENTWIRE_DEVICE") or "cpu"


def readable_tasks(run: RunConfig, *, device: str) -> RunConfig:
    """The config without the record tasks that its receiver cannot read from text (the first is always kept)."""
    from latentwire.data.readers import read_task
    from latentwire.data.task import load_task
    from latentwire.evaluation.evaluator import EvaluationSettings, evaluate_task
    from latentwire.evaluation.run import load_parts
    from latentwire.methods import build_method

    records = [name for name in run.task if name.startswith("tinyworld_record")][1:]
    method = build_method("receiver_text", load_parts(run, None, device=device, writer=False))
    dropped = []
    for name in records:
        task = load_task(name)
        examples = read_task(task, "validation", max_rows=VALIDATION_ROWS).examples
        settings = EvaluationSettings(latency_rows=0)
        value = evaluate_task(task, examples, [method], settings=settings, split="validation", seed=None)[0]["value"]
        if value < READS_WELL:
            say(f"{name} is left out: {method.parts.receiver.source.name} reads it from text with {value:.0%} on validation rows")
            dropped.append(name)
    return run.model_copy(update={"task": tuple(name for name in run.task if name not in dropped)})


def _train(run: RunConfig) -> None:
    from latentwire.cli.train import pretrained, train_with_progress
    from latentwire.training.run import check_folder, finished_summary

    run = run.after_stage_one
    check_folder(run)
    summary = finished_summary(run)
    if summary is not None:
        say(f"reusing the bridge in {run.folder} (trained in {summary['seconds']:.0f} s); delete the folder to train it again")
        return
    say("stage one: the bridge learns to carry words, once for this pair")
    pretrained(run, device=_device())
    say(f"stage two: one bridge for {len(run.task)} tasks")
    train_with_progress(run, resume=True, device=_device())


def _evaluate(run: RunConfig, rows: int) -> Results:
    from latentwire.bridges.base import WEIGHTS_FILE
    from latentwire.cli.evaluate import evaluate_with_progress
    from latentwire.config import ARTEFACT_FOLDER, RESULTS_FILE
    from latentwire.evaluation.results import read_results
    from latentwire.evaluation.run import EvaluationRequest
    from latentwire.files import file_digest

    path = Path(run.folder) / RESULTS_FILE
    if path.exists():
        results = read_results(path)
        same_bridge = results["run"]["models"]["bridge"]["weights_sha256"] == file_digest(
            run.folder / ARTEFACT_FOLDER / WEIGHTS_FILE
        )
        same_rows = {row["n"] for row in results["rows"] if row["subset"] == "all"} == {rows}
        if same_bridge and same_rows and results["run"]["config"]["task"] == list(run.task):
            say(f"reusing the results in {path}; delete the file to measure again")
            return results
    return evaluate_with_progress(EvaluationRequest(run.folder, max_rows=rows, device=_device()))
