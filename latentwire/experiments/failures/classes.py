"""Why an attempt failed, and what follows.

``classify`` reads whatever is known of the end of a process: exception, signal, exit code, log. The last error wins; a line of
the scheduler or the kernel explains a kill better than the number of the signal. Standard library only, Python 3.9.

>>> classify(exit_code=1, log_text="ModuleNotFoundError: No module named 'peft'").error_class
<ErrorClass.IMPORT: 'import'>
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from enum import Enum

from latentwire.experiments.failures.reading import PREEMPTED_EXIT_CODE, Verdict, last_error, last_line, of_exception, shortened
from latentwire.experiments.failures.rules import BY_EXIT_CODE, BY_SIGNAL, OWN_FAULT_SIGNALS
from latentwire.experiments.registry.model import Attempt, ErrorClass


class Action(str, Enum):
    """What a worker does after a failure of a class."""

    RESUME = "resume"
    SMALLER_BATCH = "retry smaller batch"
    STOP = "stop"


FOLLOWS: dict[ErrorClass, Action] = {
    ErrorClass.OOM: Action.SMALLER_BATCH,
    ErrorClass.TIMEOUT: Action.RESUME,
    ErrorClass.PREEMPTED: Action.RESUME,
    ErrorClass.NETWORK: Action.RESUME,
    ErrorClass.UNKNOWN: Action.RESUME,
    ErrorClass.DISK_QUOTA: Action.STOP,
    ErrorClass.NAN: Action.STOP,
    ErrorClass.IMPORT: Action.STOP,
    ErrorClass.PERMISSION: Action.STOP,
    ErrorClass.DEVICE_MISMATCH: Action.STOP,
    ErrorClass.DTYPE_MISMATCH: Action.STOP,
    ErrorClass.SHAPE: Action.STOP,
    ErrorClass.DATA: Action.STOP,
    ErrorClass.CONFIG: Action.STOP,
    ErrorClass.HUB_ACCESS: Action.STOP,
}

#: what a person has to mend, one line each
MENDS: dict[ErrorClass, str] = {
    ErrorClass.OOM: "halve training.batch_size, shorten limits.sender_tokens, or use a GPU with more memory",
    ErrorClass.NAN: "lower training.lr, lengthen training.warmup_steps, or use bfloat16 or float32 instead of float16",
    ErrorClass.IMPORT: "install what is missing with `make setup` in the environment that the job activates",
    ErrorClass.TIMEOUT: "nothing: the next attempt resumes from the checkpoint; ask for a longer --time if it happens again",
    ErrorClass.PREEMPTED: "nothing: the next attempt resumes from the checkpoint",
    ErrorClass.DISK_QUOTA: "free space, or set LATENTWIRE_CACHE and HF_HOME to a folder on scratch; `latentwire cache` shows sizes",
    ErrorClass.PERMISSION: "give the job folders that it may write: LATENTWIRE_CACHE, HF_HOME, output_dir",
    ErrorClass.DEVICE_MISMATCH: "check that the job sees its GPU (nvidia-smi) and that --device names one that exists",
    ErrorClass.DTYPE_MISMATCH: "give sender and receiver one dtype: --set sender.dtype=bfloat16 --set receiver.dtype=bfloat16",
    ErrorClass.SHAPE: "compare the models and the bridge in config.json with those of a run that worked (--compare)",
    ErrorClass.DATA: "check the rows or the file that the message names, and --data_dir",
    ErrorClass.CONFIG: "correct the setting that the message names; `--dry-run` checks a config without running it",
    ErrorClass.HUB_ACCESS: "run `latentwire fetch CONFIG` on a node with network; gated models also need `hf auth login`",
    ErrorClass.NETWORK: "nothing if it passes; else fetch models and data beforehand and set HF_HUB_OFFLINE=1",
    ErrorClass.UNKNOWN: "read the end of the log; `--diagnose NAME` shows it with what else is known",
}

#: one line for people: what happens next by itself, and what a person can do
ACTIONS: dict[ErrorClass, str] = {found: f"{FOLLOWS[found].value}: {MENDS[found]}" for found in ErrorClass}

#: how many times an experiment is started again by itself after failures of a class. Pre-emption is nobody's fault, so its limit
#: only stops an endless loop.
RETRIES: dict[ErrorClass, int] = {
    **dict.fromkeys(ErrorClass, 0),
    ErrorClass.PREEMPTED: 1_000,
    ErrorClass.TIMEOUT: 3,
    ErrorClass.NETWORK: 3,
    ErrorClass.OOM: 1,
    ErrorClass.UNKNOWN: 1,
}

#: failures of the place, not of the experiment: the next one would fail alike
SYSTEMIC: frozenset[ErrorClass] = frozenset(
    {ErrorClass.IMPORT, ErrorClass.DISK_QUOTA, ErrorClass.PERMISSION, ErrorClass.HUB_ACCESS}
)


def classify(
    *,
    exit_code: int | None,
    log_text: str = "",
    exception: BaseException | None = None,
) -> Verdict:
    """Why a process ended.

    Args:
        exit_code: as the shell or ``subprocess`` gives it: above 128 or below 0 it stands for a signal. None: not known.
        log_text: what this attempt wrote; of a log that several attempts share, give the part since this one began.
        exception: where it was caught in this process. It decides alone.
    """
    if exception is not None:
        return of_exception(exception)
    number = _signal_of(exit_code)
    found = last_error(log_text)
    if exit_code == PREEMPTED_EXIT_CODE:
        what = found.verdict.message if found is not None and found.verdict.error_class is ErrorClass.PREEMPTED else ""
        return Verdict(ErrorClass.PREEMPTED, what or "exit code 75: stopped early, all saved")
    if found is not None and (number is None or found.explains_kill or number in OWN_FAULT_SIGNALS):
        verdict = found.verdict
        if verdict.error_class is ErrorClass.UNKNOWN and exit_code in BY_EXIT_CODE:
            return Verdict(BY_EXIT_CODE[exit_code][0], verdict.message, verdict.where)
        return verdict
    if number is not None:
        error_class, message = BY_SIGNAL.get(number, (ErrorClass.UNKNOWN, f"ended by signal {number}"))
        return Verdict(error_class, message)
    if exit_code in BY_EXIT_CODE:
        error_class, message = BY_EXIT_CODE[exit_code]
        return Verdict(error_class, f"{message}: {last_line(log_text)}" if log_text.strip() else message)
    ending = last_line(log_text)
    code = "no exit code" if exit_code is None else f"exit code {exit_code}"
    return Verdict(
        ErrorClass.UNKNOWN, f"{code}, no known error; the log ends: {ending}" if ending else f"{code}, nothing in the log"
    )


def classify_message(message: str, exit_code: int | None) -> Verdict:
    """Why a process ended of which only a message is kept: without the name of its exception, which is what most classes are
    known by, it is tried with one too.
    """
    verdicts = [classify(exit_code=exit_code, log_text=text) for text in (message, f"RuntimeError: {message}")]
    return next((found for found in verdicts if found.error_class is not ErrorClass.UNKNOWN), verdicts[0])


def _signal_of(exit_code: int | None) -> int | None:
    if exit_code is None:
        return None
    if exit_code < 0:
        return -exit_code
    return exit_code - 128 if 128 < exit_code <= 192 else None


# ---------------------------------------------------------------------------------------------------------- systemic stop


#: failures of one kind after which a queue stops
_STOPS_AT = 2


def systemic_stop(attempts: Iterable[Attempt], *, since: str) -> str | None:
    """Why a queue stops instead of failing every experiment by the same fault of the place; None where it goes on.

    Args:
        attempts: those that failed, of any worker.
        since: what ended before does not count (ISO 8601 in UTC, as attempts write it).
    """
    counts: Counter[str] = Counter()
    stop: str | None = None
    for attempt in sorted(attempts, key=lambda item: item.ended or ""):
        found = attempt.error_class
        if found is None or found not in SYSTEMIC or (attempt.ended or "") < since:
            continue
        message = attempt.error or ""
        key = _systemic_key(found, message)
        counts[key] += 1
        if counts[key] >= _STOPS_AT:
            times = "twice" if counts[key] == 2 else f"{counts[key]} times"
            stop = (
                f"queue stopped: {found.value} failed {times} in the same way ({shortened(message)}), "
                f"and every further experiment would too; {MENDS[found]}, then "
                "`python scripts/experiment_manager.py --mark-rerun-all-failed` and submit again"
            )
    return stop


def _systemic_key(error_class: ErrorClass, message: str) -> str:
    """Import failures are the same where the module is; the others are where the class is."""
    module = re.search(r"No module named '?([\w.]+)|cannot import name '(\w+)'|(\w+) is not installed", message)
    if error_class is not ErrorClass.IMPORT or module is None:
        return error_class.value
    return f"{error_class.value}:{next(part for part in module.groups() if part).split('.')[0]}"
