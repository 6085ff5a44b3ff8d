"""Claims, heartbeats and their end, in files of this checkout that git ignores. Nothing but exclusive creation and modification
times is used, so it works over NFS and needs no locks.

``<experiment>/<generation>.lease``   made exclusively by who claims; its modification time is the last heartbeat
``<experiment>/<generation>.closed``  made exclusively by who ends the attempt, with the event that ends it

Whoever makes ``closed`` has the last word: an owner that was taken over finds it there and is refused. Neither file is removed, so
a process that has slept can never make an old generation again. As ``closed`` holds the event, anybody can write it should its
author die in between.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from latentwire.errors import LatentWireError
from latentwire.experiments.registry.events import Event, parse_event
from latentwire.experiments.registry.layout import Layout
from latentwire.files import create_exclusively

#: of a lease whose file cannot be read
FALLBACK_LEASE_S = 900.0
STALE_TEMPORARY_S = 86_400.0


@dataclass(frozen=True)
class Lease:
    """Who holds an attempt. ``before``: modification time (ns) and size of the result file at the time of the claim."""

    owner: str
    lease_s: float = FALLBACK_LEASE_S
    host: str = ""
    job_id: str | None = None
    restarts: int = 0
    process: str | None = None
    before: tuple[int, int] | None = None

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Lease:
        """A lease from its JSON."""
        before = content.get("before")
        fields = {key: content[key] for key in ("owner", "lease_s", "host", "job_id", "restarts", "process") if key in content}
        return cls(**fields, before=(int(before[0]), int(before[1])) if before else None)


class Leases:
    """The claims of one checkout."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._place: str | None = None

    def place(self) -> str:
        """The id of this checkout's leases: who reads an attempt from elsewhere cannot judge whether it lives."""
        if self._place is None:
            path = self.layout.place
            create_exclusively(path, os.urandom(16).hex() + "\n", temporary_folder=self.layout.temporary)
            self._place = path.read_text(encoding="utf-8").strip()
        return self._place

    def now_s(self) -> float:
        """The file server's time, in seconds: the clocks of the machines that compare it may differ by minutes."""
        probe = self.layout.leases / f".probe-{os.uname().nodename}-{os.getpid()}-{os.urandom(4).hex()}"
        try:
            self.layout.leases.mkdir(parents=True, exist_ok=True)
            try:
                probe.touch()
                os.utime(probe)  # as a heartbeat does it, so that both times come from the same clock
                return probe.stat().st_mtime_ns / 1e9
            finally:
                probe.unlink(missing_ok=True)
        except OSError as error:
            raise LatentWireError(f"cannot write into {str(self.layout.leases)!r}: {error.strerror}; claims need it") from error

    def generations(self, name: str) -> list[int]:
        """Those ever claimed in this checkout, ascending."""
        try:
            names = [path.name for path in self.layout.claims(name).iterdir()]
        except FileNotFoundError:
            return []
        return sorted({int(entry[:-6]) for entry in names if entry.endswith(".lease") and entry[:-6].isdigit()})

    def open(self, name: str) -> list[int]:
        """Generations that nobody has ended, whether their holder lives or not."""
        return [generation for generation in self.generations(name) if not self.is_closed(name, generation)]

    def create(self, name: str, generation: int, lease: Lease) -> bool:
        """Claims this generation. Returns False where somebody else has it."""
        text = json.dumps(asdict(lease)) + "\n"
        return create_exclusively(self.layout.lease(name, generation), text, temporary_folder=self.layout.temporary)

    def read(self, name: str, generation: int) -> Lease | None:
        """The lease, or None where there is none. One that cannot be read belongs to nobody and runs out."""
        try:
            return Lease.parse(json.loads(self.layout.lease(name, generation).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return Lease(owner="")

    def over(self, name: str, generation: int, lease: Lease) -> bool:
        """Whether the last heartbeat is longer ago than the lease lasts."""
        try:
            # opening makes NFS ask the server instead of its cache
            with self.layout.lease(name, generation).open("rb") as file:
                touched_s = os.fstat(file.fileno()).st_mtime_ns / 1e9
        except FileNotFoundError:
            return True
        return self.now_s() - touched_s > lease.lease_s

    def touch(self, name: str, generation: int) -> None:
        """A heartbeat. Raises ``FileNotFoundError`` where the lease is gone."""
        os.utime(self.layout.lease(name, generation))

    def close(self, name: str, generation: int, *, by: str, event: Event | None) -> bool:
        """Ends an attempt. Returns False where somebody else already did."""
        content = {"by": by, "file": event.file_name if event else None, "event": event.text() if event else None}
        path = self.layout.closed(name, generation)
        return create_exclusively(path, json.dumps(content) + "\n", temporary_folder=self.layout.temporary)

    def is_closed(self, name: str, generation: int) -> bool:
        return self.layout.closed(name, generation).exists()

    def closing_event(self, name: str, generation: int) -> Event | None:
        """The event that ended the attempt, to be written by whoever finds it missing."""
        try:
            content = json.loads(self.layout.closed(name, generation).read_text(encoding="utf-8"))
            return parse_event(content["file"], content["event"]) if content["file"] else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def sweep(self) -> None:
        """Removes what killed processes left in the temporary folder."""
        now_s = self.now_s()
        for path in (*_entries(self.layout.temporary), *self.layout.leases.glob(".probe-*")):
            try:
                if now_s - path.stat().st_mtime > STALE_TEMPORARY_S:
                    path.unlink()
            except FileNotFoundError:
                continue


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def process_identity(pid: int) -> str | None:
    """A name for a process that no later process with the same number shares; None where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = Path("/proc/self/ns/pid").readlink()
        return f"{boot} {space} {pid} {_start_ticks(pid)}"
    except (OSError, IndexError):
        return None


def process_is_gone(identity: str | None) -> bool:
    """True only where it is certain: the process ran on this very machine, since its last start, and is no more."""
    if not identity:
        return False
    boot, space, pid, ticks = identity.split(" ")
    try:
        here = Path("/proc/sys/kernel/random/boot_id").read_text().strip(), str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return False
    if here != (boot, space):
        return False
    try:
        return _start_ticks(int(pid)) != ticks
    except (OSError, IndexError):
        return not Path(f"/proc/{pid}").exists()


def _start_ticks(pid: int) -> str:
    # the second field, the program's name, may hold spaces and brackets
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
