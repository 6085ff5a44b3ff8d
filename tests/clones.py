"""Clones of this checkout for tests: a bare repository in the middle, working copies around it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def bare_repository(folder: Path) -> Path:
    """A repository whose branch ``main`` is this checkout's commit."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet", "--bare", "--initial-branch=main")
    git(ROOT, "push", "--quiet", str(folder), "HEAD:refs/heads/main")
    return folder


def clone(bare: Path, folder: Path) -> Path:
    git(bare, "clone", "--quiet", "--branch", "main", str(bare), str(folder))
    git(folder, "config", "user.email", "test@example.org")
    git(folder, "config", "user.name", "Test")
    return folder


def environment(folder: Path) -> dict[str, str]:
    """For commands in a clone: its own caches, this interpreter with the clone's code."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH" and not key.startswith(("LATENTWIRE_", "SLURM"))}
    return {
        **kept,
        "LATENTWIRE_PYTHON": sys.executable,
        "LATENTWIRE_SCRATCH": str(folder.parent / f"{folder.name}-scratch"),
        "HF_HUB_OFFLINE": "1",
    }


def manager(folder: Path, *flags: str) -> str:
    """``scripts/experiment_manager.py`` in a clone."""
    command = [sys.executable, "scripts/experiment_manager.py", *flags]
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
