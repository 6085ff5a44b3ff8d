"""The files of one run, read as far as they can be read: a failed run leaves some out and may leave some broken.

Nothing here raises over a missing or damaged file; what could not be read stands in ``RunFiles.unreadable`` and is reported.
Standard library only, Python 3.9.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentwire.errors import ArtefactError
from latentwire.evaluation.predictions import read_predictions
from latentwire.experiments.registry.model import Attempt, Experiment

#: bytes from the end of an attempt's log that are read
LOG_TAIL_BYTES = 1 << 20


@dataclass(frozen=True)
class LogText:
    """The end of a text log. ``first_line`` is the number of its first line in the file."""

    text: str = ""
    path: str = ""
    first_line: int = 1

    def place_of(self, message: str) -> str | None:
        """``file:line`` of the last line that holds the beginning of ``message``."""
        needle = message.partition(" …")[0][:60]
        lines = self.text.splitlines()
        for index in range(len(lines) - 1, -1, -1):
            if needle and needle in lines[index]:
                return f"{self.path}:{self.first_line + index}"
        return self.end if lines else None

    @property
    def end(self) -> str:
        """``file:line`` of the last line that says something."""
        lines = self.text.splitlines()
        last = max((index for index, line in enumerate(lines) if line.strip()), default=0)
        return f"{self.path}:{self.first_line + last}"

    @property
    def last_line(self) -> str:
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        return lines[-1] if lines else ""


@dataclass(frozen=True)
class Answered:
    """One prediction file. ``header`` and ``records`` as in ``docs/results-format.md``."""

    path: str
    header: dict[str, Any]
    records: list[dict[str, Any]]

    def place(self, index: int) -> str:
        """``file:line`` of record ``index``; the header is line 1."""
        return f"{self.path}:{index + 2}"


@dataclass(frozen=True)
class RunFiles:
    """What a run left in its folder. Paths in it are relative to ``root``, the folder that holds ``runs/``."""

    root: Path
    folder: str
    config: dict[str, Any] = field(default_factory=dict)
    config_path: str | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    rows_path: str = ""
    log: list[dict[str, Any]] = field(default_factory=list)
    log_path: str = ""
    summary: dict[str, Any] = field(default_factory=dict)
    summary_path: str = ""
    results: dict[str, Any] = field(default_factory=dict)
    results_path: str = ""
    answered: list[Answered] = field(default_factory=list)
    checkpoint: str | None = None
    #: seconds since the epoch at which the run last wrote anything, by the clock of the file server
    last_write_s: float | None = None
    unreadable: list[str] = field(default_factory=list)

    @property
    def told(self) -> dict[str, Any]:
        """What results.json says about the run: versions, notes, prompt hashes and so on."""
        return _mapping(self.results.get("run"))

    def log_place(self, index: int) -> str:
        """``file:line`` of entry ``index`` of log.jsonl."""
        return f"{self.log_path}:{index + 1}"

    def rows_of(self, split: str, task: str | None = None) -> dict[str, Any]:
        """The portrait of a split of a task (default: the first), empty where the run has none."""
        found = [entry for entry in self.rows if entry.get("split") == split and task in (None, entry.get("task"))]
        return found[0] if found else {}

    def rows_place(self, key: str) -> str:
        """``file:line`` where ``key`` stands in rows.json."""
        return _line_with(self.root, self.rows_path, key)

    def config_place(self, key: str) -> str | None:
        """``file:line`` where the last part of a dotted ``key`` stands in config.json."""
        return None if self.config_path is None else _line_with(self.root, self.config_path, key.rpartition(".")[2])


class _Reader:
    """Reads files below ``root`` and notes those that it could not read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.problems: list[str] = []

    def shown(self, path: Path) -> str:
        try:
            return path.resolve().relative_to(self.root.resolve()).as_posix()
        except ValueError:
            return path.as_posix()

    def json(self, path: Path) -> Any:
        if not path.is_file():
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            self.problems.append(f"{self.shown(path)} cannot be read ({error})")
            return None

    def lines(self, path: Path) -> list[dict[str, Any]]:
        """The objects of a JSONL file up to the first line that is cut."""
        if not path.is_file():
            return []
        found: list[dict[str, Any]] = []
        number = 1
        try:
            # not splitlines: JSON strings may hold other characters that Python takes for line ends
            for line in path.read_text(encoding="utf-8").split("\n"):
                if line.strip():
                    entry = json.loads(line)
                    if not isinstance(entry, dict):
                        raise ValueError("no object")
                    found.append(entry)
                number += 1
        except (OSError, ValueError) as error:
            self.problems.append(f"{self.shown(path)}:{number} cannot be read ({error})")
        return found


