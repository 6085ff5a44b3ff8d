"""A cache of the fold, so that a status over ten thousand experiments reads one file instead of thirty thousand.

An entry counts only while its folder has the same change time and inode as when its events were read. Change times are coarse: a
file that arrives within the same tick as the reading leaves no trace, so an entry read soon after a change is read again.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from latentwire.errors import LatentWireError
from latentwire.experiments.registry.fold import Folded
from latentwire.experiments.registry.layout import Layout
from latentwire.experiments.registry.leases import Leases
from latentwire.experiments.registry.view import view_line
from latentwire.files import write_bytes

#: raised when the fold or the line changes its meaning
FORMAT = "latentwire-index-4"
#: longer than a tick of any file system in use (one second on old NFS servers)
TICK_S = 2.0
_UNSETTLED = "-"
#: name, key, state, flag
_COLUMNS = 4


class Entry(NamedTuple):
    """One experiment in the cache. ``key`` is ``-`` while its folder changed too recently to be trusted."""

    name: str
    key: str
    state: str
    #: ``1`` where some attempt has started and not ended
    flag: str
    #: of the view, in UTF-8
    line: bytes

    @property
    def is_open(self) -> bool:
        return self.flag == "1"


class Index:
    """The cache of one registry. Deleting its file costs time, nothing else."""

    def __init__(self, layout: Layout, leases: Leases, fold_one: Callable[[str], Folded | None]) -> None:
        self.layout, self.leases, self._fold_one = layout, leases, fold_one

    def entries(self) -> list[Entry]:
        """Every experiment, sorted by name, as its events are now."""
        if not self.layout.registry.is_dir():
            return []
        settled_before_ns = self._settled_before_ns()
        known = self._read()
        found, changed = [], False
        for name, key, changed_ns in folder_keys(self.layout.registry):
            entry = known.get(name)
            if entry is None or entry[1] != key:
                changed = True
                entry = self._make(name, key if changed_ns < settled_before_ns else _UNSETTLED)
            found.append(entry)
        found.sort()
        if (changed or len(found) != len(known)) and settled_before_ns:
            self._write(found)
        return [entry for entry in found if entry[4]]

    def _settled_before_ns(self) -> int:
        """0 where this user may only read: nothing is trusted or kept then."""
        try:
            return int((self.leases.now_s() - TICK_S) * 1e9)
        except LatentWireError:
            return 0

    def _make(self, name: str, key: str) -> Entry:
        folded = self._fold_one(name)
        if folded is None:
            return Entry(name, key, "", "0", b"")
        flag = "1" if folded.open_attempts else "0"
        return Entry(name, key, folded.experiment.state.value, flag, view_line(folded.experiment, folded.deciding))

    def _read(self) -> dict[str, Entry]:
        """Column by column: ten thousand rows are then split in five steps."""
        try:
            with self.layout.index.open("rb") as file:
                head, *columns = (file.readline() for _ in range(1 + _COLUMNS))
                lines = file.read()
        except FileNotFoundError:
            return {}
        if head != _head(columns, lines):
            return {}
        texts = [column[:-1].decode().split("\t") for column in columns]
        return {entry[0]: entry for entry in map(Entry, *texts, lines.split(b"\n"))}

    def _write(self, entries: list[Entry]) -> None:
        columns = [("\t".join([str(entry[number]) for entry in entries]) + "\n").encode() for number in range(_COLUMNS)]
        lines = b"\n".join([entry.line for entry in entries])
        write_bytes(self.layout.index, b"".join((_head(columns, lines), *columns, lines)))


def _head(columns: list[bytes], lines: bytes) -> bytes:
    return f"{FORMAT} {zlib.crc32(lines, zlib.crc32(b''.join(columns))):08x}\n".encode()


def folder_keys(registry: Path) -> list[tuple[str, str, int]]:
    """Every folder of experiments: name, a key that changes when a file arrives or goes, and its change time in ns."""
    keys = []
    handle = os.open(registry, os.O_RDONLY)  # relative to it, ten thousand paths need not be resolved from the root
    try:
        with os.scandir(handle) as entries:
            for entry in entries:
                if entry.is_dir() and not entry.name.startswith("."):
                    status = entry.stat()
                    changed_ns = status.st_ctime_ns
                    keys.append((entry.name, f"{changed_ns}:{status.st_ino}", changed_ns))
    finally:
        os.close(handle)
    return keys
