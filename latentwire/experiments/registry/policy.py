"""Whether an experiment that ended badly is tried again by itself."""

from __future__ import annotations

from latentwire.experiments.failures.classes import RETRIES
from latentwire.experiments.registry.fold import Folded
from latentwire.experiments.registry.model import ErrorClass, State

#: an experiment that kills its worker each time must not take the whole queue with it
MOST_LOST = 10


def retry_reason(folded: Folded) -> tuple[bool, str]:
    """Whether a pending, failed, preempted or lost experiment may be claimed, and why. Only standing attempts count."""
    experiment = folded.experiment
    if experiment.state is State.FAILED and folded.deciding is not None:
        return _after_failure(folded, folded.deciding.error_class or ErrorClass.UNKNOWN)
    if experiment.state is State.LOST:
        lost = sum(attempt.state is State.LOST for attempt in folded.standing)
        if lost >= MOST_LOST:
            return False, f"lost {lost} times; see --diagnose, then mark it for re-run"
    return True, experiment.reason


def _after_failure(folded: Folded, error_class: ErrorClass) -> tuple[bool, str]:
    failed = [attempt for attempt in folded.standing if attempt.state is State.FAILED]
    failures = sum((attempt.error_class or ErrorClass.UNKNOWN) is error_class for attempt in failed)
    most = RETRIES[error_class]
    if failures <= most:
        return True, f"retry {failures} of {most} after {folded.experiment.reason}"
    return False, f"failed, {folded.experiment.reason}; mark it for re-run when that is mended"
