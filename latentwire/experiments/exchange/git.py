"""Git, as the registry uses it: commands whose output is read, and trees that are merged without touching the checkout."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from latentwire.errors import LatentWireError
from latentwire.experiments.registry.events import one_line

TIMEOUT_S = 300.0
_FALLBACK_NAME = {"NAME": "latentwire", "EMAIL": "latentwire@localhost"}

#: (path, blob there or None, blob here or None, blob upstream or None) → what becomes of the path: paths with their blobs
Resolve = Callable[[str, "str | None", "str | None", "str | None"], Mapping[str, str]]


class GitError(LatentWireError):
    """A git command failed; the message is git's."""


class Git:
    """Git in one checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
        self.folder = Path(self("rev-parse", "--show-toplevel").strip())
        if not self.ok("var", "GIT_COMMITTER_IDENT"):  # a node where nobody has told git who they are
            for role in ("AUTHOR", "COMMITTER"):
                for key, value in _FALLBACK_NAME.items():
                    self.environment.setdefault(f"GIT_{role}_{key}", value)

    def __call__(self, *arguments: str, stdin: str | None = None, index: Path | None = None) -> str:
        """Standard output. Raises ``GitError``."""
        return self.output(*arguments, stdin=stdin, index=index).decode("utf-8", "surrogateescape")

    def output(self, *arguments: str, stdin: str | None = None, index: Path | None = None) -> bytes:
        """Standard output as it is. Raises ``GitError``."""
        done = self._run(arguments, stdin, index)
        if done.returncode:
            said = one_line(done.stderr.decode("utf-8", "replace") or done.stdout.decode("utf-8", "replace"), 300)
            raise GitError(f"git {' '.join(arguments[:2])} failed: {said or f'exit code {done.returncode}'}")
        return done.stdout

    def ok(self, *arguments: str) -> bool:
        """Whether a command succeeds."""
        return self._run(arguments, None, None).returncode == 0

    def _run(self, arguments: Sequence[str], stdin: str | None, index: Path | None) -> subprocess.CompletedProcess[bytes]:
        environment = {**self.environment, **({"GIT_INDEX_FILE": str(index)} if index else {})}
        data = (stdin or "").encode("utf-8", "surrogateescape")
        try:
            return subprocess.run(
                ["git", *arguments], cwd=self.folder, env=environment, input=data, capture_output=True, timeout=TIMEOUT_S
            )
        except FileNotFoundError:
            raise GitError("git is not installed here") from None
        except subprocess.TimeoutExpired:
            raise GitError(f"git {' '.join(arguments[:2])} took longer than {TIMEOUT_S:.0f} s") from None

    # ------------------------------------------------------------------------------------------------------- reading

    def relative(self, path: Path) -> str:
        """A path as git names it. The checkout may be reached through a link; the path's last part may not be one."""
        inside = Path(os.path.realpath(path.parent)) / path.name
        return Path(os.path.relpath(inside, os.path.realpath(self.folder))).as_posix()

    def resolve(self, revision: str) -> str | None:
        """The full id of a revision, or None where it does not exist."""
        done = self._run(("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}"), None, None)
        return done.stdout.decode().strip() if done.returncode == 0 else None

    def differs(self, one: str, other: str, *paths: str) -> bool:
        """Whether two trees differ in these paths."""
        return bool(self("diff-tree", "-r", "--name-only", one, other, "--", *paths))

    def blobs(self, objects: Mapping[str, str]) -> dict[str, bytes]:
        """Key → object id or ``revision:path`` in; key → content out, in one call. What does not exist is left out."""
        if not objects:
            return {}
        content = self.output("cat-file", "--batch", stdin="".join(f"{name}\n" for name in objects.values()))
        found, position = {}, 0
        for key in objects:
            end = content.index(b"\n", position)
            words = content[position:end].split()
            position = end + 1
            if words[-1] == b"missing":
                continue
            size = int(words[-1])
            found[key] = content[position : position + size]
            position += size + 1
        return found

    # ------------------------------------------------------------------------------------------------------- writing

    @contextmanager
    def own_index(self) -> Iterator[Path]:
        """An index of our own, so that what a person has staged stays as it is."""
        with tempfile.TemporaryDirectory(prefix="latentwire-index-") as folder:
            yield Path(folder) / "index"

    def add_blob(self, content: bytes) -> str:
        """Stores content and returns its id."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            return self("hash-object", "-w", "--no-filters", file.name).strip()

    def commit(self, tree: str, parents: Sequence[str], message: str) -> str:
        """A commit of a tree; no branch moves."""
        flags = [flag for parent in parents for flag in ("-p", parent)]
        return self("commit-tree", tree, *flags, stdin=message).strip()

    def merge_trees(self, base: str, here: str, there: str, resolve: Resolve) -> str:
        """The tree of a three-way merge. ``resolve`` decides about paths that both sides have changed."""
        with self.own_index() as index:
            self("read-tree", "-i", "-m", "--aggressive", base, here, there, index=index)
            stages: dict[str, dict[str, str]] = {}
            modes: dict[str, str] = {}
            for line in self("ls-files", "-u", "-z", index=index).split("\0")[:-1]:
                about, path = line.split("\t", 1)
                mode, blob, stage = about.split(" ")
                stages.setdefault(path, {})[stage] = blob
                modes[path] = mode
            lines = []
            for path, found in stages.items():
                lines.append(f"0 {'0' * 40}\t{path}\0")
                for target, blob in resolve(path, found.get("1"), found.get("2"), found.get("3")).items():
                    lines.append(f"{modes[path]} {blob}\t{target}\0")
            if lines:
                self("update-index", "-z", "--index-info", stdin="".join(lines), index=index)
            return self("write-tree", index=index).strip()

    def with_files(self, tree: str, files: Mapping[str, str]) -> str:
        """A tree with these paths set to these blobs."""
        if not files:
            return tree
        with self.own_index() as index:
            self("read-tree", tree, index=index)
            lines = "".join(f"100644 {blob}\t{path}\0" for path, blob in files.items())
            self("update-index", "-z", "--index-info", stdin=lines, index=index)
            return self("write-tree", index=index).strip()

    def merge_text(self, base: str | None, here: str | None, there: str | None) -> str | None:
        """The blob that merges two changed texts, or None where they conflict."""
        if base is None or here is None or there is None:
            return None
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / name for name in ("here", "base", "there")]
            for path, blob in zip(paths, (here, base, there)):
                path.write_bytes(self.output("cat-file", "blob", blob))
            done = self._run(("merge-file", "-p", *map(str, paths)), None, None)
        return self.add_blob(done.stdout) if done.returncode == 0 else None
