"""Whether a result can be believed: a file with its digest, a finite number in it, and predictions that passed their check."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentwire.files import file_digest

PREDICTIONS_FOLDER = "predictions"
#: numbers under these keys describe a run and are no result of it
_NOT_RESULTS = frozenset(
    "schema_version version run config seeds seed versions git models hardware provenance partial n steps seconds "
    "trainable_params train_rows validation_rows best_step gpu exit_code job_id pid timestamp start_time end_time".split()
)
MOST_METRICS = 64


@dataclass(frozen=True)
class Outcome:
    """What a result file holds. ``problem`` is None where it can be believed, else why not, in one line."""

    problem: str | None = None
    sha256: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


def read_outcome(path: Path | None, *, before: tuple[int, int] | None = None) -> Outcome:
    """Judges a result file. ``before`` are its modification time (ns) and size when the attempt began, if it must be newer."""
    if path is None:
        return Outcome("no result file was named, neither by the command nor by the plan")
    if not path.is_file():
        return Outcome(f"the result file {path.name} does not exist")
    sha256 = file_digest(path)
    if before is not None and stamp(path) == before:
        return Outcome(f"the result file {path.name} is older than this attempt, which wrote none", sha256)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        return Outcome(f"the result file {path.name} is cut or no JSON ({error})", sha256)
    metrics = _metrics(content)
    if not metrics:
        return Outcome(f"the result file {path.name} holds no finite number", sha256)
    return Outcome(_said_invalid(content) or _prediction_problem(path.parent / PREDICTIONS_FOLDER), sha256, metrics)


def stamp(path: Path) -> tuple[int, int] | None:
    """Modification time (ns) and size of a file, or None."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def finite(value: object) -> bool:
    """Whether it is a number that can be a result."""
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        return False


def _metrics(content: Any) -> dict[str, float]:
    """The numbers of a result, named. Of ``results.json`` those over all rows without a control."""
    if isinstance(content, dict) and isinstance(content.get("rows"), list):
        found = dict(_row_metrics(content["rows"]))
    else:
        found = dict(_leaves(content, ""))
    return dict(sorted(found.items())[:MOST_METRICS])


def _row_metrics(rows: list[Any]) -> Iterator[tuple[str, float]]:
    for row in rows:
        if not isinstance(row, dict) or row.get("control") is not None or row.get("subset", "all") != "all":
            continue
        if finite(row.get("value")):
            seed = row.get("seed")
            ending = "" if seed is None else f"/seed{seed}"
            yield f"{row.get('task')}/{row.get('method')}/{row.get('metric')}{ending}", float(row["value"])


def _leaves(value: Any, path: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if str(key) not in _NOT_RESULTS:
                yield from _leaves(inner, f"{path}/{key}" if path else str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value[:MOST_METRICS]):
            yield from _leaves(inner, f"{path}/{index}" if path else str(index))
    elif finite(value):
        yield path or "value", float(value)


def _said_invalid(content: Any) -> str | None:
    run = content.get("run") if isinstance(content, dict) else None
    if not isinstance(run, dict) or run.get("state") != "invalid":
        return None
    problems = [problem for row in content.get("rows", []) if isinstance(row, dict) for problem in row.get("problems") or []]
    return f"the prediction check failed: {problems[0] if problems else 'the result file says invalid'}"


def _prediction_problem(folder: Path) -> str | None:
    """What the check that stands in every prediction file found."""
    for path in sorted(folder.rglob("*.jsonl")) if folder.is_dir() else []:
        try:
            with path.open("rb") as file:
                header = json.loads(file.readline())
                rows = sum(1 for _ in file)
            problems, expected = header["problems"], header["n"]
        except (OSError, ValueError, KeyError, TypeError):
            return f"the predictions {path.name} are cut or have no header"
        if problems:
            return f"the prediction check failed: {problems[0]}"
        if rows != expected:
            return f"the predictions {path.name} are cut ({rows} of {expected} rows)"
    return None
