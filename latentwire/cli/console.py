"""What commands share: options, output, progress, stopping by signal."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

from latentwire.errors import StoppedEarlyError, UsageError

DEVICE = typer.Option(None, "--device", help="cpu, mps, cuda or cuda:N.")
SEEDS = typer.Option(None, "--seeds", help="Seeds, comma-separated; default: that of the config.")
JSON = typer.Option(False, "--json", help="Print as JSON on stdout.")


def say(line: str) -> None:
    """A line for people; results go to stdout, everything else to stderr."""
    print(line, file=sys.stderr, flush=True)


def emit_json(value: Any) -> None:
    """A result on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


class Progress:
    """A bar on a terminal; elsewhere one line every ``interval_s`` seconds. ``total`` 0: nobody knows how many."""

    def __init__(self, total: int, what: str, interval_s: float = 30.0) -> None:
        self.total, self.what, self.done, self.interval_s = total, what, 0, interval_s
        self.note = ""
        self._last_line = time.monotonic()
        self._bar: Any = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(what, total=total or None, note="")
            self._bar.start()

    def at(self, done: int, note: str | None = None) -> None:
        """``done`` of ``total`` are finished."""
        self.done = done
        self.note = self.note if note is None else note
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=self.note)
        elif time.monotonic() - self._last_line >= self.interval_s:
            self._last_line = time.monotonic()
            of_total = f"/{self.total}" if self.total else " rows"
            say(f"{self.what}: {done}{of_total} {self.note}".rstrip())

    def add(self, count: int, note: str | None = None) -> None:
        """``count`` more are finished."""
        self.at(self.done + count, note)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def progress(total: int, what: str) -> Iterator[Progress]:
    """A ``Progress`` that is closed when the block ends."""
    bar = Progress(total, what)
    try:
        yield bar
    finally:
        bar.close()


@contextmanager
def watching() -> Iterator[Callable[[str, int, int], None]]:
    """Called with (what, done, total): a bar, or lines, for whatever is being done at the moment."""
    bar: Progress | None = None

    def watch(what: str, done: int, total: int) -> None:
        nonlocal bar
        if bar is None or bar.what != what:
            if bar is not None:
                bar.close()
            bar = Progress(total, what)
        bar.at(done)

    try:
        yield watch
    finally:
        if bar is not None:
            bar.close()


@contextmanager
def same_command_goes_on() -> Iterator[None]:
    """Says how work goes on that was stopped in the block, for commands that have no --resume."""
    try:
        yield
    except StoppedEarlyError as error:
        raise StoppedEarlyError(str(error).replace("go on with --resume", "the same command goes on from there")) from None


class StopRequest:
    """Becomes true on SIGTERM, SIGUSR2 or the first Ctrl-C, so that work can save before it ends."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self) -> bool:
        return self.signal is not None

    @property
    def interrupted(self) -> bool:
        return self.signal == signal.SIGINT


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """A ``StopRequest`` that hears signals inside the block."""
    request = StopRequest()
    names = [name for name in ("SIGTERM", "SIGUSR2", "SIGINT") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(number: int, frame: Any) -> None:
        if request.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.signal = number
        say("stopping after this step; all is saved")

    before = {name: signal.signal(getattr(signal, name), handle) for name in names}
    try:
        yield request
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


def gib(count: int) -> str:
    """Bytes for people."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def listed(text: str | None, flag: str = "") -> list[str]:
    """The parts of a comma-separated option, none where it is not given.

    Raises ``UsageError`` where ``flag`` is given with none.
    """
    parts = [part.strip() for part in (text or "").split(",") if part.strip()]
    if flag and text is not None and not parts:
        raise UsageError(f"{flag} {text!r} names nothing; give names with commas between them, or leave it out")
    return parts


def parse_seeds(text: str | None) -> list[int]:
    """Seeds from a comma-separated option. Raises ``UsageError`` where one is no number."""
    parts = listed(text, "--seeds")
    if any(not part.isdecimal() for part in parts):
        raise UsageError(f"--seeds {text!r} does not fit; write numbers with commas, for example 42,123,456")
    return [int(part) for part in parts]


def numbers(flag: str, text: str) -> tuple[int, ...]:
    """``1,2,4`` as numbers. Raises ``UsageError`` for anything else."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"{flag} {text!r} does not fit; give whole numbers with commas between them, for example 1,2,4,8"
        ) from None