def read_run(experiment: Experiment, root: Path) -> RunFiles:
    """What is there of a run; empty where it has no folder."""
    if not experiment.run_folder:
        return RunFiles(root=root, folder="", config=_mapping(experiment.config))
    reader = _Reader(root)
    folder = root / experiment.run_folder
    work = _training_folder(folder)
    saved = _mapping(reader.json(work / "config.json"))
    results_path = root / experiment.result_file if experiment.result_file else folder / "results.json"
    if results_path.suffix != ".json" or not results_path.is_file():
        results_path = folder / "results.json"
    checkpoint = work / "checkpoint.safetensors"
    rows = reader.json(work / "rows.json")
    return RunFiles(
        root=root,
        folder=reader.shown(folder),
        config=_mapping(saved.get("config")) or _mapping(experiment.config),
        config_path=reader.shown(work / "config.json") if saved else None,
        rows=[entry for entry in rows if isinstance(entry, dict)] if isinstance(rows, list) else [],
        rows_path=reader.shown(work / "rows.json"),
        log=reader.lines(work / "log.jsonl"),
        log_path=reader.shown(work / "log.jsonl"),
        summary=_mapping(reader.json(work / "train.json")),
        summary_path=reader.shown(work / "train.json"),
        results=_mapping(reader.json(results_path)),
        results_path=reader.shown(results_path),
        answered=_answered(reader, folder),
        checkpoint=reader.shown(checkpoint) if checkpoint.is_file() else None,
        last_write_s=_last_write(folder),
        unreadable=reader.problems,
    )


def _answered(reader: _Reader, folder: Path) -> list[Answered]:
    """Every prediction file; where they stayed on the cluster, the samples of them that came through git."""
    answered = []
    whole = sorted(folder.glob("predictions/*/*.jsonl"))
    for path in whole:
        try:
            header, records = read_predictions(path)
        except (ArtefactError, OSError) as error:
            reader.problems.append(" ".join(str(error).replace(str(path), reader.shown(path)).split()))
            continue
        if records:
            answered.append(Answered(reader.shown(path), dict(header), [dict(record) for record in records]))
    for path in [] if whole else sorted(folder.glob("samples/*/*.jsonl")):
        head, *rows = reader.lines(path) or [{}]
        if rows:
            answered.append(Answered(reader.shown(path), {**head, "n": len(rows)}, rows))
    return answered


def read_config(experiment: Experiment, root: Path) -> dict[str, Any]:
    """The config that a run saved, empty where it saved none."""
    if not experiment.run_folder:
        return {}
    folder = _training_folder(root / experiment.run_folder)
    return _mapping(_mapping(_Reader(root).json(folder / "config.json")).get("config"))


def read_log(attempt: Attempt | None, root: Path) -> LogText:
    """The end of an attempt's log, empty where there is none."""
    if attempt is None or not attempt.log:
        return LogText()
    path = root / attempt.log
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            start = max(0, size - LOG_TAIL_BYTES)
            file.seek(0)
            before = 0
            left = start
            while left > 0:
                block = file.read(min(left, 1 << 20))
                if not block:
                    break
                before += block.count(b"\n")
                left -= len(block)
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return LogText(path=attempt.log)
    return LogText(text, attempt.log, before + 1)


def _training_folder(folder: Path) -> Path:
    """Where log.jsonl is: in the run folder, or in the newest fitted method of a suite."""
    if (folder / "log.jsonl").is_file() or (folder / "config.json").is_file():
        return folder
    inner = sorted(folder.glob("work/*/*/log.jsonl"), key=lambda path: path.stat().st_mtime)
    bridges = [path for path in inner if path.parent.name.startswith("bridge")]
    return (bridges or inner)[-1].parent if inner else folder


def _last_write(folder: Path) -> float | None:
    times = [path.stat().st_mtime for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    return max(times, default=None)


def _line_with(root: Path, path: str, key: str) -> str:
    try:
        lines = (root / path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return path
    for number, line in enumerate(lines, start=1):
        if f'"{key}"' in line:
            return f"{path}:{number}"
    return path


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def flattened(tree: Any, path: str = "") -> dict[str, Any]:
    """``{"training.lr": 0.01, …}`` for every leaf of a nested mapping."""
    if not isinstance(tree, Mapping):
        return {path: tree}
    return {
        key: value for name, child in tree.items() for key, value in flattened(child, f"{path}.{name}" if path else name).items()
    }
