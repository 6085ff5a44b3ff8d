"""The registry: which experiments there are, who works on them, how their attempts ended.

Truth are the events (``events.py``), folded into states (``fold.py``). Who may work on what is settled by leases (``leases.py``).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentwire.errors import StaleClaimError, UnknownNameError
from latentwire.experiments.registry import events as kinds
from latentwire.experiments.registry.events import Event, Note, new_event, note_on_stderr, one_line, read_events, write_event
from latentwire.experiments.registry.fold import Folded, fold
from latentwire.experiments.registry.index import Entry, Index, folder_keys
from latentwire.experiments.registry.jobs import Jobs, job_id, job_restarts
from latentwire.experiments.registry.layout import Layout, check_name, is_name
from latentwire.experiments.registry.leases import Lease, Leases, process_identity, process_is_gone
from latentwire.experiments.registry.legacy import import_in_place
from latentwire.experiments.registry.model import Attempt, ErrorClass, Experiment, State
from latentwire.experiments.registry.outcome import finite, read_outcome, stamp
from latentwire.experiments.registry.view import is_view, view_content
from latentwire.files import write_bytes

#: how long an answer of the scheduler is believed
QUEUE_AGE_S = 10.0
#: exit code of commands whose output failed a check
CHECK_FAILED = 3


@dataclass(frozen=True)
class Claim:
    """The right to work on one attempt.

    ``fresh``: a mark or another config has superseded all attempts of this checkout; what they left must not be gone on with.
    """

    name: str
    generation: int
    owner: str
    lease_s: float
    fresh: bool = False


class Registry:
    """The experiments of one ``runs`` folder. Every method may be called by any number of processes at once."""

    def __init__(self, runs: Path = Path("runs"), *, note: Note = note_on_stderr) -> None:
        self.layout = Layout(runs)
        self.leases = Leases(self.layout)
        self.note = note
        self._index = Index(self.layout, self.leases, self._fold_known)
        self._memory: dict[str, tuple[str, Folded]] = {}
        self._jobs, self._jobs_asked_s = Jobs(), -QUEUE_AGE_S

    # ------------------------------------------------------------------------------------------------------- reading

    def experiments(self) -> dict[str, Experiment]:
        """Every experiment by name, sorted; the fold of all events."""
        return {name: folded.experiment for name, folded in self.folded().items()}

    def folded(self) -> dict[str, Folded]:
        """The same with what decides about them."""
        if not self.layout.registry.is_dir():
            return {}
        entries = {entry.name: entry for entry in self._index.entries()}
        keys = {name: key for name, key, _ in folder_keys(self.layout.registry)}
        found = {}
        for name in sorted(entries):
            key, folded = self._memory.get(name, ("", None))
            if folded is None or key != keys.get(name) or entries[name].key != key:
                # read after the key was taken: an event that comes in between changes the key
                folded = self._fold(name)
                self._memory[name] = (keys.get(name, ""), folded)
            found[name] = folded
        return found

    def experiment(self, name: str) -> Experiment:
        """One experiment. Raises ``UnknownNameError``."""
        folded = self._fold_known(name) if is_name(name) and (self.layout.registry / name).is_dir() else None
        if folded is None:
            raise UnknownNameError("experiment", name, (entry.name for entry in self.overview()))
        return folded.experiment

    def held_by(self, name: str) -> str | None:
        """Where an experiment runs now under a lease of this checkout, or None."""
        return self._held(check_name(name))

    def overview(self) -> list[Entry]:
        """Name, state and the line of the view of every experiment, sorted by name; quick also for many thousands."""
        return self._index.entries()

    def should_run(self, name: str, *, config_hash: str | None = None) -> tuple[bool, str]:
        """Whether a claim would be given now, and why in one line. A name that nobody knows may be run."""
        folded = self._fold(check_name(name))
        if config_hash and config_hash != folded.experiment.config_hash and folded.experiment.config_hash:
            open_now = self._held(name)
            return (False, open_now) if open_now else (True, "the config has changed since it was planned")
        return self._decide(name, folded)

    # ------------------------------------------------------------------------------------------------------- writing

    def plan(
        self,
        name: str,
        *,
        config: dict[str, Any],
        config_hash: str,
        command: Sequence[str],
        run_folder: str,
        result_file: str,
        expected_s: float | None = None,
    ) -> None:
        """Makes an experiment known. The same plan again changes nothing; another config sends it back to pending."""
        folded = self._fold(check_name(name))
        known = folded.experiment
        relative = self.layout.relative
        folder, result = (relative(path) if path else path for path in (run_folder, result_file))
        wanted = (config or None, config_hash, tuple(command), folder or None, result or None, expected_s)
        planned = (known.config or None, known.config_hash, known.command, known.run_folder, folded.plan.get("result_file"))
        if folded.plan_version and (*planned, known.expected_s) == wanted:
            return
        data = {
            "version": folded.plan_version + 1,
            "config": config or None,
            "config_hash": config_hash,
            "command": list(command),
            "run_folder": folder or None,
            "result_file": result or None,
            "expected_s": expected_s,
        }
        write_event(self.layout, name, new_event(kinds.PLAN, folded.highest_generation, data=data))

    def claim(
        self,
        name: str,
        *,
        lease_s: float,
        gpu: str | None = None,
        job_id: str | None = None,
        log: str | None = None,
        pid: int | None = None,
    ) -> Claim | None:
        """Takes the experiment for ``lease_s`` seconds from the last heartbeat, and records the start.

        ``pid``: of the process that works on it (default: this one; 0: not known); ``log``: where its output goes.
        Returns None where somebody else holds it, or it need not run.
        """
        self._settle(check_name(name))
        folded = self._fold(name)
        if not self._decide(name, folded)[0]:
            return None
        for generation in self.leases.open(name):
            # one that was not there at the first look may have come since, and is not over
            lease = self.leases.read(name, generation)
            if lease is not None and not self._is_over(name, generation, lease):
                return None
            if not self._end_as_lost(name, generation, "its lease was over"):
                return None
        folded = self._fold(name)
        generation = max(folded.highest_generation, *self.leases.generations(name), 0) + 1
        lease, start = self._lease(folded, lease_s=lease_s, gpu=gpu, job=job_id, log=log, pid=pid)
        if not self.leases.create(name, generation, lease):
            return None
        # Whatever came between the first look and the lease is seen now: events, by git, and leases of others who looked at another
        # moment and so made another generation. Of two that overlap, at least one sees the other and gives way.
        folded = self._fold(name)
        if folded.highest_generation >= generation or not self._decide(name, folded, mine=generation)[0]:
            self.leases.close(name, generation, by=lease.owner, event=None)
            return None
        start["config_hash"] = folded.experiment.config_hash or None
        write_event(self.layout, name, new_event(kinds.START, generation, owner=lease.owner, data=start))
        if self.leases.is_closed(name, generation):  # slower than its own lease
            return None
        return Claim(name, generation, lease.owner, lease_s, fresh=self._is_fresh(folded))

    def heartbeat(self, claim: Claim) -> None:
        """Says that the work goes on. Raises ``StaleClaimError`` where another has taken over."""
        self._check_mine(claim)
        if self.leases.is_closed(claim.name, claim.generation):
            raise self._stale(claim, "it has ended")
        try:
            self.leases.touch(claim.name, claim.generation)
        except FileNotFoundError:
            raise self._stale(claim, "its lease is gone") from None

    def complete(
        self, claim: Claim, *, result_file: str | None, metrics: Mapping[str, float] | None = None, exit_code: int = 0
    ) -> State:
        """Records the end of an attempt: completed where its result can be believed, else invalid with the reason.

        ``result_file`` is relative to the folder that holds ``runs``; None takes the planned one.
        Raises ``StaleClaimError`` where another has taken over.
        """
        lease = self._check_mine(claim)
        folded = self._fold(claim.name)
        recorded = result_file or folded.plan.get("result_file")
        recorded = self.layout.relative(recorded) if recorded else None
        outcome = read_outcome(self.layout.absolute(recorded) if recorded else None, before=lease.before if lease else None)
        problem = outcome.problem or _metric_problem(metrics or {})
        if exit_code == CHECK_FAILED and not outcome.metrics:
            problem = f"the command's own check failed (exit code 3); {problem}"
        elif exit_code == CHECK_FAILED:
            problem = problem or "the command's own check failed (exit code 3)"
        numbers = {key: float(value) for key, value in (metrics or outcome.metrics).items() if finite(value)}
        data = {
            "result_file": recorded,
            "result_sha256": outcome.sha256,
            "metrics": numbers or None,
            "exit_code": exit_code,
            "reason": problem,
        }
        return self._end(claim, kinds.INVALID if problem else kinds.COMPLETED, data)

    def fail(self, claim: Claim, *, error: str, error_class: ErrorClass, exit_code: int | None) -> State:
        """Records that an attempt failed, unless it has ended already; returns how it ended.

        Raises ``StaleClaimError`` where another has taken over.
        """
        self._check_mine(claim)
        data = {"error": one_line(error), "error_class": error_class.value, "exit_code": exit_code}
        return self._end(claim, kinds.FAILED, data)

    def preempt(self, claim: Claim, *, exit_code: int | None = 75) -> State:
        """Records that an attempt stopped early, unless it has ended already; the next claim goes on. Returns how it ended.

        Raises ``StaleClaimError`` where it was taken over.
        """
        self._check_mine(claim)
        return self._end(claim, kinds.PREEMPTED, {"exit_code": exit_code})

    def mark_rerun(self, name: str, *, reason: str) -> None:
        """Sends an experiment back to pending; its present attempts no longer count, also if one of them completes later.

        Raises ``UnknownNameError``.
        """
        if self.experiment(name).state is not State.PENDING:
            generation = self._fold(name).highest_generation
            write_event(self.layout, name, new_event(kinds.RERUN, generation, data={"reason": one_line(reason)}))

    def reap(self) -> list[str]:
        """Records attempts of this checkout as lost whose lease is over or whose job is gone. Returns their experiments."""
        return self._reap(self.overview())

    def _reap(self, entries: Sequence[Entry]) -> list[str]:
        names = []
        for entry in entries:
            if entry.is_open:
                self._settle(entry.name)
                folded = self._fold(entry.name)
                reasons = ((attempt, self._why_lost(entry.name, folded, attempt)) for attempt in folded.open_attempts)
                ended = [self._end_as_lost(entry.name, attempt.generation, why) for attempt, why in reasons if why]
                names += [entry.name] if any(ended) else []
        return names

    def rebuild_view(self) -> None:
        """Makes ``experiment_registry.json`` say what the events say. An old registry in its place is imported first."""
        self._write_view(self.overview)

    def refresh(self) -> list[Entry]:
        """``reap`` and ``rebuild_view`` in one pass; returns the overview. What every command does first."""
        return self._write_view(self._reaped)

    def _reaped(self) -> list[Entry]:
        entries = self.overview()
        if not any(entry.is_open for entry in entries):
            return entries
        self.leases.sweep()
        self._reap(entries)
        return self.overview()

    def _write_view(self, overview: Callable[[], list[Entry]]) -> list[Entry]:
        try:
            present: bytes | None = self.layout.view.read_bytes()
        except FileNotFoundError:
            present = None
        if present is not None and not is_view(present):
            import_in_place(self.layout, self.note, present.decode("utf-8", "replace"))
            present = None
        entries = overview()
        content = view_content([entry.line for entry in entries])
        if content != present and (entries or present is not None):
            write_bytes(self.layout.view, content)
        return entries

    # ------------------------------------------------------------------------------------------------------- details

    def _fold(self, name: str) -> Folded:
        return fold(name, read_events(self.layout.events(name), note=self.note), note=self.note)

    def _fold_known(self, name: str) -> Folded | None:
        """None for a folder without events, which git may leave behind."""
        events = read_events(self.layout.events(name), note=self.note)
        return fold(name, events, note=self.note) if events else None

    def _decide(self, name: str, folded: Folded, *, mine: int | None = None) -> tuple[bool, str]:
        """Whether the experiment may be claimed; ``mine`` is a lease of the asking process, not looked at."""
        held = self._held(name, but=mine)
        if held:
            return False, held
        experiment = folded.experiment
        if experiment.state is State.RUNNING and folded.deciding is not None:
            start = folded.starts.get(folded.deciding.owner, {})
            if start.get("place") != self.leases.place():
                return False, f"{experiment.reason} (another checkout's; mark it for re-run if that is over)"
            return True, "lost: its lease is over"
        if experiment.state in (State.COMPLETED, State.INVALID):
            hint = "" if experiment.state is State.COMPLETED else "invalid; mark it for re-run when that is mended: "
            return False, hint + experiment.reason
        from latentwire.experiments.registry.policy import (
            retry_reason,  # the rules of all failure classes take as long to load as the rest
        )

        return retry_reason(folded)

    def _held(self, name: str, *, but: int | None = None) -> str | None:
        """Who holds a lease of this checkout, or None where all are over or given back."""
        for generation in self.leases.open(name):
            lease = self.leases.read(name, generation) if generation != but else None
            if lease is not None and not self._is_over(name, generation, lease):
                return f"running on {lease.host}" + (f", job {lease.job_id}" if lease.job_id else "")
        return None

    def _is_over(self, name: str, generation: int, lease: Lease) -> bool:
        if not self.leases.over(name, generation, lease):
            return False
        at_work = self._queue().at_work(lease.job_id, lease.restarts)
        return not at_work or process_is_gone(lease.process)

    def _why_lost(self, name: str, folded: Folded, attempt: Attempt) -> str | None:
        """Why an attempt counts as lost, or None where it may live or belongs to another checkout."""
        if folded.starts.get(attempt.owner, {}).get("place") != self.leases.place():
            return None
        lease = self.leases.read(name, attempt.generation)
        if lease is None:
            return "its lease is gone"
        if self._queue().at_work(lease.job_id, lease.restarts) is False:
            return f"job {lease.job_id} is gone"
        return f"no heartbeat for {lease.lease_s:.0f} s" if self._is_over(name, attempt.generation, lease) else None

    def _queue(self) -> Jobs:
        if time.monotonic() - self._jobs_asked_s > QUEUE_AGE_S:
            self._jobs, self._jobs_asked_s = Jobs(), time.monotonic()
        return self._jobs

    def _lease(
        self, folded: Folded, *, lease_s: float, gpu: str | None, job: str | None, log: str | None, pid: int | None
    ) -> tuple[Lease, dict[str, Any]]:
        """The lease and what the start event says."""
        earlier = (attempt.result_file for attempt in reversed(folded.experiment.attempts) if attempt.result_file)
        result = folded.plan.get("result_file") or next(earlier, None)
        if self._is_fresh(folded):
            before = stamp(self.layout.absolute(result)) if result else None
        else:
            # what was there before the first attempt since the mark is no result of those that go on with it either
            began = (self.leases.read(folded.experiment.name, attempt.generation) for attempt in self._own(folded.standing, folded))
            before = next((lease.before for lease in began if lease is not None), None)
        job, host, owner = job or job_id(), os.uname().nodename, os.urandom(16).hex()
        pid = os.getpid() if pid is None else pid
        process = process_identity(pid) if pid else None
        lease = Lease(owner, float(lease_s), host, job, job_restarts() if job == job_id() else 0, process, before)
        log = self.layout.relative(log) if log else None
        return lease, {"host": host, "job_id": job, "gpu": gpu, "pid": pid or None, "log": log, "place": self.leases.place()}

    def _own(self, attempts: Sequence[Attempt], folded: Folded) -> list[Attempt]:
        """Those of this checkout."""
        return [attempt for attempt in attempts if folded.starts.get(attempt.owner, {}).get("place") == self.leases.place()]

    def _is_fresh(self, folded: Folded) -> bool:
        """Whether a mark or another config has superseded attempts, and none of this checkout has begun anew since."""
        return len(folded.standing) < len(folded.experiment.attempts) and not self._own(folded.standing, folded)

    def _check_mine(self, claim: Claim) -> Lease | None:
        lease = self.leases.read(claim.name, claim.generation)
        if lease is not None and lease.owner not in (claim.owner, ""):
            raise self._stale(claim, "it belongs to another owner")
        return lease

    def _end(self, claim: Claim, kind: str, data: Mapping[str, Any]) -> State:
        event = new_event(kind, claim.generation, owner=claim.owner, data=data)
        if not self.leases.close(claim.name, claim.generation, by=claim.owner, event=event):
            written = self.leases.closing_event(claim.name, claim.generation)
            if written is None or written.owner != claim.owner or written.kind == kinds.LOST:
                raise self._stale(claim, "its lease was over and somebody else has recorded it as lost")
            event = written  # this owner has ended it before, and may have died in between
        write_event(self.layout, claim.name, event)
        return State(event.kind)

    def _end_as_lost(self, name: str, generation: int, reason: str) -> bool:
        """Ends an attempt in the name of an owner that is gone. False where somebody was quicker."""
        lease = self.leases.read(name, generation)
        started = {event.owner: event for event in self._starts(name, generation)}
        owner = lease.owner if lease is not None and lease.owner in started else next(iter(started), None)
        event = new_event(kinds.LOST, generation, owner=owner, data={"reason": f"lost: {reason}"}) if owner else None
        if not self.leases.close(name, generation, by="reaper", event=event):
            return False
        if event is not None:
            write_event(self.layout, name, event)
        return True

    def _starts(self, name: str, generation: int) -> list[Event]:
        """Start events of this checkout's attempt."""
        events = read_events(self.layout.events(name), note=self.note)
        own = [event for event in events if event.kind == kinds.START and event.data.get("place") == self.leases.place()]
        return [event for event in own if event.generation == generation]

    def _settle(self, name: str) -> None:
        """Writes the events of attempts whose author ended them and died before the event was there."""
        folded = self._fold(name)
        for attempt in folded.open_attempts:
            if folded.starts.get(attempt.owner, {}).get("place") != self.leases.place():
                continue
            if self.leases.is_closed(name, attempt.generation):
                event = self.leases.closing_event(name, attempt.generation)
                if event is None or event.owner != attempt.owner:
                    # closed before its start was written; an id made from the owner lets many writers write one file
                    data = {"reason": "lost: its lease was over before its start was recorded"}
                    event = Event(kinds.LOST, attempt.generation, attempt.owner[:16], attempt.owner, kinds.utc_now(), data)
                write_event(self.layout, name, event)

    def _stale(self, claim: Claim, why: str) -> StaleClaimError:
        return StaleClaimError(f"experiment {claim.name}, attempt {claim.generation}: {why}; stop its work, nothing was recorded")


def _metric_problem(metrics: Mapping[str, float]) -> str | None:
    bad = [key for key, value in metrics.items() if not finite(value)]
    return f"the metric {bad[0]} is no finite number ({metrics[bad[0]]})" if bad else None
