"""``latentwire eval``: a trained bridge against the baselines, with its controls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from latentwire.cli.console import DEVICE, emit_json, progress, say
from latentwire.errors import ArtefactError, CheckFailedError

if TYPE_CHECKING:
    from latentwire.evaluation.results import Results
    from latentwire.evaluation.run import EvaluationRequest

RUN = typer.Argument(help="Run folder, for example runs/demo.", show_default=False)
TASK = typer.Option(None, "--task", help="Task name or YAML path; default: the tasks it was trained on. Repeatable.")
METHOD = typer.Option(None, "--method", help="Only these methods. Repeatable.")
PRECISION = typer.Option(
    None,
    "--precision",
    help="Number formats of the bridge's messages, comma-separated: auto, float32, bf16, int8, int4; one result row each. "
    "Default: as it was trained.",
)
SPLIT = typer.Option("test", "--split", help="train, validation or test.")
DATA_DIR = typer.Option(
    None, "--data_dir", help="Folder with <set>/<split>.jsonl[.gz]; default: that of the training run, else the Hub."
)
MAX_SAMPLES = typer.Option(None, "--max_samples", help="Read only so many rows; the result says so.")
JSON = typer.Option(False, "--json", help="Print results.json on stdout.")


def evaluate(
    run: Path = RUN,
    task: list[str] | None = TASK,
    method: list[str] | None = METHOD,
    precision: str | None = PRECISION,
    split: str = SPLIT,
    data_dir: str | None = DATA_DIR,
    max_samples: int | None = MAX_SAMPLES,
    device: str | None = DEVICE,
    as_json: bool = JSON,
) -> None:
    """Evaluate a trained bridge with baselines and controls; writes results.json and every prediction."""
    from latentwire.evaluation.run import EvaluationRequest
    from latentwire.messages.settings import as_precision

    precisions = None if precision is None else [as_precision(name.strip()) for name in precision.split(",")]
    results = evaluate_with_progress(
        EvaluationRequest(
            run,
            tasks=task,
            methods=method,
            precisions=precisions,
            split=split,
            data_dir=data_dir,
            max_rows=max_samples,
            device=device,
        )
    )
    if as_json:
        emit_json(results)
    else:
        print_results(results)
    check_results(results)


def check_results(results: Results) -> None:
    """Says what the prediction check found. Raises ``CheckFailedError`` where it found anything."""
    from latentwire.evaluation.results import problems_of

    problems = problems_of(results["rows"])
    if problems:
        rest = f"; and {len(problems) - 1} more in `problems` of the result rows" if len(problems) > 1 else ""
        raise CheckFailedError(f"the run is invalid, the prediction check found: {problems[0]}{rest}")


def evaluate_with_progress(request: EvaluationRequest) -> Results:
    """Runs the evaluation with a bar or lines on stderr."""
    from latentwire.evaluation.run import evaluate_run

    before = _measured(request.result_path)
    with progress(0, f"evaluate {request.run_folder}") as bar:
        results = evaluate_run(request, advance=lambda what, rows: bar.add(rows, what))
    after = _measured(request.result_path)
    for (task, method), rows in before.items():
        if after.get((task, method), 0) < rows:
            say(f"{task}, {method}: the earlier result over {rows:,} rows gave way")
    say(f"results in {request.result_path}")
    return results


def _measured(path: Path) -> dict[tuple[str, str], int]:
    """How many rows of each task each method answered in a result file; nothing where there is no sound one."""
    from latentwire.evaluation.results import read_results

    try:
        rows = read_results(path)["rows"]
        return {(row["task"], row["method"]): row["n"] for row in rows if row["subset"] == "all" and row["control"] is None}
    except ArtefactError:
        return {}


def print_results(results: Results) -> None:
    """Per task: every method and control, then the subsets."""
    from latentwire.report.tables import metrics_of, print_tables, subset_table, task_table, tasks_of

    for task in tasks_of(results):
        print_tables([*(task_table(results, task, metric) for metric in metrics_of(results, task)), subset_table(results, task)])
