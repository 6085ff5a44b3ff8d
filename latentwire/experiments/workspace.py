"""The run folder of an experiment around an attempt: fresh where it must be, kept where work goes on, its numbers, its log."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

from latentwire.errors import ArtefactError
from latentwire.experiments.model import ErrorClass, Experiment, State
from latentwire.files import read_json, write_json

MARKER_FILE = "experiment.json"
REPLACED_FOLDER = ".replaced"
LOG_TAIL_BYTES = 64 * 1024
#: states after which another attempt starts from nothing: its files would be taken for the new result
FRESH_AFTER = (State.COMPLETED, State.INVALID)


def prepare_folder(item: Experiment, root: Path) -> None:
    """Leaves the folder to go on in, or sets it aside where its files belong to another config or to a finished attempt.

    Nothing is deleted: what was there is under ``<parent>/.replaced/``.
    """
    if item.run_folder is None:
        return
    folder = root / item.run_folder
    if folder.is_dir() and _is_stale(item, folder):
        _set_aside(folder)
    marker = {"name": item.name, "config_hash": item.config_hash}
    write_json(folder / MARKER_FILE, marker)


def _is_stale(item: Experiment, folder: Path) -> bool:
    try:
        marker = read_json(folder / MARKER_FILE, what="experiment marker")
    except ArtefactError:
        marker = {}  # an older run, or one started by hand
    if isinstance(marker, dict) and marker.get("config_hash", item.config_hash) != item.config_hash:
        return True
    last = item.last
    # numbers that are not finite do not heal by going on from them
    return last is not None and (last.state in FRESH_AFTER or last.error_class is ErrorClass.NAN)


def _set_aside(folder: Path) -> None:
    shelf = folder.parent / REPLACED_FOLDER
    shelf.mkdir(parents=True, exist_ok=True)
    number = 1
    while (target := shelf / f"{folder.name}.{number}").exists():
        number += 1
    shutil.move(str(folder), str(target))


def measured(result_file: Path) -> dict[str, float]:
    """The headline numbers of a result file: ``task/method[/control]/metric`` → value. Other JSON: its finite numbers.

    Raises:
        ArtefactError: the file is missing, cut or no mapping.
    """
    content = read_json(result_file, what="result file")
    if not isinstance(content, dict):
        raise ArtefactError(f"result file {str(result_file)!r} holds no mapping")
    rows = content.get("rows")
    if not isinstance(rows, list):
        return {str(key): float(value) for key, value in content.items() if _is_number(value)}
    return {_key(row): float(row["value"]) for row in rows if row.get("subset") == "all" and _is_number(row.get("value"))}


def _key(row: dict[str, Any]) -> str:
    parts = (row["task"], row["method"], row["control"], row["metric"])
    return "/".join(str(part) for part in parts if part is not None)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def log_tail(path: Path) -> str:
    """The end of a log; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - LOG_TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
