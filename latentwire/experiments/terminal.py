"""What the registry's commands print: tables, JSON, one line for an error. Standard library only."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from latentwire.errors import LatentWireError
from latentwire.experiments.registry.model import State

_COLOURS = {
    State.COMPLETED.value: "32",
    State.RUNNING.value: "36",
    State.FAILED.value: "31",
    State.LOST.value: "31",
    State.INVALID.value: "33",
    State.PREEMPTED.value: "33",
}


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line. Help shows defaults that say something, each once."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **{"formatter_class": _Defaults, **settings})

    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: (--[\w-]+)", message)
        near = get_close_matches(unknown[1], self._option_string_actions, n=1) if unknown else []
        hint = f"did you mean {near[0]}? See" if near else "see"
        self.exit(2, f"error: {message}; {hint} {self.prog} --help\n")


class _Defaults(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        says_nothing = action.default in (None, False, "") or action.default == [] or "default" in (action.help or "")
        return action.help if says_nothing else super()._get_help_string(action)


def run_guarded(main: Callable[[], int]) -> int:
    """Runs a command; known errors become one line on stderr and their exit code, never a traceback."""
    try:
        return main()
    except LatentWireError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # the reader, for instance `head`, has seen enough; a second failure at exit would print a traceback
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"error: {error.strerror or error}: {error.filename or 'while writing'}", file=sys.stderr)
        return 1


def print_json(value: Any) -> None:
    """A result on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def coloured(text: str, state: str) -> str:
    """The text in the colour of a state, on a terminal that wants colours."""
    colour = _COLOURS.get(state)
    wanted = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"\033[{colour}m{text}\033[0m" if colour and wanted else text


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]], *, state_column: int | None = None) -> None:
    """Columns as wide as their content; the last one is cut at the width of a terminal."""
    texts = [[("" if cell is None else str(cell)) for cell in row] for row in rows]
    widths = [max(len(row[index]) for row in [list(head), *texts]) for index in range(len(head))]
    room = _room(widths)
    for number, row in enumerate([list(head), *texts]):
        cells = [f"{cell:<{width}}" for cell, width in zip(row[:-1], widths[:-1])]
        last = row[-1] if room is None or len(row[-1]) <= room else row[-1][: max(room - 1, 1)] + "…"
        if number and state_column is not None:
            cells = [coloured(cell, row[index]) if index == state_column else cell for index, cell in enumerate(cells)]
        print("  ".join([*cells, last]).rstrip())


def _room(widths: Sequence[int]) -> int | None:
    """Characters left for the last column on a terminal; None elsewhere, where nothing is cut."""
    if not sys.stdout.isatty():
        return None
    try:
        columns = os.get_terminal_size(sys.stdout.fileno()).columns
    except OSError:
        return None
    return max(columns - sum(widths[:-1]) - 2 * (len(widths) - 1), 20)
