"""Why an attempt failed, and what follows.

``classify`` reads whatever is known of the end of a process: exception, signal, exit code, log. The last error wins; a line of
the scheduler or the kernel explains a kill better than the number of the signal. Standard library only, Python 3.9.

>>> classify(exit_code=1, log_text="ModuleNotFoundError: No module named 'peft'").error_class
<ErrorClass.IMPORT: 'import'>
"""

from __future__ import annotations

import re
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from latentwire.experiments.failure_rules import (
    BY_ERRNO,
    BY_EXIT_CODE,
    BY_NAME,
    BY_NAME_ELSE,
    BY_SIGNAL,
    FOLLOWERS,
    MESSAGE_RULES,
    SCHEDULER_RULES,
)
from latentwire.experiments.model import Attempt, ErrorClass

#: lines from the end of a log that are looked at: enough for a long chained traceback, quick for any log
MOST_LINES = 4_000
MESSAGE_CHARACTERS = 400
#: the whole text of a TimeoutError that a socket raises
SOCKET_TIMEOUT = "timed out"
PREEMPTED_EXIT_CODE = 75


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


@dataclass(frozen=True)
class Verdict:
    """The class, one line of what was said, and ``file:line`` of the code that said it, where known."""

    error_class: ErrorClass
    message: str
    where: str | None = None

    @property
    def action(self) -> Action:
        return FOLLOWS[self.error_class]


@dataclass(frozen=True)
class _Found:
    """An error in a log; ``line`` is its index among the lines that were looked at."""

    verdict: Verdict
    explains_kill: bool
    line: int


def classify(
    *,
    exit_code: int | None,
    log_text: str = "",
    exception: BaseException | None = None,
    signal: int | None = None,
) -> Verdict:
    """Why a process ended.

    Args:
        exit_code: as the shell or ``subprocess`` gives it: above 128 or below 0 it stands for a signal. None: not known.
        log_text: what this attempt wrote; of a log that several attempts share, give the part since this one began.
        exception: where it was caught in this process. It decides alone.
        signal: number of the signal that ended the process or was sent to it.
    """
    if exception is not None:
        return _of_exception(exception)
    number = signal if signal is not None else _signal_of(exit_code)
    found = _last_error(log_text)
    if exit_code == PREEMPTED_EXIT_CODE:
        what = found.verdict.message if found is not None and found.verdict.error_class is ErrorClass.PREEMPTED else ""
        return Verdict(ErrorClass.PREEMPTED, what or "exit code 75: stopped early, all saved")
    if found is not None and (number is None or found.explains_kill):
        verdict = found.verdict
        if verdict.error_class is ErrorClass.UNKNOWN and exit_code in BY_EXIT_CODE:
            return Verdict(BY_EXIT_CODE[exit_code][0], verdict.message, verdict.where)
        return verdict
    if number is not None:
        error_class, message = BY_SIGNAL.get(number, (ErrorClass.UNKNOWN, f"ended by signal {number}"))
        return Verdict(error_class, message)
    if exit_code in BY_EXIT_CODE:
        error_class, message = BY_EXIT_CODE[exit_code]
        return Verdict(error_class, f"{message}: {_last_line(log_text)}" if log_text.strip() else message)
    ending = _last_line(log_text)
    code = "no exit code" if exit_code is None else f"exit code {exit_code}"
    return Verdict(
        ErrorClass.UNKNOWN, f"{code}, no known error; the log ends: {ending}" if ending else f"{code}, nothing in the log"
    )


def _signal_of(exit_code: int | None) -> int | None:
    if exit_code is None:
        return None
    if exit_code < 0:
        return -exit_code
    return exit_code - 128 if 128 < exit_code <= 192 else None


# ------------------------------------------------------------------------------------------------------------ exceptions


def _of_exception(exception: BaseException) -> Verdict:
    """The class of an exception; where it says nothing, that of what caused it."""
    current: BaseException | None = exception
    seen: list[BaseException] = []
    while current is not None and current not in seen:
        seen.append(current)
        error_class = _class_of_exception(current)
        if error_class is not ErrorClass.UNKNOWN:
            return Verdict(error_class, _one_line(current), _where(seen))
        current = current.__cause__ or current.__context__
    return Verdict(ErrorClass.UNKNOWN, _one_line(exception), _where(seen))


def _class_of_exception(exception: BaseException) -> ErrorClass:
    names = [kind.__name__ for kind in type(exception).__mro__]
    module = type(exception).__module__.split(".")[0]
    if isinstance(exception, SystemExit):
        code = exception.code if isinstance(exception.code, int) else 1
        return ErrorClass.PREEMPTED if code == PREEMPTED_EXIT_CODE else BY_EXIT_CODE.get(code, (ErrorClass.UNKNOWN, ""))[0]
    number = getattr(exception, "errno", None) if isinstance(exception, OSError) else None
    if number in BY_ERRNO:
        return BY_ERRNO[number]
    if isinstance(exception, TimeoutError) and (str(exception) == SOCKET_TIMEOUT or _passes_socket(exception)):
        return ErrorClass.NETWORK
    if module == "latentwire" and names[0] == "StoppedEarlyError":
        return ErrorClass.PREEMPTED
    return _by_name_and_text(names, str(exception), code_line=_raising_line(exception))


