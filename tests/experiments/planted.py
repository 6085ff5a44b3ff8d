"""Runs with a planted fault, made by the library itself on the embedded pair."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentwire.config import RunConfig, build_config
from latentwire.data.tinyworld.rows import generate_rows
from latentwire.evaluation.evaluator import EvaluationSettings
from latentwire.evaluation.run import EvaluationRequest, evaluate_run
from latentwire.experiments.registry.model import Attempt, Experiment, State
from latentwire.training.run import train_run

ANSWER_CUE = "{message}\nQuestion: {question}\nAnswer:"
#: a task of the tests' own, posed like the shipped ones but read from files
TASK = {
    "name": "planted",
    "summary": "Rows with a planted fault.",
    "kind": "classification",
    "source": {"folder": "planted"},
    "splits": {"train": "train", "test": "test"},
    "sees": {"sender": "the context", "receiver": "the question"},
    "sender_prompt": "{context}",
    "receiver_prompt": ANSWER_CUE,
    "receiver_prompt_aware": "{context}" + ANSWER_CUE,
    "options": {"list": ["positive", "negative"]},
    "answer": {"field": "answer", "as": "text"},
    "metrics": ["accuracy"],
}
Row = dict[str, Any]


def sentiment_rows(split: str, count: int) -> list[Row]:
    return [
        {"id": f"{split}-{index}", **{key: row[key] for key in ("context", "question", "answer")}}
        for index, row in enumerate(dict(row) for row in generate_rows("sentiment", split, count, 0))
    ]


def write_task(folder: Path, train: list[Row], test: list[Row], **changes: Any) -> str:
    """Rows and task file below ``folder``; returns the path of the task file."""
    for split, rows in (("train", train), ("test", test)):
        path = folder / "data" / "planted" / f"{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = {key: value for key, value in {**TASK, **changes}.items() if value is not None}
    path = folder / "planted.yaml"
    path.write_text(json.dumps(content))
    return str(path)


def planted_config(root: Path, task: str, name: str, *, training: Mapping[str, Any] | None = None, **changes: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "task": task,
        "sender": {"model": "nano-llama", "layer": 2},
        "receiver": {"model": "nano-mistral"},
        "bridge": {"name": "pooled", "tokens_per_soft_token": 1, "hidden_size": 64},
        "data": {"data_dir": str(root / "data"), "train_rows": 400, "validation_rows": 40},
        "training": {
            "steps": 40,
            "batch_size": 16,
            "optimizer": "muon",
            "lr": 0.01,
            "warmup_steps": 5,
            "log_every": 5,
            "validate_every": 10,
            "checkpoint_every": 10,
            **(training or {}),
        },
        "seed": 1,
        "output_dir": str(root / "runs" / name),
        **changes,
    }
    return build_config(settings, where="test")


def run_planted(root: Path, config: RunConfig, name: str, *, rows: int = 60, evaluate: bool = True) -> Experiment:
    """Trains and evaluates; the error of a run that fails becomes its log, as the command line would write it."""
    log = root / "runs" / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    error: Exception | None = None
    try:
        train_run(config)
        if evaluate:
            evaluate_run(
                EvaluationRequest(
                    config.folder,
                    methods=["bridge"],
                    max_rows=rows,
                    settings=EvaluationSettings(latency_rows=0),
                )
            )
    except Exception as raised:
        error = raised
    log.write_text("sender states: read\n" + (f"error: {' '.join(str(error).split())}\n" if error else "results written\n"))
    return experiment(root, config, name, error=error)


def experiment(root: Path, config: RunConfig, name: str, *, error: Exception | None = None, **changes: Any) -> Experiment:
    """What the registry would hold about a run in ``root/runs/<name>``."""
    from latentwire.experiments.failures.classes import classify

    log = root / "runs" / "logs" / f"{name}.log"
    verdict = classify(exit_code=1, log_text=log.read_text()) if error is not None else None
    last = Attempt(
        generation=1,
        owner="0" * 16,
        state=State.FAILED if error else State.COMPLETED,
        host="node7",
        job_id="4242",
        gpu="0",
        pid=99,
        started="2025-11-01T10:00:00Z",
        ended="2025-11-01T10:20:00Z",
        exit_code=1 if error else 0,
        log=f"runs/logs/{name}.log",
        error_class=verdict.error_class if verdict else None,
        error=verdict.message if verdict else None,
    )
    made = Experiment(
        name=name,
        state=last.state,
        reason=verdict.message if verdict else "completed",
        config_hash=config.identity,
        config=config.model_dump(mode="json"),
        command=("latentwire", "train", "configs/planted.yaml"),
        run_folder=f"runs/{name}",
        result_file=f"runs/{name}/results.json",
        attempts=(last,),
    )
    return Experiment(**{**vars(made), **changes})
