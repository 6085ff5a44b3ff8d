"""How two clones' ``runs/`` become one, without anybody's help.

Events never conflict: no two have one name. Of results and logs that two clusters wrote for one experiment, those of the attempt
that decides its state stay in place and the others beside them, as ``<file>.other-<digest>``. The view is made anew.
"""

from __future__ import annotations

from collections.abc import Mapping

from latentwire.experiments.events import Event, parse_event, read_events
from latentwire.experiments.fold import Folded, fold
from latentwire.experiments.git import Git, GitError
from latentwire.experiments.registry import Registry
from latentwire.experiments.view import view_content, view_line


def view_of(git: Git, runs: str, tree: str) -> bytes:
    """The view that fits the events in a tree, neither older nor newer: a checkout of it has nothing to repair."""
    blobs: dict[str, str] = {}
    for line in git("ls-tree", "-r", "-z", tree, "--", f"{runs}/registry").split("\0")[:-1]:
        about, path = line.split("\t", 1)
        blobs[path] = about.split()[2]
    events: dict[str, list[Event]] = {}
    for path, content in git.blobs(blobs).items():
        name, _, file_name = path[len(f"{runs}/registry/") :].partition("/")
        try:
            events.setdefault(name, []).append(parse_event(file_name, content))
        except ValueError:
            continue  # set aside and named when it is read in a checkout
    folded = (fold(name, events[name], note=lambda line: None) for name in sorted(events))
    return view_content(view_line(item.experiment, item.deciding) for item in folded)


class RunsMerge:
    """The merge of one commit here with one upstream."""

    def __init__(self, git: Git, registry: Registry, runs: str, *, here: str, there: str) -> None:
        self.git, self.registry, self.runs, self.here, self.there = git, registry, runs, here, there
        self.view_path = f"{runs}/{registry.layout.view.name}"
        self._incoming = self._read_incoming()
        self._folded: dict[str, Folded] = {}
        self._folders = [(folder, name) for name in self._names() if (folder := self._fold(name).experiment.run_folder)]

    def resolve(self, path: str, base: str | None, here: str | None, there: str | None) -> Mapping[str, str]:
        """What becomes of a path that both sides have changed. Raises ``GitError`` where code conflicts."""
        if path != self.view_path and not path.startswith(f"{self.runs}/"):
            merged = here if there == base else self.git.merge_text(base, here, there)
            if merged is None:
                raise GitError(f"{path} was changed here and upstream; merge it with `git pull --rebase`, then run this again")
            return {path: merged}
        if here is None or there is None:
            kept = here or there
            return {path: kept} if kept else {}
        if path == self.view_path:
            return {path: there}
        kept, other = (here, there) if self._is_ours(path) else (there, here)
        return {path: kept, f"{path}.other-{other[:8]}": other}

    def _is_ours(self, path: str) -> bool:
        """Whether the attempt that decides was made in this checkout; what belongs to no experiment is taken from upstream."""
        inside = self.registry.layout.root
        relative = path if inside == self.git.folder else self.registry.layout.relative(self.git.folder / path)
        for folder, name in self._folders:
            if relative.startswith(f"{folder}/") or relative == self._fold(name).experiment.result_file:
                deciding = self._fold(name).deciding
                start = self._fold(name).starts.get(deciding.owner, {}) if deciding else {}
                return start.get("place") == self.registry.leases.place()
        return False

    def _names(self) -> list[str]:
        return sorted({*self._incoming, *(entry.name for entry in self.registry.overview())})

    def _fold(self, name: str) -> Folded:
        """An experiment as it is once both sides are one."""
        if name not in self._folded:
            events = read_events(self.registry.layout.events(name), note=self.registry.note)
            self._folded[name] = fold(name, [*events, *self._incoming.get(name, [])], note=lambda line: None)
        return self._folded[name]

    def _read_incoming(self) -> dict[str, list[Event]]:
        """Events that upstream has and this side has not."""
        registry = f"{self.runs}/registry"
        flags = ("--no-renames", "--diff-filter=A", "--name-only", "-r", "-z")
        listed = self.git("diff-tree", *flags, self.here, self.there, "--", registry)
        found: dict[str, list[Event]] = {}
        blobs = {path: f"{self.there}:{path}" for path in listed.split("\0")[:-1]}
        for path, content in self.git.blobs(blobs).items():
            name, _, file_name = path[len(registry) + 1 :].partition("/")
            try:
                found.setdefault(name, []).append(parse_event(file_name, content))
            except ValueError:
                continue  # set aside and named when it is read in the checkout
        return found
