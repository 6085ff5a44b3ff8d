"""The place where experiments are about to run: can it hold, load and compute what they need?

Checked before a job's first experiment, so that a full disk, a missing package or a locked model costs seconds and one line
instead of ninety failed experiments. What is needed comes in as ``Needs``; this module knows no config.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

PROBLEM, WARNING = "problem", "warning"
#: environment variables that name caches and scratch, with what falls to their place when they are not set
CACHES = (
    ("LATENTWIRE_CACHE", "~/.cache/latentwire"),
    ("HF_HOME", "~/.cache/huggingface"),
    ("TMPDIR", tempfile.gettempdir()),
)
#: written once to find quotas, which no free-space figure shows
WRITE_PROBE_BYTES = 1 << 20
PROBE_TIMEOUT_S = 180.0
#: activations, key-value caches and the CUDA context, on top of weights, gradients and optimiser
GPU_OVERHEAD_SHARE, GPU_OVERHEAD_BYTES = 0.15, 2 << 30

_PROBE = """
import json, sys
found = {"imports": {}, "gpus": []}
for name in sys.argv[1:]:
    try:
        __import__(name)
    except BaseException as error:
        found["imports"][name] = f"{type(error).__name__}: {error}"
try:
    torch = sys.modules["torch"]
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        found["gpus"].append({"name": torch.cuda.get_device_name(index), "free": free, "total": total})
except BaseException as error:
    found["cuda_error"] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Needs:
    """What the experiments of a job ask of the place. Sizes in bytes; ``gpu_bytes`` None: a CPU will do."""

    root: Path
    run_bytes: int = 0
    cache_bytes: int = 0
    gpu_bytes: int | None = None
    modules: tuple[str, ...] = ("torch", "transformers", "safetensors")
    notes: tuple[tuple[str, str], ...] = field(default=())


@dataclass(frozen=True)
class Finding:
    """One line about the place; a ``problem`` keeps experiments from starting, a ``warning`` does not."""

    level: str
    text: str


def check_place(needs: Needs, *, environment: Mapping[str, str] | None = None) -> list[Finding]:
    """Everything that is wrong here, problems first. An empty list: go on."""
    environ: Mapping[str, str] = os.environ if environment is None else environment
    found = [Finding(level, text) for level, text in needs.notes]
    found += _folders(needs, environ)
    found += _versions()
    found += _probe(needs, environ)
    found += git_findings(needs.root)
    return sorted(found, key=lambda item: item.level != PROBLEM)


# ----------------------------------------------------------------------------------------------------------------- disk


def _folders(needs: Needs, environ: Mapping[str, str]) -> list[Finding]:
    """Caches, scratch and ``runs/`` can be written, and the disks they are on have room."""
    wanted: list[tuple[str, Path, int]] = [("runs", needs.root / "runs", needs.run_bytes)]
    for variable, default in CACHES:
        folder = Path(environ.get(variable) or default).expanduser()
        wanted.append((variable, folder, needs.cache_bytes if variable == "LATENTWIRE_CACHE" else 0))
    found: list[Finding] = []
    needed_by_disk: dict[int, tuple[int, Path]] = {}
    for name, folder, size in wanted:
        problem = _unwritable(folder)
        if problem is not None:
            found.append(Finding(PROBLEM, f"{name}: {str(folder)!r} cannot be written ({problem}); {_mend(name)}"))
            continue
        disk = folder.stat().st_dev
        needed_by_disk[disk] = (needed_by_disk.get(disk, (0, folder))[0] + size, folder)
    for size, folder in needed_by_disk.values():
        free = shutil.disk_usage(folder).free
        if free < size:
            text = f"{str(folder)!r}: {_gib(free)} free, {_gib(size)} needed; free space or point LATENTWIRE_CACHE elsewhere"
            found.append(Finding(PROBLEM, text))
    return found


