"""``--validate``: what in the registry cannot be believed or needs somebody."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from latentwire.experiments.registry.layout import CORRUPT
from latentwire.experiments.registry.model import Experiment, State
from latentwire.experiments.registry.registry import Registry
from latentwire.files import file_digest


@dataclass(frozen=True)
class Problem:
    """One line for a person; ``experiment`` is empty where it concerns the registry itself."""

    experiment: str
    what: str

    def as_json(self) -> dict[str, str]:
        return asdict(self)


def validate(registry: Registry) -> list[Problem]:
    """Everything found: corrupt files, results that are gone or changed, runs that failed, were lost or are invalid."""
    experiments = registry.experiments()  # reading them sets aside what is damaged
    found = [_corrupt(path) for path in sorted(registry.layout.registry.rglob(f"*{CORRUPT}"))]
    for name, experiment in experiments.items():
        problem = _result_problem(registry, experiment) if experiment.state is State.COMPLETED else None
        if experiment.state in (State.FAILED, State.LOST, State.INVALID):
            reason = experiment.reason
            problem = reason if reason.startswith(experiment.state.value) else f"{experiment.state.value}: {reason}"
        if problem:
            found.append(Problem(name, problem))
    return found


def _corrupt(path: Path) -> Problem:
    return Problem(
        path.parent.name, f"the event {path.name} was cut or corrupt; --rebuild-registry takes it back from git where it can"
    )


def _result_problem(registry: Registry, experiment: Experiment) -> str | None:
    """Whether the result is still what was recorded."""
    completed = [attempt for attempt in experiment.attempts if attempt.state is State.COMPLETED]
    recorded = [attempt for attempt in completed if attempt.result_file == experiment.result_file and attempt.result_sha256]
    if not recorded or experiment.result_file is None:
        return "completed without a recorded result"
    path = registry.layout.absolute(experiment.result_file)
    if not path.is_file():
        return f"its result {experiment.result_file} is not in this checkout; fetch it with `git pull`, or mark it for re-run"
    if file_digest(path) not in {attempt.result_sha256 for attempt in recorded}:
        return f"its result {experiment.result_file} has changed since it was recorded"
    return None
