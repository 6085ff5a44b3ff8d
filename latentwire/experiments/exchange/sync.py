"""Results and registry through git.

``push_results`` commits what lies under ``runs/`` and brings it upstream, in a running job too: the code that is checked out never
changes. ``sync`` is for people: the same, and upstream's code comes in. Plain ``git pull`` and ``git push`` work beside both.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from latentwire.errors import LatentWireError
from latentwire.experiments.exchange.collect import collect
from latentwire.experiments.exchange.git import Git, GitError
from latentwire.experiments.exchange.merge import RunsMerge, set_aside, view_of
from latentwire.experiments.registry.events import COMPLETED, note_on_stderr
from latentwire.experiments.registry.layout import CORRUPT, Layout
from latentwire.experiments.registry.leases import process_identity, process_is_gone
from latentwire.experiments.registry.registry import Registry
from latentwire.files import create_exclusively, write_bytes

MOST_FILE_BYTES = 5 * 2**20
TRIES, FIRST_PAUSE_S, MOST_PAUSE_S = 8, 0.5, 20.0
LOCK_AGE_S, LOCK_WAIT_S = 900.0, 300.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Upstream:
    """Where the checked-out branch is pushed to."""

    remote: str
    branch: str

    @property
    def ref(self) -> str:
        return f"refs/remotes/{self.remote}/{self.branch}"


def push_results(registry: Registry, *, say: Say = note_on_stderr) -> str:
    """Commits ``runs/`` and pushes it; the checked-out code stays as it is. Returns one line about what was done.

    Raises:
        GitError: no checkout, or git refuses. LatentWireError: upstream could not be reached; the results are committed here, and
        the next call brings them.
    """
    return _exchange(registry, take_code=False, say=say)


def sync(registry: Registry, *, say: Say = note_on_stderr) -> str:
    """``push_results``, and upstream's changes, code too, come into this checkout.

    Raises:
        GitError: as above, or local changes are in the way, which then stay untouched.
    """
    return _exchange(registry, take_code=True, say=say)


def _exchange(registry: Registry, *, take_code: bool, say: Say) -> str:
    git = Git(registry.layout.root)
    if registry.layout.runs.is_symlink():
        raise GitError(f"{str(registry.layout.runs)!r} is a link, behind which git holds nothing; make it a folder of the checkout")
    with _alone(registry):
        registry.reap()
        collect(registry.layout, registry.experiments().values())
        registry.rebuild_view()
        upstream, problem, files = _upstream(git), "", 0
        for attempt in range(TRIES):
            if attempt:
                time.sleep(min(MOST_PAUSE_S, FIRST_PAUSE_S * 2**attempt) * random.uniform(0.5, 1.5))
            try:
                with suppress(FileNotFoundError):
                    os.utime(registry.layout.git_lock)
                files += _commit_runs(git, registry, say)
                done = _integrate(git, registry, upstream, take_code=take_code) if upstream else "no remote, so nothing was pushed"
            except _TryAgainError as error:
                problem = str(error)
                say(f"{problem}; trying again")
                continue
            registry.rebuild_view()
            return f"committed {files} files; {done}" if files else f"nothing new here; {done}"
    raise LatentWireError(f"not pushed after {TRIES} tries ({problem}); all is committed here, the same command goes on")


class _TryAgainError(Exception):
    """Worth another try: somebody else pushed first, or the network failed."""


# ----------------------------------------------------------------------------------------------------------- committing


def _commit_runs(git: Git, registry: Registry, say: Say) -> int:
    """Commits what is new under ``runs/`` on the current branch, leaving alone what a person has staged. Returns how many files."""
    head = git.resolve("HEAD")
    if head is None:
        raise GitError("this checkout has no commit yet; make one first")
    paths = set_aside(git, registry, _new_files(git, registry.layout, say), head)
    if not paths:
        return 0
    with git.own_index() as index:
        git("read-tree", head, index=index)
        git("update-index", "--add", "-z", "--stdin", stdin="".join(f"{path}\0" for path in paths), index=index)
        tree = git("write-tree", index=index).strip()
    tree, view = _with_view(git, registry, tree)
    changed = tree != git("rev-parse", f"{head}^{{tree}}").strip()
    if changed:
        commit = git.commit(tree, [head], _message(registry, len(paths)))
        git("update-ref", "-m", "results", "HEAD", commit, head)
    # a checkout without other changes is then clean, and can move
    write_bytes(registry.layout.view, view)
    paths = sorted({*paths, f"{git.relative(registry.layout.runs)}/{registry.layout.view.name}"})
    try:
        git("update-index", "--add", "-z", "--stdin", stdin="".join(f"{path}\0" for path in paths))
    except GitError as error:
        if "index.lock" in str(error):
            raise _TryAgainError("another git command is at work here") from None
        raise
    return len(paths) if changed else 0


def _with_view(git: Git, registry: Registry, tree: str) -> tuple[str, bytes]:
    """A tree with the view that fits its events, and that view."""
    runs = git.relative(registry.layout.runs)
    view = view_of(git, runs, tree)
    return git.with_files(tree, {f"{runs}/{registry.layout.view.name}": git.add_blob(view)}), view


def _new_files(git: Git, layout: Layout, say: Say) -> list[str]:
    """Files under ``runs/`` that git does not ignore and has not yet. What was deleted stays in git."""
    runs = git.relative(layout.runs)
    listed = git("ls-files", "-z", "--others", "--modified", "--exclude-standard", "--", runs)
    staged = git("diff-index", "-z", "--cached", "--name-only", "HEAD", "--", runs)
    paths = []
    for path in sorted(set((listed + staged).split("\0")) - {""}):
        file = git.folder / path
        if not file.is_file() or file.is_symlink() or path.endswith((CORRUPT, ".tmp")):
            continue
        if file.stat().st_size > MOST_FILE_BYTES:
            say(f"{path} is larger than {MOST_FILE_BYTES / 2**20:.0f} MiB and stays here")
            continue
        paths.append(path)
    return paths


def _message(registry: Registry, files: int) -> str:
    counts: dict[str, int] = {}
    for entry in registry.overview():
        counts[entry.state] = counts.get(entry.state, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: (item[0] != COMPLETED, item[0]))
    states = ", ".join(f"{count} {state}" for state, count in ordered)
    return f"Results and registry: {states or f'{files} files'}\n"


# ---------------------------------------------------------------------------------------------------------- integrating


def _upstream(git: Git) -> Upstream | None:
    """Where this branch goes: as configured, else a branch of the same name at the first remote."""
    branch = git("rev-parse", "--abbrev-ref", "HEAD").strip()
    if branch == "HEAD":
        raise GitError("no branch is checked out, so results cannot be pushed; `git switch BRANCH` first")
    remotes = git("remote").split()
    if not remotes:
        return None
    configured = [git("config", "--default", "", f"branch.{branch}.{key}").strip() for key in ("remote", "merge")]
    remote = configured[0] or ("origin" if "origin" in remotes else remotes[0])
    return Upstream(remote, configured[1].replace("refs/heads/", "", 1) or branch)


def _integrate(git: Git, registry: Registry, upstream: Upstream, *, take_code: bool) -> str:
    """One try: fetch, merge, push. Raises ``_TryAgainError`` where another try may help."""
    runs = git.relative(registry.layout.runs)
    there, here = _fetch(git, upstream), git.resolve("HEAD") or ""
    if there == here:
        return "upstream has it all"
    if there is None or git.ok("merge-base", "--is-ancestor", there, here):
        return _push(git, upstream, here)
    base = git("merge-base", here, there).strip()
    code_here, code_there = (git.differs(base, side, ".", f":(exclude){runs}") for side in (here, there))
    move = take_code or not code_there
    if base == here:
        moved = move and _move(git, here, there, runs)
        return "took what was new upstream" if moved else "upstream has it all"
    tree = git.merge_trees(base, here, there, RunsMerge(git, registry, runs, here=here, there=there).resolve)
    tree, _ = _with_view(git, registry, tree)
    message = "; ".join(dict.fromkeys(git("log", "--format=%s", f"{base}..{here}").splitlines())) + "\n"
    pushed = git.commit(tree, [there, here] if code_here else [there], message)
    if not (move and _move(git, here, pushed, runs)) and not code_here:
        # a checkout that stays where it is keeps its commits as ancestors, so that a later `git pull` finds nothing twice
        pushed = git.commit(tree, [there, here], message)
    return _push(git, upstream, pushed)


def _fetch(git: Git, upstream: Upstream) -> str | None:
    """Upstream's newest commit, or None where it does not have the branch yet."""
    try:
        git("fetch", "--quiet", upstream.remote, f"+refs/heads/{upstream.branch}:{upstream.ref}")
    except GitError as error:
        if "couldn't find remote ref" in str(error):
            return None
        raise _TryAgainError(str(error)) from None
    return git.resolve(upstream.ref)


