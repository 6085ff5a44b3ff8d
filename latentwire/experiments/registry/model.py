"""What the registry knows: experiments, their attempts and their states.

Standard library only, like all of the registry: it must run on a login node without the environment (Python 3.9 or later).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Optional


class State(str, Enum):
    """Where an experiment, or one attempt at it, stands."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    PREEMPTED = "preempted"
    LOST = "lost"
    INVALID = "invalid"


class ErrorClass(str, Enum):
    """Why an attempt ended badly; ``latentwire.experiments.failures.classes`` finds it and says what follows."""

    OOM = "oom"
    NAN = "nan"
    IMPORT = "import"
    TIMEOUT = "timeout"
    PREEMPTED = "preempted"
    DISK_QUOTA = "disk_quota"
    PERMISSION = "permission"
    DEVICE_MISMATCH = "device_mismatch"
    DTYPE_MISMATCH = "dtype_mismatch"
    SHAPE = "shape"
    DATA = "data"
    CONFIG = "config"
    HUB_ACCESS = "hub_access"
    NETWORK = "network"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Attempt:
    """One try at an experiment. Times are ISO 8601 in UTC; paths are relative to the folder that holds ``runs/``.

    ``owner`` is the unguessable id that the claim gave out. Two clusters may make the same ``generation``; both are kept.
    """

    generation: int
    owner: str
    state: State
    host: str = ""
    job_id: Optional[str] = None
    gpu: Optional[str] = None
    pid: Optional[int] = None
    started: Optional[str] = None
    ended: Optional[str] = None
    exit_code: Optional[int] = None
    log: Optional[str] = None
    result_file: Optional[str] = None
    result_sha256: Optional[str] = None
    metrics: dict[str, float] = field(default_factory=dict)
    error_class: Optional[ErrorClass] = None
    error: Optional[str] = None


@dataclass(frozen=True)
class Experiment:
    """A named run in the registry, as folded from its events.

    ``state`` is that of the newest attempt unless a later mark sent it back to pending; ``reason`` says why in one line.
    ``config_hash`` is the identity of the resolved config; ``command`` what a worker runs; ``run_folder`` where its own
    files are (config.json, log.jsonl, train.json, results.json, predictions/).
    """

    name: str
    state: State
    reason: str
    config_hash: str = ""
    config: Optional[dict[str, Any]] = None
    command: tuple[str, ...] = ()
    run_folder: Optional[str] = None
    result_file: Optional[str] = None
    expected_s: Optional[float] = None
    attempts: tuple[Attempt, ...] = ()

    @property
    def last(self) -> Optional[Attempt]:
        """The newest attempt, or None."""
        return self.attempts[-1] if self.attempts else None
