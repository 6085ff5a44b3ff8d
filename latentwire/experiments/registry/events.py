"""Events: what happened to an experiment, one small file each, never changed afterwards.

``<generation>-<kind>-<id>.json``. The id is random, so two clones never write the same name and git merges them as a union.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from latentwire.errors import LatentWireError
from latentwire.experiments.registry.layout import CORRUPT, Layout
from latentwire.files import create_exclusively

PLAN, START, RERUN, IMPORT = "plan", "start", "rerun", "import"
#: kinds that end an attempt are named like the state they lead to
COMPLETED, FAILED, PREEMPTED, LOST, INVALID = "completed", "failed", "preempted", "lost", "invalid"
ENDINGS = (COMPLETED, INVALID, FAILED, PREEMPTED, LOST)
#: git writes files in place: a reader may meet one that is not finished
UNFINISHED_TRIES, UNFINISHED_WAIT_S = 20, 0.1
ERROR_LENGTH = 500

Note = Callable[[str], None]


def note_on_stderr(line: str) -> None:
    """The default way to name what was found."""
    print(f"note: {line}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Event:
    """One event. ``generation``: of the attempt it belongs to, or the newest one known when a plan or mark was made."""

    kind: str
    generation: int
    id: str
    #: unguessable id of the claim, empty for plans and marks
    owner: str = ""
    #: ISO 8601, UTC; for people, never for order
    time: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        return f"{self.generation:06d}-{self.kind}-{self.id}.json"

    def text(self) -> str:
        head = {"kind": self.kind, "generation": self.generation, "id": self.id, "owner": self.owner, "time": self.time}
        text = json.dumps({**head, "data": self.data}, ensure_ascii=False, allow_nan=False, sort_keys=True) + "\n"
        # bytes of a log that are no UTF-8 come as half characters, which no file takes
        return text.encode("utf-8", "replace").decode("utf-8")


def new_event(kind: str, generation: int, *, owner: str = "", data: Mapping[str, Any] | None = None) -> Event:
    """An event of now, with an id of its own. Keys whose value is None are left out."""
    kept = {key: value for key, value in (data or {}).items() if value is not None}
    return Event(kind, generation, os.urandom(8).hex(), owner, utc_now(), kept)


def utc_now() -> str:
    """Now, as recorded: ISO 8601 in UTC with seconds."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def one_line(text: object, length: int = ERROR_LENGTH) -> str:
    """Any text as one line of at most ``length`` characters; the end of a long one says more than its middle."""
    line = " ".join(str(text).split())
    return line if len(line) <= length else f"{line[: length // 2 - 2]} … {line[-(length // 2 - 1) :]}"


def parse_event(file_name: str, text: str | bytes) -> Event:
    """The event of a file. Raises ``ValueError`` where the content is cut, no event, or not that of its name."""
    content = json.loads(text)
    try:
        head = (content["kind"], content["generation"], content["id"], content["owner"], content["time"])
        data = content["data"]
    except (KeyError, TypeError):
        raise ValueError("no event") from None
    kind, generation, identity, owner, moment = head
    strings = (kind, identity, owner, moment)
    if not all(isinstance(part, str) for part in strings) or not isinstance(generation, int) or not isinstance(data, dict):
        raise ValueError("no event")
    event = Event(kind, generation, identity, owner, moment, data)
    if event.file_name != file_name:
        raise ValueError(f"the content is that of {event.file_name}")
    return event


def write_event(layout: Layout, name: str, event: Event) -> None:
    """Writes the event whole, once: writing the same event again changes nothing."""
    create_exclusively(layout.events(name) / event.file_name, event.text(), temporary_folder=layout.temporary)


def read_events(folder: Path, *, note: Note = note_on_stderr) -> list[Event]:
    """All events of one experiment, in no order. A corrupt file is set aside and named, never read as empty."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 -- three times as fast
    except (FileNotFoundError, NotADirectoryError):
        return []
    events = []
    prefix = f"{folder}{os.sep}"
    for name in names:
        if not name.endswith(".json") or name.startswith("."):
            continue
        event = _read(prefix + name, name, note)
        if event is not None:
            events.append(event)
    return events


def _read(path: str, name: str, note: Note) -> Event | None:
    problem = "empty"
    for attempt in range(UNFINISHED_TRIES):
        if attempt:
            time.sleep(UNFINISHED_WAIT_S)
        try:
            with open(path, "rb") as file:  # noqa: PTH123 -- twice as fast
                return parse_event(name, file.read())
        except FileNotFoundError:
            return None
        except (ValueError, UnicodeDecodeError) as error:
            problem = str(error)
        except OSError as error:
            raise LatentWireError(f"cannot read {path!r}: {error.strerror}; the registry is not complete without it") from error
    _set_aside(Path(path), problem, note)
    return None


def _set_aside(path: Path, problem: str, note: Note) -> None:
    target = path.with_name(path.name + CORRUPT)
    try:
        os.replace(path, target)
    except FileNotFoundError:  # somebody else did
        return
    except OSError as error:
        what = f"event {str(path)!r} is cut or corrupt ({problem})"
        raise LatentWireError(f"{what} and cannot be set aside: {error.strerror}") from error
    note(f"event {str(path)!r} is cut or corrupt ({problem}); set aside as {target.name}")
