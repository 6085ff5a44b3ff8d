"""The paper's job script on a real Slurm, from a clean clone, disturbed in every way that a cluster knows."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentwire.experiments.registry.model import Experiment, State
from latentwire.experiments.registry.registry import Registry
from latentwire.files import file_digest
from tests.clones import bare_repository, clone, environment, git, manager
from tests.slurm_testbed import SlurmTestbed

pytestmark = pytest.mark.slow
SCRIPT = "telepathy/submit_reasoning_final.slurm"
SUITE = "configs/paper_nano.yaml"
EXPERIMENTS = 13
#: of what two runs of one suite may differ in
TIMES = ("latency_ms_p50", "seconds", "git")


def submit(slurm: SlurmTestbed, folder: Path, *, gpus: int) -> str:
    """The number of the job; flags stand in for what this cluster lacks."""
    flags = ["--partition=debug", f"--gpus={gpus}", "--cpus-per-task=1", "--mem=1000", "--time=55", "--parsable"]
    more = {**environment(folder), "PATH": slurm.environment["PATH"], "LATENTWIRE_LEASE_S": "30"}
    return slurm("sbatch", *flags, SCRIPT, SUITE, folder=folder, more=more).strip()


def experiments(folder: Path) -> dict[str, Experiment]:
    return Registry(folder / "runs").experiments()


def count(folder: Path, state: State) -> int:
    return sum(item.state is state for item in experiments(folder).values())


def wait_until(what: Callable[[], bool], why: str, *, timeout_s: float = 240) -> None:
    end = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < end, f"not within {timeout_s:.0f} s: {why}"
        time.sleep(0.3)


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def outputs(folder: Path, item: Experiment) -> dict[str, object]:
    """Everything an experiment leaves behind: result without times, bytes of answers, weights and training log."""
    run = folder / str(item.run_folder)
    found: dict[str, object] = {"results.json": without_times(json.loads((run / "results.json").read_text()))}
    for path in sorted(run.glob("predictions/**/*.jsonl")):
        header, _, answers = path.read_text().partition("\n")
        found[str(path.relative_to(run))] = (without_times(json.loads(header)), answers)
    for name in ("bridge/model.safetensors", "bridge/config.json", "log.jsonl", "config.json"):
        if (run / name).exists():
            found[name] = file_digest(run / name)
    return found


def printed(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted(folder.glob("latentwire-*.out")))


def test_a_disturbed_job_ends_like_an_undisturbed_one(slurm: SlurmTestbed, tmp_path: Path) -> None:
    bare = bare_repository(tmp_path / "bare")
    calm, rough = clone(bare, tmp_path / "calm"), clone(bare, tmp_path / "rough")
    git(calm, "remote", "remove", "origin")
    calm_job, rough_job = submit(slurm, calm, gpus=1), submit(slurm, rough, gpus=2)

    def wait_for_work(completed: int, running: int) -> None:
        def reached() -> bool:
            assert slurm.job(rough_job)["JobState"] in ("RUNNING", "PENDING", "COMPLETING"), printed(rough)
            return count(rough, State.COMPLETED) >= completed and count(rough, State.RUNNING) >= running

        wait_until(reached, f"{completed} completed and {running} running")

    # the warning before a time limit: the script itself asks to be requeued
    wait_for_work(1, 1)
    slurm("scancel", "--batch", "--signal=USR2", rough_job)
    slurm.start_now(rough_job)

    # pre-emption by Slurm
    wait_for_work(3, 2)
    slurm("scontrol", "requeue", rough_job)
    slurm.start_now(rough_job)

    # a worker that is killed outright, as by a lack of memory
    wait_for_work(5, 2)
    victim = next(item for item in experiments(rough).values() if item.state is State.RUNNING)
    assert victim.last is not None
    assert victim.last.pid is not None
    os.kill(victim.last.pid, signal.SIGKILL)

    assert slurm.wait_for(calm_job, "COMPLETED", "FAILED", timeout_s=400) == "COMPLETED", printed(calm)
    assert slurm.wait_for(rough_job, "COMPLETED", "FAILED", timeout_s=400) == "COMPLETED", printed(rough)

    done = experiments(rough)
    assert len(done) == EXPERIMENTS
    for item in done.values():
        assert [attempt.state for attempt in item.attempts].count(State.COMPLETED) == 1, item
        assert item.state is State.COMPLETED
    states = [attempt.state for item in done.values() for attempt in item.attempts]
    assert states.count(State.PREEMPTED) >= 2
    assert states.count(State.LOST) >= 1
    assert set(states) <= {State.COMPLETED, State.PREEMPTED, State.LOST}
    assert any(attempt.state is State.LOST for attempt in done[victim.name].attempts)

    for name, item in experiments(calm).items():
        assert outputs(rough, done[name]) == outputs(calm, item), name

    summary = json.loads(manager(rough, "--status", "--json"))
    assert summary["total"] == EXPERIMENTS
    assert summary["counts"][State.COMPLETED.value] == EXPERIMENTS
    assert sum(summary["counts"].values()) == EXPERIMENTS

    # results came back through git, weights did not
    listed = git(bare, "ls-tree", "-r", "--name-only", "main").splitlines()
    assert sum(name.endswith("/results.json") and name.startswith("runs/paper_nano/") for name in listed) == EXPERIMENTS
    assert not [name for name in listed if name.startswith("runs/") and name.endswith(".safetensors")]


def test_an_array_shares_the_experiments(slurm: SlurmTestbed, tmp_path: Path) -> None:
    folder = clone(bare_repository(tmp_path / "bare"), tmp_path / "array")
    suite = folder / SUITE
    text = (
        suite.read_text()
        .replace("[42, 123]", "[42]")
        .replace("tasks: [tinyworld_topic, tinyworld_record1]", "tasks: [tinyworld_record1]")
    )
    suite.write_text(text)
    flags = ["--partition=debug", "--gpus=1", "--cpus-per-task=1", "--mem=1000", "--time=55", "--parsable", "--array=0-1"]
    more = {**environment(folder), "PATH": slurm.environment["PATH"], "LATENTWIRE_PUSH": "0"}
    number = slurm("sbatch", *flags, SCRIPT, SUITE, folder=folder, more=more).strip()
    for task in ("0", "1"):
        assert slurm.wait_for(f"{number}_{task}", "COMPLETED", "FAILED", timeout_s=300) == "COMPLETED", printed(folder)
    done = experiments(folder)
    assert {item.state for item in done.values()} == {State.COMPLETED}
    assert {len(item.attempts) for item in done.values()} == {1}
    assert len({item.attempts[0].job_id for item in done.values()}) == 2


def test_a_place_that_is_not_ready_ends_the_job_and_touches_nothing(slurm: SlurmTestbed, tmp_path: Path) -> None:
    folder = clone(bare_repository(tmp_path / "bare"), tmp_path / "broken")
    (tmp_path / "file").write_text("no folder")
    more = {**environment(folder), "PATH": slurm.environment["PATH"], "LATENTWIRE_CACHE": str(tmp_path / "file" / "cache")}
    flags = ["--partition=debug", "--gpus=1", "--cpus-per-task=1", "--mem=1000", "--time=10", "--parsable"]
    number = slurm("sbatch", *flags, SCRIPT, SUITE, folder=folder, more=more).strip()
    assert slurm.wait_for(number, "COMPLETED", "FAILED") == "FAILED"
    said = printed(folder)
    assert "LATENTWIRE_CACHE" in said
    assert "no experiment was touched" in said
    assert "Traceback" not in said
    assert not (folder / "runs" / "registry").exists()
    assert "no experiments yet" in manager(folder, "--status")
    assert git(folder, "status", "--porcelain") == ""
