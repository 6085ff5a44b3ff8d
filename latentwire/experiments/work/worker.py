"""A worker: claims the next experiment, runs its command, records how it ended, until nothing is left to run.

The command runs in a process group of its own with its output in ``runs/logs/``; a thread keeps the lease alive. On SIGTERM
or SIGUSR2 the command is asked to save and end, the attempt is recorded as preempted, and the worker ends with 75.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from latentwire.errors import LatentWireError, StaleClaimError, StoppedEarlyError
from latentwire.experiments.failures.classes import ACTIONS, FOLLOWS, Action, Verdict, classify, systemic_stop
from latentwire.experiments.registry.events import utc_now
from latentwire.experiments.registry.model import ErrorClass, Experiment, State
from latentwire.experiments.registry.registry import Claim, Registry
from latentwire.experiments.work.child import Child
from latentwire.experiments.work.workspace import log_tail, set_aside

Say = Callable[[str], None]
INVALID_EXIT_CODE = 3
TAKEN_OVER = "taken over"
MOST_STOPS_UNASKED = 3
#: into how many more parts the batch of an experiment is cut after each attempt that ran out of memory
OOM_PARTS = 2


@dataclass(frozen=True)
class WorkerSettings:
    """How a worker works.

    Args:
        gpu: what ``CUDA_VISIBLE_DEVICES`` is set to, for example ``0`` or ``0,1``; None leaves it as it is.
        most: experiments to run at most.
        suite: only those of this suite; None takes all that the registry holds.
        lease_s: how long a claim lives without a heartbeat.
        grace_s: how long a command may take to save and end.
        timeout_s: a command that runs longer is ended and has failed.
        poll_s: how often the command and the registry are looked at.
    """

    gpu: str | None = None
    most: int | None = None
    suite: str | None = None
    lease_s: float = 300.0
    grace_s: float = 90.0
    timeout_s: float | None = None
    poll_s: float = 0.2


@dataclass
class Summary:
    """What one worker did: how often each state came out, and why it ended."""

    counts: Counter[str] = field(default_factory=Counter)
    stopped_by: int | None = None

    def as_dict(self) -> dict[str, Any]:
        return {"counts": dict(self.counts), "stopped_by": self.stopped_by}

    def __str__(self) -> str:
        done = ", ".join(f"{count} {state}" for state, count in sorted(self.counts.items()))
        return f"this worker: {done or 'nothing to run'}"


class Worker:
    """Runs experiments of ``registry`` one after the other in ``root``, the folder that holds ``runs/``."""

    def __init__(self, registry: Registry, settings: WorkerSettings, *, root: Path, say: Say = lambda line: None) -> None:
        self.registry, self.settings, self.root, self.say = registry, settings, root, say
        self.summary = Summary()
        self.started = utc_now()
        #: how often each did not end well here: others go first
        self._set_back: Counter[str] = Counter()
        #: how often each ended with 75 though nobody asked it to: not for ever
        self._stopped_itself: Counter[str] = Counter()

    def run(self) -> Summary:
        """Works until nothing is left.

        Raises:
            StoppedEarlyError: a signal asked to stop; what ran was saved and recorded as preempted. KeyboardInterrupt: Ctrl-C.
            LatentWireError: the same systemic failure came twice, so the rest was left alone.
        """
        with _signals(self) as stopping:
            left_s = self.settings.lease_s * 1.2
            while not stopping() and self._may_go_on():
                self._stop_on_systemic_failure()
                self._reap()
                if self._run_next(stopping):
                    left_s = self.settings.lease_s * 1.2
                elif left_s > 0 and self._others_running():
                    # a holder that lives sends heartbeats; one that does not is found within its lease
                    pause_s = min(left_s, max(self.settings.poll_s, self.settings.lease_s / 20))
                    _sleep(pause_s, stopping)
                    left_s -= pause_s
                else:
                    break
        self.registry.rebuild_view()
        if self.summary.stopped_by == signal.SIGINT:
            self.say(str(self.summary))
            raise KeyboardInterrupt
        if self.summary.stopped_by is not None:
            raise StoppedEarlyError(f"{self.summary}; stopped by a signal, all is saved; start the worker again to go on")
        return self.summary

    def needing_somebody(self) -> list[str]:
        """Names of this worker's suite that failed, were lost or are invalid, and are not tried again by themselves."""
        bad = (State.FAILED, State.LOST, State.INVALID)
        return [name for name, item in self.mine().items() if item.state in bad and not self.registry.should_run(name)[0]]

    # ----------------------------------------------------------------------------------------------- which comes next

    def _may_go_on(self) -> bool:
        return self.settings.most is None or sum(self.summary.counts.values()) < self.settings.most

    def mine(self) -> dict[str, Experiment]:
        """The experiments that this worker may run, or could have run."""
        return {name: item for name, item in self.registry.experiments().items() if self._belongs(item)}

    def _belongs(self, item: Experiment) -> bool:
        about = (item.config or {}).get("experiment", {})
        return bool(item.command) and (self.settings.suite is None or about.get("suite") == self.settings.suite)

    def _next(self) -> list[Experiment]:
        """What could be run now, in the order to try: those that this worker has not seen fail first, then the longest."""
        found = self.mine()
        states = {name: item.state for name, item in found.items()}
        ready = [
            item
            for item in found.values()
            if item.state is not State.RUNNING
            and all(states.get(need, State.COMPLETED) is State.COMPLETED for need in _needs(item))
            and self._stopped_itself[item.name] < MOST_STOPS_UNASKED
            and self.registry.should_run(item.name, config_hash=item.config_hash)[0]
        ]
        return sorted(ready, key=lambda item: (self._set_back[item.name], -(item.expected_s or 0.0), item.name))

    def _others_running(self) -> bool:
        return any(item.state is State.RUNNING for item in self.mine().values())

    def _reap(self) -> None:
        for name in self.registry.reap():
            self.say(f"{name}: its holder is gone; it can be run again")

    def _stop_on_systemic_failure(self) -> None:
        """Counts what failed since this worker started, whichever worker it was: the place is the same for all of them."""
        attempts = [attempt for item in self.mine().values() for attempt in item.attempts if attempt.state is State.FAILED]
        stop = systemic_stop(attempts, since=self.started)
        if stop is not None:
            self.registry.rebuild_view()
            raise LatentWireError(f"{stop}; {self.summary}")

    # -------------------------------------------------------------------------------------------------- one experiment

    def _run_next(self, stopping: Callable[[], bool]) -> bool:
        for item in self._next():
            generation = item.attempts[-1].generation + 1 if item.attempts else 1
            # other workers and clusters may try the same at the same time: a part of its own keeps their logs apart
            log = self.registry.layout.log(item.name, generation, uuid4().hex)
            claim = self.registry.claim(item.name, lease_s=self.settings.lease_s, gpu=self.settings.gpu, log=str(log))
            if claim is None:
                continue
            self.say(f"{item.name}: start, attempt {claim.generation}")
            try:
                state = self._attempt(item, claim, log, stopping)
            except StaleClaimError as error:
                self._set_back[item.name] += 1
                self.say(str(error))
                state = TAKEN_OVER
            self.summary.counts[state] += 1
            self.say(f"{item.name}: {state}")
            return True
        return False

    def _attempt(self, item: Experiment, claim: Claim, log: Path, stopping: Callable[[], bool]) -> str:
        """Runs one attempt and records it. Raises ``StaleClaimError`` where another has taken over."""
        try:
            if claim.fresh and item.run_folder and (moved := set_aside(item.run_folder, self.root)):
                self.say(f"{item.name}: starts from nothing; what was there is in {moved.relative_to(self.root)}")
            with (
                _Heartbeat(self.registry, claim) as heart,
                Child(self._command(item), folder=self.root, log=log, environment=self._environment(item)) as child,
            ):
                timed_out = self._wait(child, heart, stopping)
                code = child.exit_code
        except OSError as error:
            return self._fail(item, claim, classify(exit_code=None, exception=error), None)
        if heart.stale is not None:
            raise heart.stale
        return self._record(item, claim, code, log, timed_out=timed_out, stopping=stopping)

    def _wait(self, child: Child, heart: _Heartbeat, stopping: Callable[[], bool]) -> bool:
        """Until the command has ended, for whatever reason; True where it took too long."""
        limit_s, began, timed_out = self.settings.timeout_s, time.monotonic(), False
        while not child.wait(self.settings.poll_s):
            if heart.stale is not None:
                child.kill()
            elif stopping():
                child.stop(self.settings.grace_s)
            elif timed_out or (limit_s is not None and time.monotonic() - began > limit_s):
                timed_out = True
                child.stop(self.settings.grace_s)
        return timed_out

    def _record(
        self, item: Experiment, claim: Claim, code: int, log: Path, *, timed_out: bool, stopping: Callable[[], bool]
    ) -> str:
        if timed_out:
            limit = f"stopped after {self.settings.timeout_s:.0f} s"
            return self._fail(item, claim, Verdict(ErrorClass.TIMEOUT, limit, None), code)
        if code in (0, INVALID_EXIT_CODE):
            return self.registry.complete(claim, result_file=item.result_file, exit_code=code).value
        verdict = classify(exit_code=code, log_text=log_tail(log))
        if verdict.error_class is ErrorClass.PREEMPTED:
            # Slurm signals every process of a job, one after the other: the command may end before this process hears of it
            _sleep(1.0, stopping)
        if stopping() or verdict.error_class is ErrorClass.PREEMPTED:
            self._set_back[item.name] += 1
            self._stopped_itself[item.name] += not stopping()
            self.registry.preempt(claim, exit_code=code)
            return State.PREEMPTED.value
        return self._fail(item, claim, verdict, code)

    def _fail(self, item: Experiment, claim: Claim, verdict: Verdict, code: int | None) -> str:
        self._set_back[item.name] += 1
        where = f" at {verdict.where}" if verdict.where else ""
        self.say(f"{item.name}: {verdict.error_class.value}: {verdict.message}{where}; {ACTIONS[verdict.error_class]}")
        self.registry.fail(claim, error=f"{verdict.message}{where}", error_class=verdict.error_class, exit_code=code)
        return State.FAILED.value

    # --------------------------------------------------------------------------------------------------- how it is run

    def _command(self, item: Experiment) -> list[str]:
        """The command with this interpreter, whatever PATH says; training goes over all GPUs where there are several."""
        program, *arguments = item.command
        gpus = len(self.settings.gpu.split(",")) if self.settings.gpu else 1
        if program == "latentwire":
            launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(gpus)]
            return [
                sys.executable,
                *(launch if gpus > 1 and arguments[:1] == ["train"] else ()),
                "-m",
                "latentwire.cli.app",
                *arguments,
            ]
        return [sys.executable if program == "python" else program, *arguments]

    def _environment(self, item: Experiment) -> dict[str, str]:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        threads = (item.config or {}).get("experiment", {}).get("threads")
        if threads is not None:
            environment |= {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        if self.settings.gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self.settings.gpu
        # those before a mark or another config do not count: the cause may be mended
        standing = self.registry.folded()[item.name].standing
        failed = [attempt.error_class for attempt in standing if attempt.error_class is not None]
        halvings = sum(FOLLOWS[error_class] is Action.SMALLER_BATCH for error_class in failed)
        if halvings:
            # the same batch in more parts: less memory, the same gradient, so the result is still that of the config
            environment["LATENTWIRE_BATCH_PARTS"] = str(OOM_PARTS**halvings)
        return environment


class _Heartbeat:
    """A thread that keeps a claim alive; ``stale`` is set once another has taken over."""

    def __init__(self, registry: Registry, claim: Claim) -> None:
        self.registry, self.claim, self.pause_s = registry, claim, max(0.05, claim.lease_s / 5)
        self.stale: StaleClaimError | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> _Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._end.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._end.wait(self.pause_s):
            try:
                self.registry.heartbeat(self.claim)
            except StaleClaimError as error:
                self.stale = error
                return
            except (OSError, LatentWireError):
                continue  # a file server that hiccups; the lease outlives some missed beats


class _signals:  # noqa: N801
    """Inside the block SIGTERM, SIGUSR2 and Ctrl-C set a flag; the block's value asks whether one came."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def __enter__(self) -> Callable[[], bool]:
        def handle(number: int, frame: Any) -> None:
            self.worker.summary.stopped_by = number

        self.before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)}
        return lambda: self.worker.summary.stopped_by is not None

    def __exit__(self, *args: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


def _needs(item: Experiment) -> Sequence[str]:
    needs: Sequence[str] = (item.config or {}).get("experiment", {}).get("needs", ())
    return needs


def _sleep(seconds: float, stopping: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while not stopping() and time.monotonic() < end:
        time.sleep(min(0.1, seconds))