def _move(git: Git, here: str, commit: str, runs: str) -> bool:
    """Branch and checkout go to a commit. False, changing nothing, where a job has just written into a file that differs there.

    Raises:
        GitError: local changes of code are in the way.
    """
    git.ok("update-index", "-q", "--refresh")  # git compares times first, and takes a file that was only touched for changed
    if git.resolve("HEAD") != here:
        raise _TryAgainError("somebody has committed here meanwhile")
    try:
        git("reset", "--quiet", "--keep", commit)
    except GitError as error:
        if "index.lock" in str(error):
            raise _TryAgainError("another git command is at work here") from None
        if f"'{runs}/" in str(error):
            return False
        raise GitError(f"{error}; commit or stash your changes, then run it again") from None
    return True


def _push(git: Git, upstream: Upstream, commit: str) -> str:
    try:
        git("push", "--quiet", upstream.remote, f"{commit}:refs/heads/{upstream.branch}")
    except GitError as error:
        quicker = any(words in str(error) for words in ("fetch first", "non-fast-forward", "cannot lock ref"))
        raise _TryAgainError("somebody else has pushed first" if quicker else str(error)) from None
    return f"pushed to {upstream.remote}/{upstream.branch}"


@contextmanager
def _alone(registry: Registry) -> Iterator[None]:
    """One exchange at a time in a checkout.

    A lock whose holder was killed is broken, on its machine at once, elsewhere after a quarter of an hour.
    """
    layout, token = registry.layout, json.dumps({"id": os.urandom(8).hex(), "process": process_identity(os.getpid())})
    give_up_s = time.monotonic() + LOCK_WAIT_S
    while not create_exclusively(layout.git_lock, token, temporary_folder=layout.temporary):
        try:
            gone = process_is_gone(_holder(layout.git_lock.read_text(encoding="utf-8")))
            if gone or registry.leases.now_s() - layout.git_lock.stat().st_mtime > LOCK_AGE_S:
                os.replace(layout.git_lock, layout.temporary / f"broken-{os.urandom(8).hex()}.tmp")
                continue
        except FileNotFoundError:
            continue
        if time.monotonic() > give_up_s:
            raise LatentWireError(f"another command has been pushing results for {LOCK_WAIT_S:.0f} s; run this again later")
        time.sleep(random.uniform(0.2, 0.8))
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            if layout.git_lock.read_text(encoding="utf-8") == token:  # nobody has broken it
                layout.git_lock.unlink()


def _holder(token: str) -> str | None:
    """The process that holds the lock, where that is known."""
    try:
        found = json.loads(token).get("process")
    except (ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None
