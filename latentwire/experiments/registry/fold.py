"""From events to state. The same set of events gives the same state in whatever order it arrived; clocks play no part.

- An attempt is a generation and an owner; two clusters may make the same generation, and both attempts are kept.
- A mark of re-run, or a plan with another config, supersedes the attempts of its generation and below, known to it or not.
- An attempt with another config than the plan's does not stand either.
- Of the attempts that stand, a completed one decides; else the newest generation; within one generation running before others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from latentwire.experiments.registry.events import (
    COMPLETED,
    ENDINGS,
    IMPORT,
    INVALID,
    LOST,
    PLAN,
    PREEMPTED,
    RERUN,
    START,
    Event,
    Note,
    note_on_stderr,
)
from latentwire.experiments.registry.model import Attempt, ErrorClass, Experiment, State

_KNOWN = frozenset((PLAN, START, RERUN, IMPORT, *ENDINGS))
#: later decides; within one generation, and where (after a copied runs folder) one attempt has two endings
_RANK = {kind: rank for rank, kind in enumerate(("pending", "lost", "preempted", "failed", "invalid", "running", "completed"))}
_TEXTS = ("host", "job_id", "gpu", "log", "result_file", "result_sha256", "error")


@dataclass(frozen=True)
class Folded:
    """An experiment with what the registry needs to decide about it."""

    experiment: Experiment
    #: attempts that no mark, newer plan or other config has superseded, oldest first
    standing: tuple[Attempt, ...] = ()
    #: the standing attempt that decides the state
    deciding: Attempt | None = None
    #: of any event
    highest_generation: int = 0
    plan_version: int = 0
    #: data of the plan in force
    plan: Mapping[str, Any] = field(default_factory=dict)
    #: owner → data of its start event
    starts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def open_attempts(self) -> list[Attempt]:
        """All that have started and not ended, superseded ones too."""
        return [attempt for attempt in self.experiment.attempts if attempt.state is State.RUNNING]


@dataclass(frozen=True)
class _Plan:
    data: Mapping[str, Any]
    version: int
    #: attempts up to this generation were made for another config
    barrier: int


def fold(name: str, events: Iterable[Event], *, note: Note = note_on_stderr) -> Folded:
    """The state that these events add up to. Unknown kinds are named and otherwise ignored."""
    unique = {event.file_name: event for event in events}
    ordered = [unique[key] for key in sorted(unique)]
    for kind in sorted({event.kind for event in ordered} - _KNOWN):
        note(f"experiment {name}: events of the unknown kind {kind!r} are kept and ignored; a newer version may know them")
    plan = _plan([event for event in ordered if event.kind == PLAN])
    mark = max((event for event in ordered if event.kind == RERUN), key=lambda event: (event.generation, event.id), default=None)
    starts = {event.owner: event.data for event in ordered if event.kind == START}
    attempts = _attempts(ordered)
    barrier = max(plan.barrier, -1 if mark is None else mark.generation)
    standing = tuple(attempt for attempt in attempts if _stands(attempt, barrier, plan, starts))
    deciding = _deciding(standing)
    data = plan.data
    experiment = Experiment(
        name=name,
        state=State.PENDING if deciding is None else deciding.state,
        reason=_pending(attempts, plan, mark) if deciding is None else _reason(deciding, _endings(ordered)),
        config_hash=str(data.get("config_hash", "")),
        config=data.get("config") if isinstance(data.get("config"), dict) else None,
        command=tuple(str(part) for part in data.get("command", ())),
        run_folder=data.get("run_folder"),
        result_file=(deciding.result_file if deciding is not None else None) or data.get("result_file"),
        expected_s=data.get("expected_s"),
        attempts=attempts,
    )
    highest = max((event.generation for event in ordered), default=0)
    return Folded(experiment, standing, deciding, highest, plan.version, data, starts)


def _plan(events: Sequence[Event]) -> _Plan:
    """Plans carry a version, so the newest is known without a clock; of two with one version the ids decide, everywhere alike."""
    effective: dict[str, Any] = {}
    barrier, version = -1, 0
    for event in sorted(events, key=lambda event: (_version(event), event.id)):
        if effective.get("config_hash", "") != event.data.get("config_hash", ""):
            barrier = max(barrier, event.generation)
        effective, version = dict(event.data), _version(event)
    return _Plan(effective, version, barrier)


def _version(event: Event) -> int:
    version = event.data.get("version", 0)
    return version if isinstance(version, int) else 0


def _attempts(events: Sequence[Event]) -> tuple[Attempt, ...]:
    groups: dict[tuple[int, str], list[Event]] = {}
    for event in events:
        if event.kind in (START, IMPORT) or event.kind in ENDINGS:
            groups.setdefault((event.generation, event.owner), []).append(event)
    attempts = [_attempt(generation, owner, group) for (generation, owner), group in groups.items()]
    return tuple(sorted(attempts, key=lambda attempt: (attempt.generation, _RANK[attempt.state.value], attempt.owner)))


def _attempt(generation: int, owner: str, events: Sequence[Event]) -> Attempt:
    """One attempt; what its ending says goes over what its start said."""
    imported = next((event for event in events if event.kind == IMPORT), None)
    if imported is not None:
        known = imported.data.get("state") in {state.value for state in State}
        state = State(imported.data["state"]) if known else State.INVALID
        return _build(generation, owner, state, imported.data, None, None)
    start = next((event for event in events if event.kind == START), None)
    ends = sorted((event for event in events if event.kind in ENDINGS), key=lambda event: (_RANK[event.kind], event.id))
    end = ends[-1] if ends else None
    data = {**(start.data if start else {}), **(end.data if end else {})}
    state = State(end.kind) if end else State.RUNNING
    return _build(generation, owner, state, data, start.time if start else None, end.time if end else None)


def _build(generation: int, owner: str, state: State, data: Mapping[str, Any], started: str | None, ended: str | None) -> Attempt:
    texts = {key: None if data.get(key) is None else str(data[key]) for key in _TEXTS}
    metrics = data.get("metrics")
    numbers = metrics.items() if isinstance(metrics, dict) else ()
    return Attempt(
        generation=generation,
        owner=owner,
        state=state,
        host=texts.pop("host") or "",
        pid=_integer(data.get("pid")),
        started=started or data.get("started"),
        ended=ended or data.get("ended"),
        exit_code=_integer(data.get("exit_code")),
        metrics={str(key): float(value) for key, value in numbers if isinstance(value, (int, float))},
        error_class=_error_class(data.get("error_class")),
        **texts,
    )


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _error_class(value: object) -> ErrorClass | None:
    """A class that only a newer version knows counts as unknown."""
    if value is None:
        return None
    try:
        return ErrorClass(value)
    except ValueError:
        return ErrorClass.UNKNOWN


def _stands(attempt: Attempt, barrier: int, plan: _Plan, starts: Mapping[str, Mapping[str, Any]]) -> bool:
    made_with = starts.get(attempt.owner, {}).get("config_hash") or ""
    planned = plan.data.get("config_hash", "")
    return attempt.generation > barrier and (not made_with or not planned or made_with == planned)


def _deciding(standing: Sequence[Attempt]) -> Attempt | None:
    completed = [attempt for attempt in standing if attempt.state is State.COMPLETED]
    found = completed or list(standing)
    return found[-1] if found else None


def _endings(events: Sequence[Event]) -> dict[tuple[int, str], str]:
    """Why an attempt ended as it did, in its own words."""
    kinds = (INVALID, LOST, PREEMPTED, COMPLETED, IMPORT)
    return {(event.generation, event.owner): str(event.data.get("reason") or "") for event in events if event.kind in kinds}


def _pending(attempts: Sequence[Attempt], plan: _Plan, mark: Event | None) -> str:
    if not attempts:
        return "never run"
    if mark is not None and mark.generation >= plan.barrier:
        return f"marked for re-run: {mark.data.get('reason') or 'no reason given'}"
    return "planned with another config than it was run with"


def _reason(attempt: Attempt, endings: Mapping[tuple[int, str], str]) -> str:
    where = attempt.host + (f", job {attempt.job_id}" if attempt.job_id else "") + (f", GPU {attempt.gpu}" if attempt.gpu else "")
    said = endings.get((attempt.generation, attempt.owner), "")
    if attempt.state is State.RUNNING:
        return f"running on {where} since {attempt.started}"
    if attempt.state is State.COMPLETED:
        return f"completed by attempt {attempt.generation}" + (f" on {where}" if where else "")
    if attempt.state is State.FAILED:
        return f"{(attempt.error_class or ErrorClass.UNKNOWN).value}: {attempt.error or 'no message'}"
    if attempt.state is State.PREEMPTED:
        return f"stopped early on {where}; the next claim goes on"
    return said or attempt.state.value
