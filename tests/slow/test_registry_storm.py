"""The registry under many processes that are killed at random: nothing is lost, torn, run twice at once, or stuck."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from latentwire.experiments.events import parse_event
from latentwire.experiments.model import State
from latentwire.experiments.registry import Registry

pytestmark = pytest.mark.slow
WORKER = Path(__file__).with_name("storm_worker.py")
PROCESSES, EXPERIMENTS, KILLS = 16, 500, 200
PATIENCE_S = 150.0


def plan_all(registry: Registry, count: int) -> None:
    for number in range(count):
        name = f"experiment-{number:03d}"
        registry.plan(
            name, config={}, config_hash="same", command=["true"], run_folder="runs/work", result_file=f"runs/work/{name}.json"
        )


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
