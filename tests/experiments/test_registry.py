"""What users and workers ask of the registry."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from pathlib import Path

import pytest

from latentwire.errors import LatentWireError, StaleClaimError, UnknownNameError, UsageError
from latentwire.experiments.registry import events as event_files
from latentwire.experiments.registry.check import validate
from latentwire.experiments.registry.model import ErrorClass, State
from latentwire.experiments.registry.registry import Claim, Registry
from tests.experiments.helping import claimed, completed, let_lease_run_out, plan, write_result


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def registry(tmp_path: Path, said: list[str]) -> Registry:
    return Registry(tmp_path / "runs", note=said.append)


def events_of(registry: Registry, name: str) -> list[str]:
    return sorted(path.name.split("-")[1] for path in registry.layout.events(name).iterdir())


def test_an_empty_registry_has_nothing_and_makes_nothing(registry: Registry) -> None:
    assert registry.experiments() == {}
    assert registry.reap() == []
    registry.rebuild_view()
    assert not registry.layout.runs.exists()
    with pytest.raises(UnknownNameError, match="unknown experiment 'a'"):
        registry.experiment("a")


def test_from_plan_to_result(registry: Registry) -> None:
    plan(registry, "a", expected="nothing")
    assert registry.should_run("a") == (True, "never run")
    claim = registry.claim("a", lease_s=60.0, gpu="3", job_id="4711", log="runs/logs/a.log")
    assert claim is not None
    assert registry.should_run("a") == (False, f"running on {socket.gethostname()}, job 4711")
    assert registry.claim("a", lease_s=60.0) is None
    write_result(registry, "a", {"accuracy": 0.75})
    assert registry.complete(claim, result_file=None) is State.COMPLETED
    experiment = registry.experiment("a")
    attempt = experiment.last
    assert attempt is not None
    assert (attempt.gpu, attempt.job_id, attempt.log, attempt.exit_code) == ("3", "4711", "runs/logs/a.log", 0)
    assert attempt.metrics == {"accuracy": 0.75}
    assert (attempt.result_file, len(attempt.result_sha256 or "")) == ("runs/out/a/results.json", 64)
    assert registry.should_run("a")[0] is False
    assert registry.claim("a", lease_s=60.0) is None


def test_planning_again_changes_nothing_and_another_config_does(registry: Registry) -> None:
    for _ in range(3):
        plan(registry, "a")
    assert events_of(registry, "a") == ["plan"]
    completed(registry, "a")
    assert registry.should_run("a", config_hash="hash-1")[0] is False
    assert registry.should_run("a", config_hash="hash-2") == (True, "the config has changed since it was planned")
    plan(registry, "a", "hash-2")
    assert registry.experiment("a").state is State.PENDING
    assert claimed(registry, "a").fresh


@pytest.mark.parametrize("name", ["../a", "", "a/b", ".hidden", "a b", "x" * 201, "-a"])
def test_names_that_are_no_folders_are_refused(registry: Registry, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a folder"):
        registry.claim(name, lease_s=1.0)
    assert not registry.layout.runs.exists()


def test_preempted_goes_on_and_a_failure_is_tried_as_often_as_its_class_allows(registry: Registry) -> None:
    plan(registry, "a")
    registry.preempt(claimed(registry, "a"))
    assert registry.experiment("a").state is State.PREEMPTED
    for failures in (1, 2, 3):
        claim = claimed(registry, "a")
        assert not claim.fresh
        registry.fail(claim, error="connection reset", error_class=ErrorClass.NETWORK, exit_code=1)
        assert registry.should_run("a") == (True, f"retry {failures} of 3 after network: connection reset")
    registry.fail(claimed(registry, "a"), error="connection reset", error_class=ErrorClass.NETWORK, exit_code=1)
    assert registry.should_run("a") == (False, "failed, network: connection reset; mark it for re-run when that is mended")
    registry.mark_rerun("a", reason="the network is back")
    assert registry.should_run("a") == (True, "marked for re-run: the network is back")
    assert registry.experiment("a").last is not None
    assert claimed(registry, "a").generation == 6


def test_an_import_error_is_not_tried_again(registry: Registry) -> None:
    plan(registry, "a")
    registry.fail(claimed(registry, "a"), error="no module\nnamed peft", error_class=ErrorClass.IMPORT, exit_code=1)
    assert registry.should_run("a")[0] is False
    assert registry.experiment("a").reason == "import: no module named peft"


def test_who_was_taken_over_is_refused_whatever_it_does(registry: Registry) -> None:
    plan(registry, "a")
    old = claimed(registry, "a")
    registry.heartbeat(old)
    let_lease_run_out(registry, old)
    new = claimed(registry, "a")
    assert new.generation == old.generation + 1
    write_result(registry, "a")
    for act in (
        lambda: registry.heartbeat(old),
        lambda: registry.complete(old, result_file=None),
        lambda: registry.fail(old, error="", error_class=ErrorClass.UNKNOWN, exit_code=1),
        lambda: registry.preempt(old),
    ):
        with pytest.raises(StaleClaimError, match="stop its work, nothing was recorded"):
            act()
    registry.heartbeat(new)
    assert registry.complete(new, result_file=None) is State.COMPLETED
    assert [attempt.state for attempt in registry.experiment("a").attempts] == [State.LOST, State.COMPLETED]


def test_a_claim_that_comes_between_the_look_and_the_lease_of_another_is_left_alone(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan(registry, "a")
    quicker: list[Claim] = []
    decide = Registry._decide

    def slow(self: Registry, *arguments: object, **settings: object) -> tuple[bool, str]:
        answer = decide(self, *arguments, **settings)  # type: ignore[arg-type]
        if not quicker:
            monkeypatch.undo()
            quicker.append(claimed(Registry(registry.layout.runs), "a"))
        return answer

    monkeypatch.setattr(Registry, "_decide", slow)
    assert registry.claim("a", lease_s=60.0) is None
    registry.heartbeat(quicker[0])
    assert registry.experiment("a").state is State.RUNNING


def test_a_lost_one_is_found_and_its_owner_refused(registry: Registry) -> None:
    plan(registry, "a")
    claim = claimed(registry, "a")
    assert registry.reap() == []
    let_lease_run_out(registry, claim)
    registry.heartbeat(claim)
    assert registry.reap() == []
    let_lease_run_out(registry, claim)
    assert registry.reap() == ["a"]
    assert registry.experiment("a").reason == "lost: no heartbeat for 60 s"
    assert registry.reap() == []
    with pytest.raises(StaleClaimError):
        registry.complete(claim, result_file=None)


def test_one_that_is_lost_again_and_again_is_left_alone(registry: Registry) -> None:
    plan(registry, "a")
    for _ in range(10):
        let_lease_run_out(registry, claimed(registry, "a"))
        registry.reap()
    assert registry.should_run("a") == (False, "lost 10 times; see --diagnose, then mark it for re-run")


def test_the_clock_of_this_machine_plays_no_part(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    plan(registry, "a")
    claimed(registry, "a")
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s + 10 * 86_400)
    assert registry.reap() == []
    assert registry.claim("a", lease_s=60.0) is None


def test_a_running_one_of_another_checkout_is_never_judged_here(registry: Registry, tmp_path: Path) -> None:
    plan(registry, "a")
    claimed(registry, "a", lease_s=0.001)
    shutil.copytree(registry.layout.registry, tmp_path / "laptop" / "registry")
    laptop = Registry(tmp_path / "laptop")
    assert laptop.reap() == []
    assert laptop.should_run("a")[0] is False
    assert laptop.claim("a", lease_s=60.0) is None
    laptop.mark_rerun("a", reason="that machine is gone")
    assert laptop.claim("a", lease_s=60.0) is not None


def test_marked_while_it_runs_it_is_not_started_beside_itself(registry: Registry) -> None:
    plan(registry, "a")
    claim = claimed(registry, "a")
    registry.mark_rerun("a", reason="new data")
    assert registry.experiment("a").state is State.PENDING
    assert registry.should_run("a")[0] is False
    write_result(registry, "a")
    registry.complete(claim, result_file=None)
    assert registry.experiment("a").state is State.PENDING
    assert registry.should_run("a") == (True, "marked for re-run: new data")


def test_a_result_from_before_the_mark_is_not_taken_for_the_new_one(registry: Registry) -> None:
    plan(registry, "a")
    completed(registry, "a")
    registry.mark_rerun("a", reason="a fault in the code")
    claim = claimed(registry, "a")
    assert claim.fresh
    assert registry.complete(claim, result_file=None) is State.INVALID
    assert registry.experiment("a").reason == "the result file results.json is older than this attempt, which wrote none"


@pytest.mark.parametrize("how", ["preempted", "failed"])
def test_nor_by_the_attempt_that_goes_on_with_the_first_one_since(registry: Registry, how: str) -> None:
    plan(registry, "a")
    completed(registry, "a")
    registry.mark_rerun("a", reason="a fault in the code")
    first = claimed(registry, "a")
    if how == "preempted":
        registry.preempt(first)
    else:
        registry.fail(first, error="out of memory", error_class=ErrorClass.OOM, exit_code=1)
    second = claimed(registry, "a")
    assert (first.fresh, second.fresh) == (True, False)
    assert registry.complete(second, result_file=None) is State.INVALID
    registry.mark_rerun("a", reason="again")
    third = claimed(registry, "a")
    write_result(registry, "a", {"accuracy": 0.75})
    assert registry.complete(third, result_file=None) is State.COMPLETED


def test_what_a_checkout_left_before_the_mark_is_not_gone_on_with_because_another_has_begun(
    registry: Registry, tmp_path: Path
) -> None:
    plan(registry, "a")
    completed(registry, "a")
    other = Registry(tmp_path / "other" / "runs", note=registry.note)
    shutil.copytree(registry.layout.registry, other.layout.registry)
    other.mark_rerun("a", reason="a fault in the code")
    begun = claimed(other, "a")
    assert begun.fresh
    other.preempt(begun)
    shutil.copytree(other.layout.registry, registry.layout.registry, dirs_exist_ok=True)
    assert claimed(registry, "a").fresh


def test_bytes_that_are_no_text_are_recorded_as_question_marks(registry: Registry) -> None:
    plan(registry, "a")
    registry.fail(claimed(registry, "a"), error="caf\udce9 broke", error_class=ErrorClass.UNKNOWN, exit_code=1)
    registry.mark_rerun("a", reason="caf\udce9")
    registry.refresh()
    experiment = registry.experiment("a")
    assert experiment.attempts[0].error == "caf? broke"
    assert experiment.reason == "marked for re-run: caf?"


def test_what_is_damaged_is_named_by_the_first_validation(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_files, "UNFINISHED_WAIT_S", 0.001)
    plan(registry, "a")
    completed(registry, "a")
    (event,) = registry.layout.events("a").glob("*-completed-*")
    event.write_bytes(event.read_bytes()[:40])
    assert any("was cut or corrupt" in problem.what for problem in validate(registry))


def test_neither_is_that_of_an_experiment_without_a_plan(registry: Registry) -> None:
    completed(registry, "unplanned")
    result = registry.layout.runs / "out/unplanned/results.json"
    claim = registry.claim("again", lease_s=60.0)
    assert claim is not None
    assert registry.complete(claim, result_file=str(result)) is State.COMPLETED
    registry.mark_rerun("again", reason="a fault in the code")
    assert registry.complete(claimed(registry, "again"), result_file=str(result)) is State.INVALID


def test_an_owner_that_died_while_recording_has_recorded(registry: Registry) -> None:
    """Killed between having the last word and writing the event: anybody writes it."""
    plan(registry, "a")
    claim = claimed(registry, "a")
    write_result(registry, "a")
    registry.complete(claim, result_file=None)
    (event,) = registry.layout.events("a").glob("*-completed-*")
    content = event.read_bytes()
    event.unlink()
    assert registry.experiment("a").state is State.RUNNING
    assert registry.reap() == []
    assert registry.experiment("a").state is State.COMPLETED
    assert event.read_bytes() == content
    event.unlink()
    assert registry.complete(claim, result_file=None) is State.COMPLETED  # the owner, called again
    assert event.read_bytes() == content


def test_a_corrupt_event_is_set_aside_and_named(registry: Registry, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_files, "UNFINISHED_WAIT_S", 0.001)
    plan(registry, "a")
    claim = claimed(registry, "a")
    registry.preempt(claim)
    (event,) = registry.layout.events("a").glob("*-preempted-*")
    event.write_bytes(event.read_bytes()[:40])
    assert registry.experiment("a").state is State.RUNNING
    assert len(said) == 1
    assert "is cut or corrupt" in said[0]
    assert event.with_name(event.name + ".corrupt").stat().st_size == 40
    assert not event.exists()


def test_an_event_that_git_is_still_writing_is_waited_for(
    registry: Registry, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan(registry, "a")
    (event,) = registry.layout.events("a").iterdir()
    content = event.read_bytes()
    event.write_bytes(content[:10])
    # the rest comes while the reader waits
    monkeypatch.setattr(event_files.time, "sleep", lambda seconds: event.write_bytes(content))
    assert registry.experiment("a").config_hash == "hash-1"
    assert said == []


def test_the_view_has_one_line_per_experiment_and_repairs_itself(registry: Registry) -> None:
    for name in ("b", "a"):
        plan(registry, name)
    completed(registry, "a")
    registry.rebuild_view()
    text = registry.layout.view.read_text()
    assert [line.split(":")[0] for line in text.splitlines()[1:-1]] == ['"a"', '"b"']
    assert json.loads(text)["experiments"]["a"]["metrics"] == {"accuracy": 0.5}
    for damage in (text[:200], text.replace("completed", "failed"), text.replace('"b"', '<<<<<<< ours\n"b"')):
        registry.layout.view.write_text(damage)
        registry.rebuild_view()
        assert registry.layout.view.read_text() == text
    before = registry.layout.view.stat().st_mtime_ns
    registry.rebuild_view()
    assert registry.layout.view.stat().st_mtime_ns == before


def test_the_cache_never_hides_an_event(registry: Registry) -> None:
    """Also one that arrives within the same tick of the file system as the reading."""
    plan(registry, "a")
    for generation in range(1, 30):
        claim = claimed(registry, "a")
        assert (claim.generation, registry.overview()[0].state) == (generation, "running")
        registry.preempt(claim)
        assert registry.overview()[0].state == "preempted"
        assert registry.experiments()["a"].state is State.PREEMPTED


def test_a_damaged_cache_costs_time_only(registry: Registry) -> None:
    plan(registry, "a")
    completed(registry, "a")
    whole = registry.overview()
    text = registry.layout.index.read_text()
    for damage in ("", text[:-9], text.replace("completed", "failed"), "\0\1\2"):
        registry.layout.index.write_text(damage)
        assert [entry.line for entry in registry.overview()] == [entry.line for entry in whole]


def test_with_a_full_disk_nothing_is_half_written(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    plan(registry, "a")
    claim = claimed(registry, "a")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LatentWireError, match=r"No space left on device; nothing was changed"):
        registry.preempt(claim)
    monkeypatch.undo()
    assert events_of(registry, "a") == ["plan", "start"]
    assert list(registry.layout.temporary.iterdir()) == []
    registry.preempt(claim)
    assert registry.experiment("a").state is State.PREEMPTED


# ------------------------------------------------------------------------------------------------------------- the queue


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scheduler that says what the file ``queue`` holds, or does not answer where there is none."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "squeue").write_text(f'#!/bin/sh\nexec cat "{tmp_path}/queue"\n')
    (folder / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "queue"


def fresh(registry: Registry) -> Registry:
    """Another process, which asks the queue anew."""
    return Registry(registry.layout.runs, note=registry.note)


def test_a_job_that_is_gone_is_lost_at_once(registry: Registry, queue: Path) -> None:
    plan(registry, "a")
    assert registry.claim("a", lease_s=86_400.0, job_id="77") is not None
    queue.write_text("77                  RUNNING             0\n")
    assert fresh(registry).reap() == []
    queue.write_text("78                  RUNNING             0\n")
    assert fresh(registry).reap() == ["a"]
    assert registry.experiment("a").reason == "lost: job 77 is gone"


def test_a_job_that_still_runs_is_not_lost_although_its_lease_is_over(registry: Registry, queue: Path) -> None:
    plan(registry, "a")
    claim = registry.claim("a", lease_s=60.0, job_id="77")
    assert claim is not None
    let_lease_run_out(registry, claim)
    queue.write_text("77                  RUNNING             0\n")
    assert fresh(registry).reap() == []
    assert fresh(registry).claim("a", lease_s=60.0) is None


@pytest.mark.parametrize("line", ["77 RUNNING 1", "77 PENDING 0"])
def test_what_ran_before_a_job_was_requeued_is_gone(registry: Registry, queue: Path, line: str) -> None:
    plan(registry, "a")
    assert registry.claim("a", lease_s=86_400.0, job_id="77") is not None
    queue.write_text(f"{line}\n")
    assert fresh(registry).reap() == ["a"]


def test_a_queue_that_does_not_answer_changes_nothing(registry: Registry, queue: Path) -> None:
    plan(registry, "a")
    claim = registry.claim("a", lease_s=60.0, job_id="77")
    assert claim is not None
    assert not queue.exists()
    assert fresh(registry).reap() == []
    let_lease_run_out(registry, claim)
    assert fresh(registry).reap() == ["a"]


def test_a_worker_that_died_inside_a_job_that_runs_on_is_lost_after_its_lease(registry: Registry, queue: Path) -> None:
    process = os.fork()
    if process == 0:
        os._exit(0)
    plan(registry, "a")
    queue.write_text("77 RUNNING 0\n")
    claim = registry.claim("a", lease_s=60.0, job_id="77", pid=process)  # ended, and not yet waited for
    assert claim is not None
    os.waitpid(process, 0)
    assert fresh(registry).reap() == []
    let_lease_run_out(registry, claim)
    assert fresh(registry).reap() == ["a"]