def _passes_socket(exception: BaseException) -> bool:
    files = [frame.filename.replace("\\", "/") for frame in traceback.extract_tb(exception.__traceback__)]
    return any(re.search(r"/(?:socket|ssl|http/client|urllib\d?/|requests/|httpx/|httpcore/)", file) for file in files)


def _raising_line(exception: BaseException) -> str:
    frames = traceback.extract_tb(exception.__traceback__)
    return frames[-1].line or "" if frames else ""


def _by_name_and_text(names: list[str], text: str, *, code_line: str = "") -> ErrorClass:
    for name in names:
        if name in BY_NAME:
            return BY_NAME[name]
    if names[0] == "KeyError":
        return _class_of_lookup(code_line)
    # the number is exact; the rest of an operating system's message repeats a path, which may hold any word
    numbered = re.search(r"\[Errno (\d+)\]|\(os error (\d+)\)|Os \{ code: (\d+)", text)
    number = int(next(part for part in numbered.groups() if part)) if numbered else None
    if number in BY_ERRNO:
        return BY_ERRNO[number]
    for rule in MESSAGE_RULES:
        if rule.pattern.search(text):
            return rule.error_class
    for name in names:
        if name in BY_NAME_ELSE:
            return BY_NAME_ELSE[name]
    return ErrorClass.UNKNOWN


def _class_of_lookup(code_line: str) -> ErrorClass:
    """A missing key is a failure of the data where a row or a label was looked up."""
    if "environ" in code_line:
        return ErrorClass.CONFIG
    if re.search(r"label|example|\brows?\b|batch|item|sample|record|dataset|answer", code_line):
        return ErrorClass.DATA
    return ErrorClass.UNKNOWN


def _one_line(exception: BaseException) -> str:
    text = " ".join(str(exception).split())
    name = type(exception).__name__
    return _shortened(f"{name}: {text}" if text else name)


def _where(chain: list[BaseException]) -> str | None:
    for exception in chain:
        frames = [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(exception.__traceback__)]
        if frames:
            return _place(frames)
    return None


def _place(frames: list[tuple[str, int]]) -> str:
    """``file:line`` of the deepest frame in this project's code, else of the deepest one, from the project's root on."""
    ours = re.compile(r"(?:^|/)((?:latentwire|telepathy|scripts|tests)/[\w/.-]+\.py)$")
    for file, line in reversed(frames):
        match = ours.search(file.replace("\\", "/"))
        if match and "/site-packages/" not in file:
            return f"{match[1]}:{line}"
    file, line = frames[-1]
    return f"{re.sub(r'^.*/site-packages/', '', file)}:{line}"


# ------------------------------------------------------------------------------------------------------------------ logs

_ERROR_LINE = re.compile(
    r"^(?:\[?\w*rank\d+\]?:? ?)?"
    r"(?P<name>(?:[A-Za-z_]\w*\.)*[A-Za-z_]*(?:Error|Exception|Interrupt|Timeout|Expired|Enabled|Exit|gaierror|NotFound))"
    r"(?::\s*(?P<text>.*))?$"
)
_PLAIN_ERROR = re.compile(r"^(?:[\w./-]+: )?(?:error|fatal|ERROR|FATAL|Error):? +(?P<text>\S.*)$")
_SHELL_ERROR = re.compile(
    r"^(?P<text>[\w./-]+(?:: line \d+)?: .*(?:Permission denied|No such file or directory|command not found|Disk quota exceeded"
    r"|No space left on device|No module named .*|Read-only file system|Bus error.*|Killed.*))\s*$"
)
_FRAME = re.compile(r'^\s*(?:\[rank\d+\]:)?\s*File "(?P<file>[^"]+)", line (?P<line>\d+)')
_CHAINED = ("The above exception was the direct cause", "During handling of the above exception")


def _last_error(log_text: str) -> _Found | None:
    """The last error of a log. One of no known class yields to a known one that it was raised from."""
    lines = log_text.splitlines()[-MOST_LINES:]
    unknown: _Found | None = None
    for found in _errors_backwards(lines):
        if unknown is not None:
            chained = any(mark in line for line in lines[found.line : unknown.line] for mark in _CHAINED)
            if not chained:
                return unknown
            if found.verdict.error_class is not ErrorClass.UNKNOWN:
                return found
            continue
        if found.verdict.error_class is not ErrorClass.UNKNOWN:
            return found
        unknown = found
    return unknown


def _errors_backwards(lines: list[str]) -> Iterator[_Found]:
    for index in range(len(lines) - 1, -1, -1):
        line = lines[index].rstrip()
        if not line or FOLLOWERS.search(line):
            continue
        for rule in SCHEDULER_RULES:
            if rule.pattern.search(line):
                yield _Found(Verdict(rule.error_class, _shortened(line.strip())), rule.explains_kill, index)
                break
        else:
            verdict = _error_at(lines, index)
            if verdict is not None:
                yield _Found(verdict, False, index)


