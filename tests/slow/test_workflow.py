"""The workflow page, block by block as written, over a laptop's clone, a cluster's clone and a real Slurm."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clones import ROOT, bare_repository, clone, environment, git, manager
from tests.slurm_testbed import SlurmTestbed

pytestmark = pytest.mark.slow
SUITE = """
name: workflow
config: configs/nano.yaml
tasks: [tinyworld_topic]
device: cpu
extra:
  - {name: sound, command: [python, telepathy/made_up.py, sound], result_file: runs/workflow/sound/results.json}
  - {name: faulty, command: [python, telepathy/made_up.py, faulty], result_file: runs/workflow/faulty/results.json}
"""
PROGRAM = """
import json, pathlib, sys
if sys.argv[1] in {faults}:
    raise RuntimeError("mat1 and mat2 shapes cannot be multiplied (8x128 and 64x4)")
folder = pathlib.Path("runs/workflow") / sys.argv[1]
folder.mkdir(parents=True, exist_ok=True)
(folder / "results.json").write_text(json.dumps({{"accuracy": 0.75}}))
"""
NAME = "workflow-faulty"


def blocks() -> list[tuple[str, str]]:
    """(where, commands) of every block that says where it is run."""
    text = (ROOT / "docs/workflow.md").read_text()
    return re.findall(r"^```\n# (laptop|cluster)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def with_environment(folder: Path) -> Path:
    """Where a clone expects its environment: this interpreter with the clone's code."""
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "latentwire").write_text(f'#!/bin/sh\nexec {sys.executable} -m latentwire.cli.app "$@"\n')
    (programs / "latentwire").chmod(0o755)
    return folder


def test_the_whole_circle(slurm: SlurmTestbed, tmp_path: Path) -> None:
    bare = bare_repository(tmp_path / "bare")
    clones = {name: with_environment(clone(bare, tmp_path / name)) for name in ("laptop", "cluster")}
    laptop = clones["laptop"]
    (laptop / "configs/workflow.yaml").write_text(SUITE)
    program = laptop / "telepathy/made_up.py"
    program.write_text(PROGRAM.format(faults=["faulty"]))

    def run(where: str, commands: str) -> str:
        commands = commands.replace("configs/paper.yaml", "configs/workflow.yaml").replace("NAME", NAME)
        flags = "--partition=debug --gpus=1 --cpus-per-task=1 --mem=500 --time=10 --wait"
        commands = commands.replace("sbatch ", f"sbatch {flags} ")
        folder = clones[where]
        on_cluster = slurm.environment if where == "cluster" else {}
        variables = {**on_cluster, **environment(folder), **_path(on_cluster)}
        bash = ["bash", "-euo", "pipefail", "-c", commands]
        done = subprocess.run(bash, cwd=folder, env=variables, capture_output=True, text=True, timeout=300, check=False)
        # a job in which an experiment failed says so
        assert done.returncode in ((0, 3) if "sbatch" in commands else (0,)), (commands, done.stdout, done.stderr, _outputs(folder))
        return done.stdout

    found = blocks()
    assert [where for where, _ in found] == ["laptop", "cluster", "laptop", "laptop", "cluster", "laptop"]

    run(*found[0])
    run(*found[1])
    seen = run(*found[2])
    assert "completed" in seen
    assert NAME in seen
    assert "shape" in seen
    for heading in ("Identified Problem", "Background", "Options", "Recommendation"):
        assert heading in seen

    program.write_text(PROGRAM.format(faults=[]))
    run(*found[3])
    assert git(bare, "show", "main:telepathy/made_up.py") == program.read_text()
    run(*found[4])
    seen = run(*found[5])
    assert "failed" not in seen

    summary = json.loads(manager(laptop, "--status", "--json"))
    assert (summary["total"], summary["counts"]["completed"]) == (2, 2)
    details = json.loads(manager(laptop, "--details", NAME, "--json"))
    assert [attempt["state"] for attempt in details["attempts"]] == ["failed", "completed"]
    # logs came back too, so that the failure can be read on the laptop
    assert "mat1 and mat2" in (laptop / details["attempts"][0]["log"]).read_text()
    assert (laptop / "runs/workflow/faulty/results.json").is_file()


def _path(environment_of_slurm: dict[str, str]) -> dict[str, str]:
    return {"PATH": environment_of_slurm["PATH"]} if environment_of_slurm else {}


def _outputs(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted(folder.glob("latentwire-*.out")))


def test_the_manager_needs_no_environment(tmp_path: Path) -> None:
    system = shutil.which("python3", path="/usr/bin:/bin")
    if system is None:
        pytest.skip("no system Python here")
    folder = clone(bare_repository(tmp_path / "bare"), tmp_path / "clone")
    done = subprocess.run(
        [system, "-S", "scripts/experiment_manager.py", "--status"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "no experiments yet" in done.stdout
