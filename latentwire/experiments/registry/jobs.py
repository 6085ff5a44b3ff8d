"""What the scheduler knows about jobs, where there is one: ``squeue`` is asked, and its silence changes nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping

SQUEUE_TIMEOUT_S = 20
#: states in which the processes of a job may still be at work
_AT_WORK = frozenset(("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT"))


def job_id() -> str | None:
    """The Slurm job this process belongs to; a task of an array has its own."""
    return os.environ.get("SLURM_JOB_ID") or None


def job_restarts() -> int:
    """How often this job was requeued: its number stays the same, but what ran before is gone."""
    count = os.environ.get("SLURM_RESTART_COUNT", "")
    return int(count) if count.isdigit() else 0


class Jobs:
    """The jobs in the queue, asked for once."""

    def __init__(self) -> None:
        self._asked = False
        self._found: Mapping[str, tuple[str, int]] | None = None

    def at_work(self, job: str | None, restarts: int) -> bool | None:
        """Whether this life of the job still runs; None where nobody can tell."""
        if not job:
            return None
        if not self._asked:
            self._asked, self._found = True, _queue()
        if self._found is None:
            return None
        state, count = self._found.get(job, ("", -1))
        return state in _AT_WORK and count == restarts


def _queue() -> Mapping[str, tuple[str, int]] | None:
    """Job id → state, number of requeues; None where there is no queue or it does not answer."""
    import shutil
    import subprocess  # both only where there is something to ask about: a status does not wait for them

    if shutil.which("squeue") is None:
        return None
    command = ["squeue", "--noheader", "--Format=JobID:40,State:40,RestartCnt:20"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SQUEUE_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    rows = [line.split() for line in done.stdout.splitlines()]
    return {row[0]: (row[1], int(row[2])) for row in rows if len(row) == 3 and row[2].isdigit()}
