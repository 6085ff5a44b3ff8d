"""What the tests of the registry share: planned experiments, results on disk, clones of one repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from latentwire.experiments.registry.registry import Claim, Registry

ROOT = Path(__file__).resolve().parents[2]


def plan(registry: Registry, name: str, config_hash: str = "hash-1", **settings: object) -> None:
    folder = f"runs/out/{name}"
    registry.plan(
        name,
        config={"name": name, **settings},
        config_hash=config_hash,
        command=["true"],
        run_folder=folder,
        result_file=f"{folder}/results.json",
    )


def write_result(registry: Registry, name: str, content: object = None) -> Path:
    path = registry.layout.runs / "out" / name / "results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"accuracy": 0.5} if content is None else content))
    return path


def claimed(registry: Registry, name: str, lease_s: float = 60.0) -> Claim:
    claim = registry.claim(name, lease_s=lease_s)
    assert claim is not None
    return claim


def completed(registry: Registry, name: str, accuracy: float = 0.5) -> Claim:
    claim = claimed(registry, name)
    write_result(registry, name, {"accuracy": accuracy})
    registry.complete(claim, result_file=None)
    return claim


def let_lease_run_out(registry: Registry, claim: Claim) -> None:
    """As if the last heartbeat had been long ago."""
    path = registry.layout.lease(claim.name, claim.generation)
    past_s = path.stat().st_mtime - claim.lease_s - 60
    os.utime(path, (past_s, past_s))


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=someone", "-c", "user.email=someone@localhost", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout


def make_clones(folder: Path, *names: str) -> list[Path]:
    """Clones of one bare repository, which holds this project's rules of what git takes, and a file that stands for the code."""
    git(folder, "init", "--quiet", "--bare", "upstream.git")
    clones = []
    for name in names:
        git(folder, "clone", "--quiet", "upstream.git", name)
        clone = folder / name
        if not clones:
            for rules in (".gitignore", ".gitattributes"):
                shutil.copy(ROOT / rules, clone / rules)
            (clone / "code.py").write_text("print('first')\n")
            git(clone, "add", ".")
            git(clone, "commit", "--quiet", "-m", "Start")
            git(clone, "push", "--quiet", "origin", "HEAD:main")
        clones.append(clone)
    return clones


def commit_code(clone: Path, text: str) -> None:
    (clone / "code.py").write_text(text)
    git(clone, "add", "code.py")
    git(clone, "commit", "--quiet", "-m", f"Code: {text.strip()}")
