"""Every file name of the registry, in one place.

``runs/registry/<experiment>/``       the truth: one file per event, in git
``runs/experiment_registry.json``     the view, rebuilt from the events, in git
``runs/logs/``                        logs of attempts, size-capped, in git
``runs/.logs/``                       the whole logs of those that were cut
``runs/.leases/``                     claims, heartbeats and caches of this checkout, never in git
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from latentwire.errors import UsageError

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=@-]{0,199}")
CORRUPT = ".corrupt"


def check_name(name: str) -> str:
    """The name itself. Raises ``UsageError`` where it could not be a folder on every system."""
    if not is_name(name):
        raise UsageError(
            f"experiment name {name!r} cannot be a folder; use 1-200 letters, digits and . _ + = @ -, a letter or digit first"
        )
    return name


def is_name(name: str) -> bool:
    """Whether it could be the name of an experiment: a path is none."""
    return bool(_SAFE_NAME.fullmatch(name))


def safe_name(text: str) -> str:
    """The nearest allowed name, for names from elsewhere."""
    return re.sub(r"[^A-Za-z0-9._+=@-]+", "-", text).lstrip("._+=@-")[:200] or "unnamed"


class Layout:
    """File names below one ``runs`` folder. ``root``, the folder that holds it, is what recorded paths are relative to."""

    def __init__(self, runs: Path) -> None:
        # a runs folder that is a link to scratch keeps its root in the checkout
        self.runs = Path(os.path.abspath(runs))  # noqa: PTH100
        self.root = self.runs.parent
        self.registry = self.runs / "registry"
        self.view = self.runs / "experiment_registry.json"
        self.legacy = self.runs / "experiment_registry.imported.json"
        self.logs = self.runs / "logs"
        self.whole_logs = self.runs / ".logs"
        self.leases = self.runs / ".leases"
        self.temporary = self.leases / "tmp"
        self.index = self.leases / "index.tsv"
        self.place = self.leases / "place"
        self.git_lock = self.leases / "git"

    def events(self, name: str) -> Path:
        return self.registry / name

    def claims(self, name: str) -> Path:
        return self.leases / "claims" / name

    def lease(self, name: str, generation: int) -> Path:
        return self.claims(name) / f"{generation:06d}.lease"

    def closed(self, name: str, generation: int) -> Path:
        """Made exclusively by whoever ends an attempt: its owner, or who takes over."""
        return self.claims(name) / f"{generation:06d}.closed"

    def log(self, name: str, generation: int, owner: str) -> Path:
        """Two clusters may make the same generation: the owner keeps their logs apart."""
        return self.logs / f"{name}.{generation}-{owner[:8]}.log"

    def relative(self, path: Path | str) -> str:
        """As recorded: relative to ``root`` where it lies below it, with forward slashes."""
        given = Path(path)
        full = Path(os.path.abspath(self.root / given))  # noqa: PTH100
        try:
            return full.relative_to(self.root).as_posix()
        except ValueError:
            return full.as_posix()

    def absolute(self, recorded: str) -> Path:
        """Where a recorded path is."""
        return self.root / recorded
