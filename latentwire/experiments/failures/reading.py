"""Reads why a process ended out of an exception or the text of a log. ``latentwire.experiments.failures.classes`` decides with it.

Standard library only, Python 3.9.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

from latentwire.experiments.failures.rules import (
    BY_ERRNO,
    BY_EXIT_CODE,
    BY_NAME,
    BY_NAME_ELSE,
    FOLLOWERS,
    MESSAGE_RULES,
    SCHEDULER_RULES,
)
from latentwire.experiments.registry.model import ErrorClass

PREEMPTED_EXIT_CODE = 75
#: lines from the end of a log that are looked at: enough for a long chained traceback, quick for any log
MOST_LINES = 4_000
MESSAGE_CHARACTERS = 400
#: the whole text of a TimeoutError that a socket raises
SOCKET_TIMEOUT = "timed out"


@dataclass(frozen=True)
class Verdict:
    """The class, one line of what was said, and ``file:line`` of the code that said it, where known."""

    error_class: ErrorClass
    message: str
    where: str | None = None


@dataclass(frozen=True)
class LogError:
    """An error in a log; ``line`` is its index among the lines that were looked at."""

    verdict: Verdict
    explains_kill: bool
    line: int


# ------------------------------------------------------------------------------------------------------------ exceptions


def of_exception(exception: BaseException) -> Verdict:
    """The class of an exception; where it says nothing, that of what caused it."""
    current: BaseException | None = exception
    seen: list[BaseException] = []
    while current is not None and current not in seen:
        seen.append(current)
        error_class = _class_of(current)
        if error_class is not ErrorClass.UNKNOWN:
            return Verdict(error_class, _one_line(current), _where(seen))
        current = current.__cause__ or current.__context__
    return Verdict(ErrorClass.UNKNOWN, _one_line(exception), _where(seen))


def _class_of(exception: BaseException) -> ErrorClass:
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
    return shortened(f"{name}: {text}" if text else name)


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
#: ``what():`` is how C++ tells of an exception that nobody caught
_PLAIN_ERROR = re.compile(r"^(?:(?:[\w./-]+: )?(?:error|fatal|ERROR|FATAL|Error):? +|\s*what\(\): +)(?P<text>\S.*)$")
_SHELL_ERROR = re.compile(
    r"^(?P<text>[\w./-]+(?:: line \d+)?: .*(?:Permission denied|No such file or directory|command not found|Disk quota exceeded"
    r"|No space left on device|No module named .*|Read-only file system|Bus error.*|Killed.*))\s*$"
)
_FRAME = re.compile(r'^\s*(?:\[rank\d+\]:)?\s*File "(?P<file>[^"]+)", line (?P<line>\d+)')
_CHAINED = ("The above exception was the direct cause", "During handling of the above exception")


def last_error(log_text: str) -> LogError | None:
    """The last error of a log. One of no known class yields to a known one that it was raised from."""
    lines = log_text.splitlines()[-MOST_LINES:]
    unknown: LogError | None = None
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


def _errors_backwards(lines: list[str]) -> Iterator[LogError]:
    for index in range(len(lines) - 1, -1, -1):
        line = lines[index].rstrip()
        if not line or FOLLOWERS.search(line):
            continue
        for rule in SCHEDULER_RULES:
            if rule.pattern.search(line):
                yield LogError(Verdict(rule.error_class, shortened(line.strip())), rule.explains_kill, index)
                break
        else:
            verdict = _error_at(lines, index)
            if verdict is not None:
                yield LogError(verdict, False, index)


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
        return Verdict(error_class, shortened(f"{name}: {text}" if text else name), _place(frames) if frames else None)
    for pattern in (_PLAIN_ERROR, _SHELL_ERROR):
        plain = pattern.match(line)
        if plain is not None:
            return Verdict(_by_name_and_text([""], plain["text"]), shortened(plain["text"]))
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


def last_line(log_text: str) -> str:
    """The last line of a log that says something."""
    lines = [line.strip() for line in log_text.splitlines()[-MOST_LINES:] if line.strip()]
    return shortened(lines[-1]) if lines else ""


def shortened(text: str) -> str:
    """A message of at most ``MESSAGE_CHARACTERS``."""
    return text if len(text) <= MESSAGE_CHARACTERS else text[: MESSAGE_CHARACTERS - 2] + " …"