def _error_at(lines: list[str], index: int) -> Verdict | None:
    line = re.sub(r"^\[rank\d+\]:\s?", "", lines[index].rstrip())
    match = _ERROR_LINE.match(line)
    if match is not None:
        name = match["name"].rpartition(".")[2]
        text = _message_from(lines, index, match["text"] or "")
        frames = _frames_before(lines, index)
        code_line = _code_line_before(lines, index)
        if name == "SystemExit":
            return None
        error_class = _by_name_and_text([name], text, code_line=code_line)
        if name == "TimeoutError" and (match["text"] == SOCKET_TIMEOUT or _is_network(frames)):
            error_class = ErrorClass.NETWORK
        return Verdict(error_class, _shortened(f"{name}: {text}" if text else name), _place(frames) if frames else None)
    for pattern in (_PLAIN_ERROR, _SHELL_ERROR):
        plain = pattern.match(line)
        if plain is not None:
            return Verdict(_by_name_and_text([""], plain["text"]), _shortened(plain["text"]))
    return None


def _is_network(frames: list[tuple[str, int]]) -> bool:
    return any(re.search(r"/(?:socket|ssl|http/client|urllib3?|requests|httpx|httpcore)\b", file) for file, _ in frames)


def _message_from(lines: list[str], index: int, first: str) -> str:
    """The text of an exception, whose message may go on over some lines."""
    parts = [first]
    for line in lines[index + 1 : index + 6]:
        stripped = line.strip()
        if (
            stripped.startswith(("Traceback", "The above", "During handling", 'File "'))
            or _ERROR_LINE.match(line)
            or FOLLOWERS.search(line)
        ):
            break
        parts.append(stripped)
    return " ".join(" ".join(parts).split())


def _frames_before(lines: list[str], index: int) -> list[tuple[str, int]]:
    """Frames of the traceback that ends at ``index``."""
    frames: list[tuple[str, int]] = []
    for line in reversed(lines[max(0, index - 400) : index]):
        match = _FRAME.match(line)
        if match:
            frames.append((match["file"], int(match["line"])))
        elif line and not re.match(r"^(?:\[rank\d+\]:)?\s", line):
            break  # the traceback's head, or what was printed before one without it
    return frames[::-1]


def _code_line_before(lines: list[str], index: int) -> str:
    """The source line that a traceback shows last; carets below it are left out."""
    for line in reversed(lines[max(0, index - 4) : index]):
        if _FRAME.match(line):
            return ""
        if line.strip(" ^~"):
            return line.strip()
    return ""


def _last_line(log_text: str) -> str:
    lines = [line.strip() for line in log_text.splitlines()[-MOST_LINES:] if line.strip()]
    return _shortened(lines[-1]) if lines else ""


def _shortened(text: str) -> str:
    return text if len(text) <= MESSAGE_CHARACTERS else text[: MESSAGE_CHARACTERS - 2] + " …"


# ---------------------------------------------------------------------------------------------------------- systemic stop


class SystemicStop:
    """Stops a queue when the same failure of the place came twice, instead of failing every experiment by it."""

    LIMIT = 2

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def note(self, error_class: ErrorClass, message: str) -> str | None:
        """Counts one failure. Returns the message with which the queue stops, or None where it goes on."""
        if error_class not in SYSTEMIC:
            return None
        key = _systemic_key(error_class, message)
        self._counts[key] += 1
        count = self._counts[key]
        if count < self.LIMIT:
            return None
        times = "twice" if count == 2 else f"{count} times"
        return (
            f"queue stopped: {error_class.value} failed {times} in the same way ({_shortened(message)}), "
            f"and every further experiment would too; {MENDS[error_class]}, then "
            "`python scripts/experiment_manager.py --mark-rerun-all-failed` and submit again"
        )

    def note_success(self) -> None:
        """An experiment completed: the place has space, rights and access. A missing module may still be missing."""
        self._counts = Counter({key: count for key, count in self._counts.items() if key.startswith(ErrorClass.IMPORT.value)})

    def note_attempts(self, attempts: list[Attempt], *, since: str) -> str | None:
        """Counts the failures of other workers that ended at or after ``since`` (ISO 8601, UTC). Use on a fresh object."""
        stop: str | None = None
        for attempt in sorted(attempts, key=lambda item: item.ended or ""):
            if attempt.error_class is not None and (attempt.ended or "") >= since:
                stop = self.note(attempt.error_class, attempt.error or "") or stop
        return stop


def _systemic_key(error_class: ErrorClass, message: str) -> str:
    """Import failures are the same where the module is; the others are where the class is."""
    module = re.search(r"No module named '?([\w.]+)|cannot import name '(\w+)'|(\w+) is not installed", message)
    if error_class is not ErrorClass.IMPORT or module is None:
        return error_class.value
    return f"{error_class.value}:{next(part for part in module.groups() if part).split('.')[0]}"
