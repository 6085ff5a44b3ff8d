"""The result file: every key of ``results.json`` is typed and explained here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from latentwire.errors import ArtefactError
from latentwire.files import read_json, write_json

SCHEMA_VERSION = 2


class ResultRow(TypedDict):
    """One number with all that is needed to believe it."""

    task: str
    split: str
    #: ``all``, a field of the task's rows (``who``, ``count``, …), or ``held_out``: names and strings never seen in training
    subset: str
    #: ``receiver_only``, ``receiver_text``, ``text_relay``, ``bridge:<name>``
    method: str
    #: None, or how the information was destroyed: ``zero``, ``shuffled``, ``noise``
    control: str | None
    sender_sees: str
    receiver_sees: str
    #: seed of the trained part; None for methods that train nothing
    seed: int | None
    metric: str
    #: 0-1, with its 95 % interval
    value: float
    ci_low: float
    ci_high: float
    #: how the interval was found: ``wilson`` for right or wrong, ``bca`` or ``percentile`` (bootstrap) for scores in between
    interval: str
    n: int
    #: max(1 / options, majority rate), or a blind guess among the values the answer could have had
    chance: float
    #: means over the rows, measured
    message_tokens: float
    message_bytes: float
    #: text in to answer out at batch size 1; None for controls and subsets
    latency_ms_p50: float | None
    #: one line for each thing the prediction check found; always empty for controls
    problems: list[str]


class RunInfo(TypedDict):
    """What produced the rows."""

    #: ``invalid`` where the prediction check flagged a method
    state: Literal["completed", "invalid"]
    config: dict[str, Any]
    seeds: list[int]
    git: dict[str, Any]
    versions: dict[str, str]
    models: dict[str, Any]
    hardware: dict[str, Any]
    data_revisions: dict[str, str]
    #: tasks whose evaluation split was not read in full
    partial: list[str]
    #: what is to be known about the rows of a task: blocks cut from one split, contexts cut to fit; from ``compare`` also rows that
    #: stand in train too
    notes: dict[str, list[str]]
    #: hash of every prompt that was answered, by task
    prompt_hashes: dict[str, str]


class Results(TypedDict):
    """The whole file."""

    schema_version: int
    run: RunInfo
    rows: list[ResultRow]


def state_of(rows: Sequence[ResultRow]) -> Literal["completed", "invalid"]:
    """Whether a run with these rows may be believed."""
    return "invalid" if problems_of(rows) else "completed"


def problems_of(rows: Sequence[ResultRow]) -> list[str]:
    """What the prediction check found, each once."""
    return list(dict.fromkeys(problem for row in rows for problem in row["problems"]))


def write_results(path: Path, run: RunInfo, rows: list[ResultRow]) -> Results:
    """Writes the file whole or not at all and returns its content."""
    results = Results(schema_version=SCHEMA_VERSION, run=run, rows=rows)
    write_json(path, results)
    return results


def read_results(path: Path) -> Results:
    """Raises ``ArtefactError`` where the file is missing, cut or of another schema."""
    content = read_json(path, what="result file")
    if not isinstance(content, dict) or not {"schema_version", "rows"} <= set(content):
        raise ArtefactError(f"{str(path)!r} is no result file; give the run folder, or the results.json in it")
    if content.get("schema_version") != SCHEMA_VERSION:
        raise ArtefactError(
            f"result file {str(path)!r} is not of schema {SCHEMA_VERSION}; delete it and run `latentwire eval` again"
        )
    run, rows = content.get("run"), content.get("rows")
    whole = isinstance(run, dict) and isinstance(run.get("config"), dict) and isinstance(rows, list)
    if not whole or any(not isinstance(row, dict) or set(ResultRow.__annotations__) - set(row) for row in rows or ()):
        raise ArtefactError(f"result file {str(path)!r} is cut or corrupt; delete it and run `latentwire eval` again")
    return content  # type: ignore[return-value]
