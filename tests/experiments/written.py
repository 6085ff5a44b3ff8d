"""Runs whose files are written by the library's own writers, where a training would say no more."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from latentwire.evaluation.predictions import PredictionRecord, write_predictions
from latentwire.experiments.registry.model import Attempt, Experiment, State
from latentwire.files import write_json, write_text
from tests.evaluation.making import header, record

LABELS = ("abbreviation", "entity", "description", "person", "location", "number")
GOLD = [index % len(LABELS) for index in range(240)]
CONFIG: dict[str, Any] = {
    "task": ["trec"],
    "sender": {"model": "nano-llama", "layer": 2, "dtype": None},
    "receiver": {"model": "nano-mistral", "dtype": None},
    "bridge": {"name": "pooled", "tokens_per_soft_token": 1},
    "data": {"data_dir": "data"},
    "training": {"steps": 1000, "batch_size": 16, "optimizer": "muon", "lr": 0.01, "warmup_steps": 50},
    "seed": 42,
}
DONE = Attempt(
    generation=1,
    owner="0" * 16,
    state=State.COMPLETED,
    host="node7",
    job_id="4242",
    gpu="0",
    pid=99,
    started="2025-11-01T10:00:00Z",
    ended="2025-11-01T10:20:00Z",
    exit_code=0,
)


def labelled(given: Sequence[int], wanted: Sequence[int], labels: Sequence[str] = LABELS) -> list[PredictionRecord]:
    made = []
    for index, (mine, gold) in enumerate(zip(given, wanted, strict=True)):
        row = record(index, option=0, label=0, values={"accuracy": float(mine == gold)}, chance=1 / len(labels))
        scores: list[float | None] = [float(-(mine != choice)) for choice in range(len(labels))]
        row |= {"option": mine, "label": gold, "prediction": labels[mine], "target": labels[gold], "scores": scores}
        made.append(row)
    return made


def noisy(wanted: Sequence[int], share: float, *, seed: int = 0, labels: int = len(LABELS)) -> list[int]:
    """The wanted labels, a share of them replaced by random ones."""
    rng = Random(seed)
    return [rng.randrange(labels) if rng.random() < share else gold for gold in wanted]


def curve(steps: int = 1000, *, start: float = 1.8, end: float = 0.3, **values: float) -> list[dict[str, Any]]:
    """A loss that falls evenly, with what the trainer logs beside it."""
    entries = []
    for step in range(100, steps + 1, 100):
        loss = start + (end - start) * step / steps
        entry: dict[str, Any] = {"step": step, "stage": "task", "loss": round(loss, 5), "gradient_norm": 1.5}
        entry |= {"rms_ratio": 1.0, "shuffled_gap": 0.9, "effective_rank": 20.0} | values
        if step % 500 == 0:
            entry |= {"validation": 0.8, "validation_loss": round(loss + 0.1, 5)}
        entries.append(entry)
    return entries


def written(
    root: Path,
    name: str,
    *,
    records: list[PredictionRecord] | None = None,
    controls: Mapping[str, list[PredictionRecord]] | None = None,
    log: list[dict[str, Any]] | None = None,
    summary: Mapping[str, Any] | None = None,
    rows: list[dict[str, Any]] | None = None,
    config: Mapping[str, Any] | None = None,
    log_text: str | None = None,
    state: State = State.COMPLETED,
    reason: str = "completed",
    attempt: Mapping[str, Any] | None = None,
) -> Experiment:
    """Run files below ``root/runs/<name>`` and the experiment that the registry would hold."""
    folder = root / "runs" / name
    settings = {**CONFIG, **(config or {})}
    write_json(folder / "config.json", {"identity": "0" * 16, "config": settings})
    if log is not None:
        write_text(folder / "log.jsonl", "".join(json.dumps(entry) + "\n" for entry in log))
    if summary is not None:
        write_json(folder / "train.json", dict(summary))
    if rows is not None:
        write_json(folder / "rows.json", rows)
    for control, answers in {None: records, **(controls or {})}.items():
        if answers is not None:
            write_predictions(folder, header(answers, method="bridge:pooled", control=control, seed=42, task="trec"), answers)
    log_path = None
    if log_text is not None:
        log_path = f"runs/logs/{name}.log"
        write_text(root / log_path, log_text)
    last = Attempt(**{**vars(DONE), "state": state, "log": log_path, **(attempt or {})})
    return Experiment(
        name=name,
        state=state,
        reason=reason,
        config_hash="0" * 16,
        config=settings,
        command=("latentwire", "train", "configs/trec.yaml"),
        run_folder=f"runs/{name}",
        result_file=f"runs/{name}/results.json",
        attempts=(last,),
    )
