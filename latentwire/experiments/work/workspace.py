"""The run folder of an experiment around an attempt, and the end of its log."""

from __future__ import annotations

import shutil
from pathlib import Path

REPLACED_FOLDER = ".replaced"
LOG_TAIL_BYTES = 256 * 1024


def set_aside(run_folder: str, root: Path) -> Path | None:
    """Moves a run folder that must not be gone on with under ``runs/.replaced``, which git ignores; returns where it is now.

    ``run_folder`` is relative to ``root``. None where there is nothing to move.
    """
    folder = root / run_folder
    if not folder.is_dir():
        return None
    shelf = root / "runs" / REPLACED_FOLDER
    shelf.mkdir(parents=True, exist_ok=True)
    number = 1
    while (target := shelf / f"{folder.parent.name}-{folder.name}.{number}").exists():
        number += 1
    shutil.move(str(folder), str(target))
    return target


def log_tail(path: Path) -> str:
    """The end of a log; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - LOG_TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
