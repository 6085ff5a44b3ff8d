"""Stored predictions: what one method answered to every row of a task, so that any table can be made again without a model.

One JSONL file per task, method, seed and control, ``<run>/predictions/<task>/<method>[-seed42][-shuffled].jsonl``. The first line
is the header and not a file of its own: header and rows are then replaced together or not at all, and the header's row count and
digest show whether anything behind it is missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from latentwire.errors import ArtefactError
from latentwire.files import digest, replacing

PREDICTIONS_FOLDER = "predictions"
#: the metric for which the receiver also sees the options
BY_TEXT = "accuracy_by_text"
SCHEMA_VERSION = 1


class PredictionRecord(TypedDict):
    """One answered row. Every key is explained in ``docs/results-format.md``."""

    id: str
    #: changes when any prompt, option or answer of the row does
    prompt_hash: str
    #: nats, one per option; null inside the list where the score was not a finite number
    scores: list[float | None] | None
    prediction: str
    option: int | None
    target: str
    #: the gold option, null where the answer is free text
    label: int | None
    #: metric → 0-1
    values: dict[str, float]
    #: how often a blind guess is right on this row, 0-1
    chance: float
    field: str
    held_out: bool
    message_tokens: int
    message_bytes: int


class PredictionHeader(TypedDict):
    """What the records of a file have in common. ``n``, ``schema_version`` and ``records_sha256`` are set when it is written."""

    schema_version: int
    task: str
    split: str
    method: str
    #: None, or how the information was destroyed: ``zero``, ``shuffled``, ``noise``
    control: str | None
    #: seed of the trained part; None for methods that train nothing
    seed: int | None
    sender_sees: str
    receiver_sees: str
    #: the task's headline metric first
    metrics: list[str]
    n: int
    #: max(blind guess, commonest answer)
    chance: float
    latency_ms_p50: float | None
    data_revision: str
    #: the split was not read in full
    partial: bool
    #: what the fit of a trained method chose and cost, free
    fit: dict[str, Any]
    #: what a resume compares: equal identities would give equal records
    identity: str
    #: one line for each thing the prediction check found
    problems: list[str]
    records_sha256: str


class Predictions(NamedTuple):
    """The content of one file."""

    header: PredictionHeader
    records: list[PredictionRecord]


def prediction_path(run_folder: Path, task: str, method: str, *, seed: int | None = None, control: str | None = None) -> Path:
    """Where these predictions are kept; a resume looks there (``read_header``) before it predicts."""
    ending = ("" if seed is None else f"-seed{seed}") + (f"-{control}" if control else "")
    return run_folder / PREDICTIONS_FOLDER / _safe(task) / f"{_safe(method)}{ending}.jsonl"


def _safe(name: str) -> str:
    """A file name on every system; the true name is in the header."""
    return re.sub(r"[^A-Za-z0-9._+=@-]", "-", name).lstrip(".") or "-"


def write_predictions(run_folder: Path, header: PredictionHeader, records: Sequence[PredictionRecord]) -> Path:
    """Writes the file of these predictions whole or not at all and returns its path.

    Raises:
        ArtefactError: the file holds another task, method, seed or control, whose name differs in unsafe characters only.
    """
    path = prediction_path(run_folder, header["task"], header["method"], seed=header["seed"], control=header["control"])
    lines = "".join(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records)
    full = {**header, "schema_version": SCHEMA_VERSION, "n": len(records), "records_sha256": digest(lines)}
    if path.is_file() and (other := _header_or_none(path)) is not None and _key(other) != _key(header):
        raise ArtefactError(f"{str(path)!r} holds predictions of {_key(other)}, not {_key(header)}; rename the task or method")
    with replacing(path) as temporary:
        # as bytes: no system may change the ends of the lines
        temporary.write_bytes((json.dumps(full, ensure_ascii=False, allow_nan=False) + "\n" + lines).encode())
    return path


def _key(header: PredictionHeader) -> tuple[str, str, int | None, str | None]:
    return header["task"], header["method"], header["seed"], header["control"]


def read_header(path: Path) -> PredictionHeader:
    """The first line alone, for instance to see whether a resume can keep the file.

    Raises:
        ArtefactError: the file is missing, its header cut or corrupt, or of another schema. The rows are not looked at.
    """
    try:
        with path.open(encoding="utf-8") as file:
            header = json.loads(file.readline())
    except FileNotFoundError:
        raise ArtefactError(f"predictions {str(path)!r} do not exist; run the evaluation that writes them") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from None
    if not isinstance(header, dict):
        raise _damaged(path, "the first line is no header")
    if header.get("schema_version") != SCHEMA_VERSION:
        found = header.get("schema_version")
        raise ArtefactError(f"predictions {str(path)!r} have schema {found}, not {SCHEMA_VERSION}; delete the file and run again")
    missing = sorted(set(PredictionHeader.__annotations__) - set(header))
    if missing:
        raise _damaged(path, f"the header has no {missing[0]!r}")
    return header  # type: ignore[return-value]


def _header_or_none(path: Path) -> PredictionHeader | None:
    try:
        return read_header(path)
    except ArtefactError:
        return None


def read_predictions(path: Path) -> Predictions:
    """Header and records. Raises ``ArtefactError`` where the file is missing, cut, changed or of another schema."""
    header = read_header(path)
    try:
        _, _, body = path.read_bytes().partition(b"\n")
        lines = body.decode("utf-8").split("\n")[:-1]
        if len(lines) != header["n"]:
            raise _damaged(path, f"{len(lines)} of {header['n']} rows")
        if digest(body) != header["records_sha256"]:
            raise _damaged(path, "the rows are not those that were written")
        return Predictions(header, [json.loads(line) for line in lines])
    except (ValueError, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from None


def _damaged(path: Path, why: str) -> ArtefactError:
    return ArtefactError(f"predictions {str(path)!r} are cut or corrupt ({why}); delete the file and run again")


def find_predictions(folder: Path) -> list[Path]:
    """Every prediction file of a run, or of all runs below a folder, in a stable order.

    Raises:
        ArtefactError: there is none.
    """
    found = sorted(_files_below(folder)) if folder.is_dir() else []
    if not found:
        what = "holds no stored predictions" if folder.is_dir() else "is no folder"
        raise ArtefactError(f"{str(folder)!r} {what}; write some with `latentwire eval RUN`")
    return found


def _files_below(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*.jsonl"):
        if path.resolve().parent.parent.name == PREDICTIONS_FOLDER:
            yield path
