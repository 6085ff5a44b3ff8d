"""The registry under many processes that are killed at random: nothing is lost, torn, run twice at once, or stuck."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from latentwire.experiments.registry.check import validate
from latentwire.experiments.registry.events import parse_event
from latentwire.experiments.registry.model import State
from latentwire.experiments.registry.registry import Registry
from tests.experiments.helping import git, make_clones, plan

pytestmark = pytest.mark.slow
WORKER = Path(__file__).with_name("storm_worker.py")
SCRIPT = Path(__file__).resolve().parents[2] / "telepathy/experiment_registry.py"
PROCESSES, EXPERIMENTS, KILLS = 16, 500, 200
#: experiments that two clones share
SHARED = 40
PATIENCE_S = 150.0


def plan_all(registry: Registry, count: int) -> None:
    for number in range(count):
        plan(registry, f"experiment-{number:03d}")


class Storm:
    """Workers of one checkout, restarted as they are killed."""

    def __init__(self, runs: Path, witness: Path, processes: int, rng: random.Random) -> None:
        self.runs, self.witness, self.rng, self.kills = runs, witness, rng, 0
        witness.mkdir()
        self.workers = [self._start() for _ in range(processes)]

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-S", str(WORKER), str(self.runs), str(self.witness), str(self.rng.randrange(2**32))]
        with (self.witness / "errors").open("ab") as errors:
            return subprocess.Popen(command, stdout=errors, stderr=errors)

    def kill_one(self) -> None:
        index = self.rng.randrange(len(self.workers))
        self.workers[index].kill()
        self.kills += self.workers[index].wait() == -9
        self.workers[index] = self._start()

    def end(self) -> None:
        (self.witness / "stop").touch()
        for worker in self.workers:
            try:
                worker.wait(30)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()

    def acknowledged(self) -> list[tuple[str, int, str, str]]:
        lines = [line for path in self.witness.glob("acknowledged.*") for line in path.read_text().splitlines()]
        return [tuple(json.loads(line)) for line in lines if line.endswith("]")]

    def errors(self) -> str:
        return (self.witness / "errors").read_text()


def all_completed(registry: Registry) -> bool:
    return all(entry.state == State.COMPLETED.value for entry in registry.overview())


def wait_until(done: Callable[[], bool], *, patience_s: float) -> bool:
    until = time.monotonic() + patience_s
    while not done() and time.monotonic() < until:
        time.sleep(0.25)
    return done()


def assert_nothing_lost_or_torn(registry: Registry, acknowledged: list[tuple[str, int, str, str]]) -> None:
    for path in registry.layout.registry.rglob("*"):
        if path.is_file():
            parse_event(path.name, path.read_bytes())  # raises for anything torn, or that is no event
    attempts = {
        (name, attempt.generation, attempt.owner): attempt.state.value
        for name, experiment in registry.experiments().items()
        for attempt in experiment.attempts
    }
    for name, generation, owner, state in acknowledged:
        known = attempts[name, generation, owner]
        if state not in ("running", "stale"):
            assert known == state, (name, generation, owner)


def test_killed_workers_lose_nothing(tmp_path: Path) -> None:
    rng = random.Random(11)
    registry = Registry(tmp_path / "runs")
    plan_all(registry, EXPERIMENTS)
    storm = Storm(tmp_path / "runs", tmp_path / "witness", PROCESSES, rng)
    marked: list[str] = []
    try:
        until = time.monotonic() + PATIENCE_S
        while storm.kills < KILLS and time.monotonic() < until:
            time.sleep(rng.uniform(0.1, 0.35))
            storm.kill_one()
            if rng.random() < 0.1:
                name = f"experiment-{rng.randrange(EXPERIMENTS):03d}"
                registry.mark_rerun(name, reason="storm")
                marked.append(name)
        assert storm.kills >= KILLS
        assert wait_until(lambda: all_completed(registry), patience_s=PATIENCE_S), storm.errors()
    finally:
        storm.end()
    assert registry.reap() == []
    assert storm.errors() == ""
    assert list(storm.witness.glob("twice.*")) == []
    acknowledged = storm.acknowledged()
    assert_nothing_lost_or_torn(registry, acknowledged)
    experiments = registry.experiments()
    assert len(experiments) == EXPERIMENTS
    lost = [attempt for item in experiments.values() for attempt in item.attempts if attempt.state is State.LOST]
    # many kills hit a worker at work, and each of those is on record
    assert len(lost) > KILLS / 5
    assert all(attempt.state is not State.RUNNING for item in experiments.values() for attempt in item.attempts)
    for name, item in experiments.items():
        generations = [attempt.generation for attempt in item.attempts]
        assert len(set(generations)) == len(generations), name
        completed = sum(attempt.state is State.COMPLETED for attempt in item.attempts)
        assert completed >= 1
        if name not in marked:
            assert completed == 1, name
    registry.rebuild_view()
    assert len(json.loads(registry.layout.view.read_text())["experiments"]) == EXPERIMENTS


class Syncer(threading.Thread):
    """Pushes the results of one checkout every few seconds, as a job does."""

    def __init__(self, clone: Path, pause_s: float) -> None:
        super().__init__(daemon=True)
        self.clone, self.pause_s, self.failures, self.rounds = clone, pause_s, [], 0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(self.pause_s):
            self.push()

    def push(self) -> None:
        command = [sys.executable, "-S", str(SCRIPT), "--registry", str(self.clone / "runs"), "push-results"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.rounds += 1
        if done.returncode:
            self.failures.append(done.stderr)

    def end(self) -> None:
        self.ended.set()
        self.join()


def all_ended(syncers: list[Syncer], registries: list[Registry]) -> bool:
    """Whether no attempt is open; each clone hears of the other's lost ones by an exchange only."""
    for syncer in (*syncers, *syncers):
        syncer.push()
    return not any(entry.is_open for registry in registries for entry in registry.refresh())