def _unwritable(folder: Path) -> str | None:
    """Why a file cannot be written in ``folder`` (created where it is missing), or None."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".latentwire-probe-", dir=str(folder))
        try:
            os.write(handle, b"\0" * WRITE_PROBE_BYTES)
            os.fsync(handle)
        finally:
            os.close(handle)
            Path(name).unlink()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _mend(name: str) -> str:
    if name == "runs":
        return "free space, or ask for rights in this folder"
    return f"set {name} to a folder on scratch"


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


# ---------------------------------------------------------------------------------------------------------- environment


def _versions() -> list[Finding]:
    """The installed packages against what LatentWire declares; extras are left to those who use them."""
    found: list[Finding] = []
    try:
        wanted = requires("latentwire") or []
    except PackageNotFoundError:
        return [Finding(WARNING, "latentwire is not installed here, so versions are not checked; `make setup` installs it")]
    for line in wanted:
        if "extra ==" in line:
            continue
        name = re.split(r"[\s<>=!~;\[(]", line, maxsplit=1)[0]
        try:
            present = version(name)
        except PackageNotFoundError:
            found.append(Finding(PROBLEM, f"package {name} is not installed in {sys.prefix}; run `make setup`"))
            continue
        if not _fits(present, line[len(name) :].partition(";")[0]):
            found.append(Finding(PROBLEM, f"{name} {present} is installed, {line.partition(';')[0]} is needed; run `make setup`"))
    return found


def _fits(present: str, wanted: str) -> bool:
    """Whether a version fits ``>=2.13,<2.14``; only what this project's own requirements use is understood."""
    for comparison, bound in re.findall(r"(>=|<=|==|<|>)\s*([\w.]+)", wanted):
        here, there = _numbers(present), _numbers(bound)
        width = max(len(here), len(there))
        here, there = here + (0,) * (width - len(here)), there + (0,) * (width - len(there))
        if not {">=": here >= there, "<=": here <= there, "==": here == there, "<": here < there, ">": here > there}[comparison]:
            return False
    return True


def _numbers(text: str) -> tuple[int, ...]:
    """``2.13.0+cu128`` → (2, 13, 0)."""
    found = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def _probe(needs: Needs, environ: Mapping[str, str]) -> list[Finding]:
    """Imports for real and looks at the GPU, in a process of its own: nothing stays allocated here."""
    command = [sys.executable, "-c", _PROBE, *needs.modules]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, env=dict(environ), check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [Finding(PROBLEM, f"{sys.executable} cannot be started ({type(error).__name__}); run `make setup`")]
    try:
        seen: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return [
            Finding(PROBLEM, f"{sys.executable} ends with {done.returncode} while it imports {', '.join(needs.modules)}: {last}")
        ]
    found = [
        Finding(PROBLEM, f"{name} cannot be imported ({_one_line(why)}); run `make setup`")
        for name, why in sorted(seen["imports"].items())
    ]
    return found + _gpus(needs, seen)


def _gpus(needs: Needs, seen: Mapping[str, Any]) -> list[Finding]:
    if needs.gpu_bytes is None:
        return []
    wanted = int(needs.gpu_bytes * (1 + GPU_OVERHEAD_SHARE)) + GPU_OVERHEAD_BYTES
    if not seen["gpus"]:
        why = _one_line(seen.get("cuda_error") or "torch finds no CUDA device")
        return [Finding(PROBLEM, f"no GPU is visible ({why}); this pair needs {_gib(wanted)} on one. Ask Slurm for --gpus=1")]
    return [
        Finding(PROBLEM, f"GPU {index} ({gpu['name']}): {_gib(gpu['free'])} of {_gib(gpu['total'])} free, {_gib(wanted)} needed")
        for index, gpu in enumerate(seen["gpus"])
        if gpu["free"] < wanted
    ]


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]


# ------------------------------------------------------------------------------------------------------------------ git


def git_findings(root: Path) -> list[Finding]:
    """Whether results can go back through git: a checkout, no merge left half-done; uncommitted code is worth a warning."""
    inside = _git(root, "rev-parse", "--git-dir")
    if inside is None:
        return [Finding(WARNING, f"{str(root)!r} is no git checkout; results stay here and say no commit")]
    folder = Path(inside) if Path(inside).is_absolute() else root / inside
    half_done = [name for name in ("rebase-merge", "rebase-apply", "MERGE_HEAD", "CHERRY_PICK_HEAD") if (folder / name).exists()]
    found: list[Finding] = []
    if half_done:
        text = "git: a merge, rebase or cherry-pick is not finished; finish or abort it, see `git status`"
        found.append(Finding(PROBLEM, text))
    changed = [line for line in (_git(root, "status", "--porcelain") or "").splitlines() if not line[3:].startswith("runs/")]
    if changed:
        text = f"git: {len(changed)} files differ from the commit, the first {changed[0][3:]!r}; results will say so (dirty)"
        found.append(Finding(WARNING, text))
    if _git(root, "config", "user.email") is None:
        found.append(
            Finding(
                WARNING,
                "git: no user.email is set, so commits are by latentwire@localhost; git config user.email you@example.org",
            )
        )
    return found


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=str(root), capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.rstrip("\n") if done.returncode == 0 else None


def problems(findings: Sequence[Finding]) -> list[str]:
    """The texts of those findings that keep experiments from starting."""
    return [item.text for item in findings if item.level == PROBLEM]
