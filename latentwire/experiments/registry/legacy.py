"""Registries of the old format: one JSON ``{"experiments": {name: {"status": …}}}`` that every job rewrote. They are imported once:
what was recorded completed without a result that can be read becomes invalid, what was left running becomes lost.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentwire.errors import ArtefactError
from latentwire.experiments.registry.events import IMPORT, PLAN, Event, Note, one_line, read_events, write_event
from latentwire.experiments.registry.layout import CORRUPT, Layout, safe_name
from latentwire.experiments.registry.model import ErrorClass, State
from latentwire.experiments.registry.outcome import Outcome, finite, read_outcome
from latentwire.files import digest, write_json

#: our key → keys that old registries used for it
_SPELLINGS = {
    "status": ("status", "state"),
    "result_file": ("result_file", "results_file", "result_path", "results_path", "output_file"),
    "results": ("results", "result", "metrics"),
    "gpu": ("gpu", "gpu_id"),
    "started": ("start_time", "started", "started_at", "start"),
    "ended": ("end_time", "ended", "completed_at", "finished_at", "end"),
    "error": ("error", "error_message", "error_msg"),
    "exit_code": ("exit_code", "returncode", "return_code"),
    "job_id": ("job_id", "slurm_job_id"),
    "host": ("host", "hostname", "node"),
    "log": ("log", "log_file", "log_path"),
}
_STATES = {
    "completed": State.COMPLETED, "complete": State.COMPLETED, "done": State.COMPLETED, "success": State.COMPLETED,
    "succeeded": State.COMPLETED, "finished": State.COMPLETED, "failed": State.FAILED, "error": State.FAILED,
    "failure": State.FAILED, "running": State.LOST, "in_progress": State.LOST, "started": State.LOST,
    "preempted": State.PREEMPTED, "lost": State.LOST, "zombie": State.LOST, "invalid": State.INVALID,
    "pending": State.PENDING, "queued": State.PENDING, "not_started": State.PENDING,
}  # fmt: skip


def old_entries(content: Any) -> Mapping[str, Mapping[str, Any]] | None:
    """The experiments of an old registry, or None where the content is none."""
    entries = content.get("experiments", content) if isinstance(content, dict) else None
    if not isinstance(entries, dict):
        return None
    kept = {str(name): entry for name, entry in entries.items() if isinstance(entry, dict)}
    looks_old = all(any(key in entry for key in _SPELLINGS["status"]) for entry in kept.values())
    return kept if looks_old and (kept or content.get("experiments") == {}) else None


def import_file(layout: Layout, note: Note, path: Path) -> int:
    """Imports an old registry from a file, which stays as it is. Returns how many experiments it held.

    Raises:
        ArtefactError: the file is missing, cut, or no registry of the old format.
    """
    try:
        entries = old_entries(_loaded(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ArtefactError(f"registry {str(path)!r} does not exist") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise ArtefactError(f"registry {str(path)!r} is cut or corrupt ({error}); nothing was imported") from None
    if entries is None:
        raise ArtefactError(f'{str(path)!r} is no registry of the old format ({{"experiments": {{name: {{"status": …}}}}}})')
    for name, entry in entries.items():
        _import(layout, note, name, entry)
    return len(entries)


def import_in_place(layout: Layout, note: Note, text: str) -> None:
    """Imports the file that lies where the view belongs, and moves it aside; one that cannot be read is set aside and named."""
    view, target = layout.view, layout.legacy
    try:
        entries = old_entries(_loaded(text))
    except ValueError:
        entries = None
    if entries is None:
        target = view.with_name(view.name + CORRUPT)
        note(f"{str(view)!r} is neither a view nor a registry of the old format; set aside as {target.name}")
    for name, entry in (entries or {}).items():
        _import(layout, note, name, entry)
    if entries is not None:
        note(f"imported {len(entries)} experiments of the old format; the file is kept as {target.name}")
    number = 1
    while target.exists():
        number += 1
        target = target.with_name(f"{target.name}.{number}")
    try:
        os.replace(view, target)
    except FileNotFoundError:  # another process has imported it at the same time; the events are the same
        return


def _import(layout: Layout, note: Note, old_name: str, entry: Mapping[str, Any]) -> None:
    """One experiment. Owner and id are made from the content, so importing twice, or in two clones, gives one event."""
    name = safe_name(old_name)
    owner = f"imported-{digest(old_name, json.dumps(entry, sort_keys=True, default=str))[:16]}"
    events = read_events(layout.events(name), note=note)
    if any(event.owner.startswith("imported-") and event.data.get("imported_name", name) != old_name for event in events):
        name = f"{name}-{digest(old_name)[:8]}"  # two old names that have become alike
        events = read_events(layout.events(name), note=note)
    if any(event.owner == owner for event in events):
        return
    known, rest = _split(entry)
    state = _STATES.get(str(known.get("status", "")).lower().strip(), State.INVALID)
    data: dict[str, Any] = {"imported": rest or None, "imported_name": old_name if old_name != name else None}
    if state is not State.PENDING:
        data |= {key: known[key] for key in ("gpu", "started", "ended", "job_id", "host", "log") if known.get(key) is not None}
        data |= _judged(layout, name, state, known)
    kind, generation = (PLAN, 0) if state is State.PENDING else (IMPORT, 1)
    content = _kept(data)
    # two clones may judge differently, for only one has the result file; what they write is then two events
    identity = digest(owner, json.dumps(content, sort_keys=True))[:16]
    write_event(layout, name, Event(kind, generation, identity, owner, "", content))


def _kept(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in json.loads(json.dumps(data, default=str)).items() if value is not None}


def _split(entry: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What we have a place for, and the rest."""
    known: dict[str, Any] = {}
    used = set()
    for key, spellings in _SPELLINGS.items():
        for spelling in spellings:
            if entry.get(spelling) is not None and key not in known:
                known[key] = entry[spelling]
                used.add(spelling)
    return known, {key: value for key, value in entry.items() if key not in used}