def test_two_clones_that_conflict_all_the_time_become_one(tmp_path: Path) -> None:
    rng = random.Random(5)
    one, two, laptop = make_clones(tmp_path, "one", "two", "laptop")
    registries = {clone: Registry(clone / "runs") for clone in (one, two, laptop)}
    plan_all(registries[laptop], SHARED)
    laptop_syncer = Syncer(laptop, 0.0)
    laptop_syncer.push()
    for clone in (one, two):
        git(clone, "pull", "--quiet")
    storms = [Storm(clone / "runs", tmp_path / f"witness-{clone.name}", 3, rng) for clone in (one, two)]
    syncers = [Syncer(clone, pause_s) for clone, pause_s in ((one, 1.5), (two, 2.1))]
    for syncer in syncers:
        syncer.start()
    try:
        for _ in range(8):  # a person marks re-runs while both clusters work, with the plain commands of git in between
            time.sleep(1.5)
            name = f"experiment-{rng.randrange(SHARED):03d}"
            registries[laptop].mark_rerun(name, reason="marked on the laptop")
            laptop_syncer.push()
            git(laptop, "pull", "--quiet", "--rebase")
            rng.choice(storms).kill_one()
        heard = [syncer.rounds + 2 for syncer in syncers]  # the last mark has reached both by then
        assert wait_until(
            lambda: all(syncer.rounds >= rounds for syncer, rounds in zip(syncers, heard, strict=True)), patience_s=60
        )
        assert wait_until(lambda: all(all_completed(registries[clone]) for clone in (one, two)), patience_s=PATIENCE_S)
    finally:
        for storm in storms:
            storm.end()
        for syncer in syncers:
            syncer.end()
    # what a killed worker has left half-done is over before the last exchange
    assert wait_until(partial(all_ended, syncers, [registries[clone] for clone in (one, two)]), patience_s=60)
    for syncer in (*syncers, laptop_syncer, *syncers, laptop_syncer):
        syncer.push()
    assert [syncer.failures for syncer in (*syncers, laptop_syncer)] == [[], [], []]
    assert [storm.errors() for storm in storms] == ["", ""]
    assert all(syncer.rounds > 3 for syncer in syncers)
    for clone, registry in registries.items():
        assert git(clone, "status", "--porcelain") == ""
        assert all_completed(registry)
        assert validate(registry) == []
        for storm in storms:
            assert_nothing_lost_or_torn(registry, storm.acknowledged())
    for storm in storms:
        assert list(storm.witness.glob("twice.*")) == []
    assert registries[one].experiments() == registries[two].experiments() == registries[laptop].experiments()
    assert registries[one].layout.view.read_text() == registries[laptop].layout.view.read_text()
    # they did conflict: some experiments have attempts of one generation from both clusters
    shared = registries[laptop].experiments().values()
    assert any(len({attempt.generation for attempt in item.attempts}) < len(item.attempts) for item in shared)
