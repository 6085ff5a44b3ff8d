"""The command of an experiment as a process group of its own, so that it can be stopped with all that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from latentwire.processes import descendants, die_with_parent


class Child:
    """A running command with its output appended to ``log``. Leaving the block ends it if it still runs.

    On Linux it dies with the process that started it, even by SIGKILL: a lost worker must not leave a command behind that
    writes into a folder which another worker has taken over.
    """

    def __init__(self, command: Sequence[str], *, folder: Path, log: Path, environment: Mapping[str, str]) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log.open("ab")
        self._asked_at: float | None = None
        self._process = subprocess.Popen(
            list(command),
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent if sys.platform == "linux" else None,
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()
        self._log.close()

    @property
    def exit_code(self) -> int:
        """Of the ended command; minus the signal's number where a signal ended it."""
        return self._process.wait()

    def wait(self, seconds: float) -> bool:
        """Whether the command ended within ``seconds``."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, grace_s: float) -> None:
        """Asks the command to save and end, once; after ``grace_s`` it is killed. Returns at once; call it again to insist."""
        if self._asked_at is None:
            self._asked_at = time.monotonic()
            self._signal(signal.SIGTERM)
        elif time.monotonic() - self._asked_at > grace_s:
            self.kill()

    def kill(self) -> None:
        """Ends the command and everything it started, also what has a session of its own: torchrun's workers."""
        started = descendants(self._process.pid) if self._process.poll() is None else []
        self._signal(signal.SIGKILL)
        for pid in started:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: int) -> None:
        # the group may live on after its leader
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)
