"""Tasks and rows written the way a user would: a YAML file and JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from latentwire.data.task import Task, load_task

BASE: dict[str, Any] = {
    "name": "mine",
    "summary": "A user's own task.",
    "kind": "classification",
    "source": {"folder": "mine"},
    "sees": {"sender": "the text", "receiver": "a fixed question"},
    "sender_prompt": "Text: {text}",
    "receiver_prompt": "{message}\nQuestion: which?\nAnswer:",
    "receiver_prompt_aware": "Text: {text}{message}\nQuestion: which?\nAnswer:",
    "options": {"list": ["no", "yes"]},
    "answer": {"field": "label", "as": "index"},
    "metrics": ["accuracy"],
}


def write_task(folder: Path, **changes: Any) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in {**BASE, **changes}.items() if value is not None}))
    return path


def own_task(folder: Path, **changes: Any) -> Task:
    return load_task(str(write_task(folder, **changes)))


def write_rows(folder: Path, rows: Iterable[Mapping[str, Any]], split: str = "train") -> Path:
    path = folder / "mine" / f"{split}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
