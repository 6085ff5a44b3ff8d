"""How two clones' ``runs/`` become one, without anybody's help.

Events never conflict: no two have one name. Of results and logs that two clusters wrote for one experiment, those of the attempt
that decides its state stay in place and the others beside them, as ``<file>.other-<digest>``; also where git sees no conflict,
because one came by git before the other was written. The view is made anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from latentwire.experiments.exchange.git import Git, GitError
from latentwire.experiments.registry.events import Event, parse_event, read_events
from latentwire.experiments.registry.fold import Folded, fold
from latentwire.experiments.registry.model import Attempt, State
from latentwire.experiments.registry.registry import Registry
from latentwire.experiments.registry.view import view_content, view_line
from latentwire.files import write_bytes


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


class RunFolders:
    """Whose the files of runs are."""

    def __init__(self, git: Git, registry: Registry, experiments: Iterable[Folded]) -> None:
        self.git, self.registry = git, registry
        self._folders = [(folder, folded) for folded in experiments if (folder := folded.experiment.run_folder)]

    def owner(self, path: str) -> Folded | None:
        """The experiment that a path of git belongs to, or None."""
        layout = self.registry.layout
        relative = path if layout.root == self.git.folder else layout.relative(self.git.folder / path)
        for folder, folded in self._folders:
            if relative.startswith(f"{folder}/") or relative == folded.experiment.result_file:
                return folded
        return None

    def decided_here(self, folded: Folded) -> bool:
        """Whether the attempt that decides its state was made in this checkout."""
        return folded.deciding is not None and self._made_here(folded, folded.deciding)

    def at_work_here(self, folded: Folded) -> bool:
        """Whether an attempt of this checkout has not ended."""
        return any(self._made_here(folded, attempt) for attempt in folded.open_attempts)

    def _made_here(self, folded: Folded, attempt: Attempt) -> bool:
        return folded.starts.get(attempt.owner, {}).get("place") == self.registry.leases.place()


def set_aside(git: Git, registry: Registry, paths: Sequence[str], head: str) -> list[str]:
    """What may be committed of changed files, once those of attempts that do not decide lie beside the committed ones.

    An attempt that was at work here while another checkout's result came in writes over it. Until it ends, its files wait.
    """
    changed = _changed_results(git, registry, paths, head)
    if not changed:
        return list(paths)
    folders = RunFolders(git, registry, registry.folded().values())
    kept = [path for path in paths if path not in changed]
    for path in changed:
        folded = folders.owner(path)
        if folded is None or folders.decided_here(folded) or not _is_committed(git, registry, folded, head):
            kept.append(path)
        elif not folders.at_work_here(folded):
            file = git.folder / path
            beside = file.with_name(f"{file.name}.other-{git('hash-object', '--no-filters', str(file)).strip()[:8]}")
            write_bytes(beside, file.read_bytes())
            write_bytes(file, git.blobs({path: f"{head}:{path}"})[path])
            kept.append(git.relative(beside))
    return sorted(kept)


def _is_committed(git: Git, registry: Registry, folded: Folded, head: str) -> bool:
    """Whether a commit holds the result of the completed attempt that decides."""
    experiment, deciding = folded.experiment, folded.deciding
    if deciding is None or experiment.state is not State.COMPLETED or experiment.result_file is None:
        return False
    path = git.relative(registry.layout.absolute(experiment.result_file))
    content = git.blobs({path: f"{head}:{path}"}).get(path, b"")
    return hashlib.sha256(content).hexdigest() == deciding.result_sha256


def _changed_results(git: Git, registry: Registry, paths: Sequence[str], head: str) -> set[str]:
    """Those that git has in another version and that are files of runs: not events, logs or the view."""
    layout = registry.layout
    own = (f"{git.relative(layout.registry)}/", f"{git.relative(layout.logs)}/", git.relative(layout.view))
    modified = git("diff-index", "-z", "--name-only", "--diff-filter=M", head, "--", git.relative(layout.runs)).split("\0")
    return {path for path in set(modified).intersection(paths) if not path.startswith(own)}


class RunsMerge:
    """The merge of one commit here with one upstream."""

    def __init__(self, git: Git, registry: Registry, runs: str, *, here: str, there: str) -> None:
        self.git, self.registry, self.runs, self.here, self.there = git, registry, runs, here, there
        self.view_path = f"{runs}/{registry.layout.view.name}"
        self._incoming = self._read_incoming()
        self._folded: dict[str, Folded] = {}
        self._folders = RunFolders(git, registry, (self._fold(name) for name in self._names()))

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
        owner = self._folders.owner(path)  # what belongs to no experiment is taken from upstream
        kept, other = (here, there) if owner is not None and self._folders.decided_here(owner) else (there, here)
        return {path: kept, f"{path}.other-{other[:8]}": other}

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
