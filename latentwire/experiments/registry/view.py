"""``runs/experiment_registry.json``: what people and ``git diff`` read, one line per experiment, sorted. Never read as truth."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from latentwire.experiments.registry.model import Attempt, Experiment

_FIRST_LINE = b'{"schema_version": 1, "about": "rebuilt from the events in runs/registry; edits are overwritten", "experiments": {'


def view_entry(experiment: Experiment, deciding: Attempt | None) -> dict[str, Any]:
    """What the view says of one experiment; what is not known is left out."""
    shown = deciding or experiment.last
    entry: dict[str, Any] = {
        "state": experiment.state.value,
        "reason": experiment.reason,
        "attempts": len(experiment.attempts),
        "config_hash": experiment.config_hash[:12] or None,
        "run_folder": experiment.run_folder,
        "result_file": experiment.result_file,
    }
    if shown is not None:
        entry |= {
            "generation": shown.generation,
            "host": shown.host or None,
            "job_id": shown.job_id,
            "gpu": shown.gpu,
            "started": shown.started,
            "ended": shown.ended,
            "exit_code": shown.exit_code,
            "log": shown.log,
            "error_class": shown.error_class.value if shown.error_class else None,
            "error": shown.error,
            "metrics": dict(sorted(shown.metrics.items())) or None,
        }
    return {key: value for key, value in entry.items() if value is not None}


def view_line(experiment: Experiment, deciding: Attempt | None) -> bytes:
    """``"name": {…}`` on one line, in UTF-8: of ten thousand lines nobody wants to decode more than those shown."""
    said = json.dumps(view_entry(experiment, deciding), ensure_ascii=False)
    return f"{json.dumps(experiment.name)}: {said}".encode("utf-8", "replace")


def entry_of(line: bytes) -> dict[str, Any]:
    """What a line of the view says."""
    entry: dict[str, Any] = next(iter(json.loads(b"{" + line + b"}").values()))
    return entry


def view_content(lines: Iterable[bytes]) -> bytes:
    """The whole view from its lines, sorted by name already."""
    body = b",\n".join(lines)
    return _FIRST_LINE + (b"\n" + body if body else b"") + b"\n}}\n"


def is_view(content: bytes) -> bool:
    """Whether a file was written as a view, even if it has been cut or merged since; others may be registries of the old format."""
    return content.startswith(_FIRST_LINE[:22])


def attempt_as_json(attempt: Attempt) -> Mapping[str, Any]:
    """An attempt for ``--json``; what is not known is left out."""
    fields = {
        **vars(attempt),
        "state": attempt.state.value,
        "error_class": attempt.error_class.value if attempt.error_class else None,
    }
    return {key: value for key, value in fields.items() if value not in (None, "", {})}


def experiment_as_json(experiment: Experiment) -> Mapping[str, Any]:
    """An experiment with its attempts for ``--json``."""
    fields = {
        **vars(experiment),
        "state": experiment.state.value,
        "command": list(experiment.command),
        "attempts": [attempt_as_json(attempt) for attempt in experiment.attempts],
    }
    return {key: value for key, value in fields.items() if value is not None}
