"""What goes to the laptop besides results: the beginning and end of logs, and some predictions of every file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from itertools import count
from pathlib import Path

from latentwire.experiments.registry.layout import Layout
from latentwire.experiments.registry.model import Experiment, State
from latentwire.experiments.registry.outcome import PREDICTIONS_FOLDER
from latentwire.files import replacing, write_bytes, write_text

LOG_HEAD_BYTES, LOG_TAIL_BYTES = 64 * 1024, 192 * 1024
SAMPLE_ROWS, SAMPLE_BYTES = 100, 256 * 1024
SAMPLES_FOLDER = "samples"


def collect(layout: Layout, experiments: Iterable[Experiment]) -> None:
    """Cuts the logs of ended attempts and samples the predictions of their runs. Running ones are left alone."""
    for experiment in experiments:
        for attempt in experiment.attempts:
            if attempt.log and attempt.state is not State.RUNNING:
                cap_log(layout, layout.absolute(attempt.log))
        if experiment.run_folder:
            sample_predictions(layout.absolute(experiment.run_folder))


def cap_log(layout: Layout, path: Path) -> None:
    """A log that is too long for git keeps its ends; the whole of it moves to ``runs/.logs``, which git ignores."""
    most = LOG_HEAD_BYTES + LOG_TAIL_BYTES
    if path.parent != layout.logs or not path.is_file() or path.stat().st_size <= most + 400:
        return
    with path.open("rb") as file:
        head = file.read(LOG_HEAD_BYTES)
        left_out = file.seek(0, os.SEEK_END) - most
        file.seek(-LOG_TAIL_BYTES, os.SEEK_END)
        tail = file.read()
    # a log that was cut before and went on growing leaves what it was cut from where it is
    tries = (layout.whole_logs / (f"{path.name}.{number}" if number else path.name) for number in count())
    whole = next(candidate for candidate in tries if not candidate.exists())
    with replacing(whole) as temporary:
        shutil.copyfile(path, temporary)
    middle = f"\n… {left_out:,} bytes left out; the whole log is in {layout.relative(whole)} where it was written …\n"
    write_bytes(path, head + middle.encode() + tail)


def sample_predictions(run_folder: Path) -> None:
    """``predictions/<task>/<file>`` → ``samples/<task>/<file>``: the header, which keeps its ``n``, and the first rows."""
    source = run_folder / PREDICTIONS_FOLDER
    for path in sorted(source.rglob("*.jsonl")) if source.is_dir() else []:
        target = run_folder / SAMPLES_FOLDER / path.relative_to(source)
        text = _sample(path)
        if not target.is_file() or target.read_text(encoding="utf-8", errors="replace") != text:
            write_text(target, text)


def _sample(path: Path) -> str:
    lines: list[str] = []
    size = 0
    with path.open(encoding="utf-8", errors="replace") as file:
        header = file.readline()
        for line in file:
            size += len(line)
            if len(lines) >= SAMPLE_ROWS or size > SAMPLE_BYTES:
                break
            lines.append(line)
    try:
        header = json.dumps({**json.loads(header), "sample": len(lines)}, ensure_ascii=False) + "\n"
    except (ValueError, TypeError):
        header = header if header.endswith("\n") else header + "\n"
    return header + "".join(lines)