def _judged(layout: Layout, name: str, state: State, known: Mapping[str, Any]) -> dict[str, Any]:
    """The state that can be believed, with its reason."""
    exit_code = known.get("exit_code")
    data: dict[str, Any] = {"state": state.value, "exit_code": exit_code if isinstance(exit_code, int) else None}
    if state is State.COMPLETED:
        path = _result_path(layout, name, known)
        outcome = read_outcome(path) if path else Outcome("it was recorded completed with empty results")
        data |= {
            "state": (State.INVALID if outcome.problem else State.COMPLETED).value,
            "result_file": layout.relative(path) if path else None,
            "result_sha256": outcome.sha256,
            "metrics": dict(outcome.metrics) or None,
            "reason": f"imported: {outcome.problem}" if outcome.problem else "imported",
        }
    elif state is State.FAILED:
        data |= {"error": one_line(known.get("error") or "no message was recorded"), "error_class": _class(known).value}
    elif state is State.LOST:
        data["reason"] = "lost: imported while recorded as running"
    else:
        data["reason"] = f"imported as {known.get('status', 'without a status')!s}"
    return data


def _result_path(layout: Layout, name: str, known: Mapping[str, Any]) -> Path | None:
    """The result file; results that stood in the registry itself get one."""
    named = known.get("result_file")
    if named is None and isinstance(known.get("results"), str):
        named = known["results"]
    if named:
        return layout.absolute(str(named))
    results = known.get("results")
    if not any(finite(value) for value in _values(results)):
        return None
    path = layout.runs / "imported" / name / "results.json"
    if not path.exists():
        write_json(path, results)
    return path


def _loaded(text: str) -> Any:
    """JSON as old registries wrote it: a number that is none (NaN, Infinity) becomes null, which JSON has."""
    content = json.loads(text, parse_constant=lambda word: None)
    return json.loads(json.dumps(content, ensure_ascii=False).encode("utf-8", "replace"))  # half characters become question marks


def _values(content: Any) -> list[Any]:
    if isinstance(content, dict):
        return [leaf for value in content.values() for leaf in _values(value)]
    if isinstance(content, list):
        return [leaf for value in content for leaf in _values(value)]
    return [content]


def _class(known: Mapping[str, Any]) -> ErrorClass:
    from latentwire.experiments.failures.classes import classify_message

    code = known.get("exit_code")
    return classify_message(str(known.get("error") or ""), code if isinstance(code, int) else None).error_class
