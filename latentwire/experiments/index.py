"""A cache of the fold, so that a status over ten thousand experiments reads one file instead of thirty thousand.

An entry counts only while its folder has the same change time and inode as when its events were read. Change times are coarse: a
file that arrives within the same tick as the reading leaves no trace, so an entry read soon after a change is read again.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from latentwire.errors import LatentWireError
from latentwire.experiments.fold import Folded
from latentwire.experiments.layout import Layout
from latentwire.experiments.leases import Leases
from latentwire.experiments.view import view_line
from latentwire.files import write_text

#: raised when the fold or the line changes its meaning
FORMAT = "latentwire-index-1"
#: longer than a tick of any file system in use (one second on old NFS servers)
TICK_S = 2.0
_UNSETTLED = "-"


@dataclass(frozen=True)
class Entry:
    """One experiment in the cache. ``key`` is ``-`` while its folder changed too recently to be trusted."""

    name: str
    key: str
    state: str
    #: some attempt has started and not ended
    is_open: bool
    line: str


class Index:
    """The cache of one registry. Deleting its file costs time, nothing else."""

    def __init__(self, layout: Layout, leases: Leases, fold_one: Callable[[str], Folded | None]) -> None:
        self.layout, self.leases, self._fold_one = layout, leases, fold_one

    def entries(self) -> list[Entry]:
        """Every experiment, sorted by name, as its events are now."""
        if not self.layout.registry.is_dir():
            return []
        settled_before_ns = self._settled_before_ns()
        known, found, changed = self._read(), {}, False
        for name, key, changed_ns in folder_keys(self.layout.registry):
            entry = known.get(name)
            if entry is None or entry[0] != key:
                changed = True
                entry = self._make(name, key if changed_ns < settled_before_ns else _UNSETTLED)
            found[name] = entry
        if (changed or len(found) != len(known)) and settled_before_ns:
            self._write(found)
        return [Entry(name, key, state, flag == "1", line) for name, (key, state, flag, line) in sorted(found.items()) if line]

    def _settled_before_ns(self) -> int:
        """0 where this user may only read: nothing is trusted or kept then."""
        try:
            return int((self.leases.now_s() - TICK_S) * 1e9)
        except LatentWireError:
            return 0

    def _make(self, name: str, key: str) -> tuple[str, str, str, str]:
        folded = self._fold_one(name)
        if folded is None:
            return key, "", "0", ""
        flag = "1" if folded.open_attempts else "0"
        return key, folded.experiment.state.value, flag, view_line(folded.experiment, folded.deciding)

    def _read(self) -> dict[str, tuple[str, str, str, str]]:
        try:
            head, _, body = self.layout.index.read_text(encoding="utf-8").partition("\n")
        except (FileNotFoundError, UnicodeDecodeError):
            return {}
        if head != _head(body):
            return {}
        rows = [line.split("\t") for line in body.split("\n")[:-1]]
        return {row[0]: (row[1], row[2], row[3], row[4]) for row in rows}

    def _write(self, entries: dict[str, tuple[str, str, str, str]]) -> None:
        body = "".join(["\t".join((name, *entry)) + "\n" for name, entry in entries.items()])
        write_text(self.layout.index, f"{_head(body)}\n{body}")


def _head(body: str) -> str:
    return f"{FORMAT} {zlib.crc32(body.encode()):08x}"


def folder_keys(registry: Path) -> list[tuple[str, str, int]]:
    """Every folder of experiments: name, a key that changes when a file arrives or goes, and its change time in ns."""
    keys = []
    with os.scandir(registry) as entries:
        for entry in entries:
            if entry.is_dir() and not entry.name.startswith("."):
                status = entry.stat()
                keys.append((entry.name, f"{status.st_ctime_ns}:{status.st_ino}", status.st_ctime_ns))
    return keys
