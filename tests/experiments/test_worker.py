"""A worker as its user meets it: what ran, what was recorded, what is left after signals, failures and lost workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from latentwire.errors import LatentWireError, StoppedEarlyError
from latentwire.experiments.registry.model import ErrorClass, Experiment, State
from latentwire.experiments.registry.registry import Registry
from latentwire.experiments.work.child import Child
from latentwire.experiments.work.worker import Summary, Worker, WorkerSettings

ROOT = Path(__file__).resolve().parents[2]
#: a command that leaves a result
GOOD = "import json, pathlib; p = pathlib.Path({folder!r}); p.mkdir(parents=True, exist_ok=True); "
RESULT = "(p / 'results.json').write_text(json.dumps({'accuracy': 0.5}))"
#: goes on from its checkpoint; told to stop, it saves and ends with 75
RESUMABLE = (
    "import signal, sys, time; saved = p / 'checkpoint'; found = saved.exists()\n"
    "def stop(*_): saved.write_text('here'); sys.exit(75)\n"
    "signal.signal(signal.SIGTERM, stop); (p / 'ready').touch()\n"
    "time.sleep(0 if found else 60)\n"
)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "runs")


def planned(registry: Registry, name: str, code: str = RESULT, *, expected_s: float = 1.0, needs: tuple[str, ...] = ()) -> None:
    folder = f"runs/suite/{name}"
    registry.plan(
        name,
        config={"experiment": {"suite": "suite", "needs": list(needs), "threads": 1}},
        config_hash=f"hash of {name}",
        command=["python", "-c", GOOD.format(folder=folder) + code],
        run_folder=folder,
        result_file=f"{folder}/results.json",
        expected_s=expected_s,
    )


def work(registry: Registry, **settings: object) -> tuple[Summary, list[str]]:
    lines: list[str] = []
    options = {"lease_s": 2.0, "poll_s": 0.02, **settings}
    worker = Worker(registry, WorkerSettings(**options), root=registry.layout.root, say=lines.append)  # type: ignore[arg-type]
    return worker.run(), lines


def after(seconds: float, action: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(seconds, action)
    timer.start()
    return timer


def wait_for(path: Path) -> None:
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.02)


def log_of(registry: Registry, item: Experiment) -> str:
    assert item.last is not None
    assert item.last.log is not None
    return registry.layout.absolute(item.last.log).read_text()


def test_everything_is_run_once_the_longest_first(registry: Registry) -> None:
    for name, expected_s in (("short", 1.0), ("long", 9.0), ("middle", 5.0)):
        planned(registry, name, f"{RESULT}; print('did', {name!r})", expected_s=expected_s)
    summary, lines = work(registry)
    assert [line.split(":")[0] for line in lines if "start" in line] == ["long", "middle", "short"]
    assert summary.counts == {"completed": 3}
    done = registry.experiments()
    assert {item.state for item in done.values()} == {State.COMPLETED}
    assert log_of(registry, done["long"]) == "did long\n"
    assert done["long"].attempts[0].metrics == {"accuracy": 0.5}
    assert work(registry)[0].counts == {}


def test_max_leaves_the_rest(registry: Registry) -> None:
    for name in "abc":
        planned(registry, name)
    assert work(registry, most=2)[0].counts == {"completed": 2}
    assert [item.state for item in registry.experiments().values()].count(State.PENDING) == 1


def test_another_suite_is_left_alone(registry: Registry) -> None:
    planned(registry, "a")
    assert work(registry, suite="other")[0].counts == {}


def test_a_failure_is_recorded_with_its_class_and_the_others_go_on(registry: Registry) -> None:
    message = "mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"
    planned(registry, "bad", f"raise RuntimeError({message!r})", expected_s=9.0)
    planned(registry, "good")
    summary, lines = work(registry)
    assert summary.counts == {"failed": 1, "completed": 1}
    bad = registry.experiment("bad").attempts[0]
    assert (bad.state, bad.error_class, bad.exit_code) == (State.FAILED, ErrorClass.SHAPE, 1)
    assert message in str(bad.error)
    assert any("bad: shape" in line for line in lines)


def test_a_command_without_a_result_is_invalid(registry: Registry) -> None:
    planned(registry, "empty", "pass")
    assert work(registry)[0].counts == {"invalid": 1}
    assert "results.json" in registry.experiment("empty").reason


def test_an_import_error_stops_the_queue_after_two(registry: Registry) -> None:
    for number in range(6):
        planned(registry, f"broken{number}", "import a_module_nobody_has")
    with pytest.raises(LatentWireError) as caught:
        work(registry)
    assert "a_module_nobody_has" in str(caught.value)
    assert "\n" not in str(caught.value)
    states = [item.state for item in registry.experiments().values()]
    assert (states.count(State.FAILED), states.count(State.PENDING)) == (2, 4)


def test_out_of_memory_is_tried_again_with_the_batch_in_more_parts(registry: Registry) -> None:
    code = f"import os\nif os.environ.get('LATENTWIRE_BATCH_PARTS') == '2': {RESULT}\nelse: raise MemoryError('out of memory')"
    planned(registry, "large", code)
    assert work(registry)[0].counts == {"failed": 1, "completed": 1}
    assert [attempt.error_class for attempt in registry.experiment("large").attempts] == [ErrorClass.OOM, None]


def test_a_mark_puts_the_batch_together_again(registry: Registry) -> None:
    planned(
        registry, "large", "import os; print('parts', os.environ.get('LATENTWIRE_BATCH_PARTS')); raise MemoryError('out of memory')"
    )
    for _ in range(2):
        work(registry)
        registry.mark_rerun("large", reason="mended")
    attempts = registry.experiment("large").attempts
    said = [registry.layout.absolute(attempt.log or "").read_text() for attempt in attempts]
    assert [text.split("parts ")[1].split()[0] for text in said] == ["None", "2"] * 2


def test_a_command_that_takes_too_long_has_failed(registry: Registry) -> None:
    planned(registry, "slow", "import time; time.sleep(60)")
    counts = work(registry, timeout_s=0.3, most=1)[0].counts
    assert counts == {"failed": 1}
    assert registry.experiment("slow").attempts[0].error_class is ErrorClass.TIMEOUT


def test_what_needs_another_waits_for_it(registry: Registry) -> None:
    planned(registry, "second", needs=("first",), expected_s=9.0)
    planned(registry, "first")
    _, lines = work(registry)
    assert [line.split(":")[0] for line in lines if "start" in line] == ["first", "second"]


def test_what_needs_one_that_failed_is_not_run(registry: Registry) -> None:
    planned(registry, "second", needs=("first",))
    planned(registry, "first", "raise KeyboardInterrupt('no')\n")
    planned(registry, "first", "raise ValueError('the labels do not fit')")
    work(registry)
    assert registry.experiment("first").state is State.FAILED
    assert registry.experiment("second").state is State.PENDING


def test_a_rerun_of_a_finished_one_starts_from_nothing_and_keeps_the_old_files(registry: Registry) -> None:
    planned(registry, "again", f"print(sorted(x.name for x in p.iterdir())); {RESULT}")
    work(registry)
    registry.mark_rerun("again", reason="other code")
    work(registry)
    again = registry.experiment("again")
    assert [attempt.state for attempt in again.attempts] == [State.COMPLETED, State.COMPLETED]
    assert log_of(registry, again) == "[]\n"
    assert len(list((registry.layout.runs / ".replaced").glob("*/results.json"))) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_lets_the_command_save_and_the_next_worker_goes_on(registry: Registry, number: int) -> None:
    planned(registry, "long", RESUMABLE + RESULT)
    planned(registry, "later", expected_s=0.0)
    ready = registry.layout.runs / "suite/long/ready"
    timer = after(0, lambda: (wait_for(ready), os.kill(os.getpid(), number)))
    with pytest.raises(StoppedEarlyError) as caught:
        work(registry)
    timer.join()
    assert caught.value.exit_code == 75
    states = {name: item.state for name, item in registry.experiments().items()}
    assert states == {"long": State.PREEMPTED, "later": State.PENDING}
    assert work(registry)[0].counts == {"completed": 2}
    assert [attempt.state for attempt in registry.experiment("long").attempts] == [State.PREEMPTED, State.COMPLETED]


def test_a_command_that_does_not_listen_is_killed_after_the_grace(registry: Registry) -> None:
    planned(
        registry,
        "deaf",
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); (p / 'ready').touch(); time.sleep(60)",
    )
    ready = registry.layout.runs / "suite/deaf/ready"
    timer = after(0, lambda: (wait_for(ready), os.kill(os.getpid(), signal.SIGTERM)))
    began = time.monotonic()
    with pytest.raises(StoppedEarlyError):
        work(registry, grace_s=0.3)
    timer.join()
    assert time.monotonic() - began < 20
    assert registry.experiment("deaf").state is State.PREEMPTED


def test_a_worker_that_was_taken_over_ends_its_command_and_records_nothing(registry: Registry) -> None:
    planned(registry, "mine", "import os, time; (p / 'pid').write_text(str(os.getpid())); (p / 'ready').touch(); time.sleep(60)")
    other = Registry(registry.layout.runs)

    def take_over() -> None:
        wait_for(registry.layout.runs / "suite/mine/ready")
        lease = registry.layout.lease("mine", 1)
        for _ in range(200):  # until no heartbeat comes in between
            os.utime(lease, (0, 0))
            if other.reap():
                return

    timer = after(0, take_over)
    summary, _ = work(registry, most=1)
    timer.join()
    assert summary.counts == {"taken over": 1}
    assert [attempt.state for attempt in registry.experiment("mine").attempts] == [State.LOST]
    pid = int((registry.layout.runs / "suite/mine/pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a command with the process that started it")
def test_a_worker_killed_outright_leaves_no_command_behind_and_its_experiment_is_run_again(registry: Registry) -> None:
    planned(registry, "lost", "import os, time; (p / 'pid').write_text(str(os.getpid())); (p / 'ready').touch()\n"
            f"if (p / 'seen').exists(): {RESULT}\nelse: (p / 'seen').touch(); time.sleep(60)")  # fmt: skip
    command = [sys.executable, "-m", "latentwire.cli.app", "experiments", "worker", "--lease_s", "2"]
    process = subprocess.Popen(
        command, cwd=registry.layout.root, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL
    )
    wait_for(registry.layout.runs / "suite/lost/seen")
    pid = int((registry.layout.runs / "suite/lost/pid").read_text())
    process.kill()
    process.wait()
    end = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]:
        assert time.monotonic() < end, "the command outlives its worker"
        time.sleep(0.05)
    assert work(registry)[0].counts == {"completed": 1}
    assert [attempt.state for attempt in registry.experiment("lost").attempts] == [State.LOST, State.COMPLETED]


def test_a_command_that_stops_by_itself_is_gone_on_with_but_not_for_ever(registry: Registry) -> None:
    planned(registry, "restless", "raise SystemExit(75)")
    planned(registry, "good")
    assert work(registry)[0].counts == {"completed": 1, "preempted": 3}
    assert registry.experiment("restless").state is State.PREEMPTED


def test_one_that_takes_too_long_and_does_not_listen_is_killed(registry: Registry) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    planned(registry, "slow", deaf)
    began = time.monotonic()
    assert work(registry, timeout_s=1.0, grace_s=0.3, most=1)[0].counts == {"failed": 1}
    assert time.monotonic() - began < 30
    assert registry.experiment("slow").attempts[0].error_class is ErrorClass.TIMEOUT


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who started what")
def test_what_has_a_session_of_its_own_ends_with_the_command(tmp_path: Path) -> None:
    """As torchrun starts its processes: no signal to the command's group reaches them."""
    code = (
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', 'import os, time; open(\"pid\", \"w\").write(str(os.getpid())); time.sleep(60)'],"
        " start_new_session=True)\ntime.sleep(60)\n"
    )
    child = Child([sys.executable, "-c", code], folder=tmp_path, log=tmp_path / "log", environment=os.environ)
    with child:
        wait_for(tmp_path / "pid")
        end = time.monotonic() + 30
        while not (text := (tmp_path / "pid").read_text()):
            assert time.monotonic() < end
        child.kill()
    end = time.monotonic() + 30
    while Path(f"/proc/{text}").exists() and "Z" not in Path(f"/proc/{text}/stat").read_text().split():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with the one that started it")
def test_processes_of_a_training_end_with_their_launcher(tmp_path: Path) -> None:
    rank = (
        "import os, time; from latentwire.processes import die_with_parent; die_with_parent()\n"
        "open('pid.new', 'w').write(str(os.getpid())); os.rename('pid.new', 'pid'); time.sleep(60)"
    )
    launcher = (
        f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {rank!r}], start_new_session=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", launcher], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    wait_for(tmp_path / "pid")
    process.kill()
    process.wait()
    pid = (tmp_path / "pid").read_text()
    end = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_process_of_a_team_ties_itself_to_its_launcher_and_one_alone_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from latentwire.training import parallel

    tied: list[bool] = []
    monkeypatch.setattr(parallel, "die_with_parent", lambda: tied.append(True))
    monkeypatch.setenv("WORLD_SIZE", "1")
    parallel.join_team("cpu")
    assert not tied
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name, value in (("is_initialized", True), ("get_rank", 0), ("get_world_size", 2)):
        monkeypatch.setattr(parallel.distributed, name, lambda value=value: value)
    assert parallel.join_team("cpu")[0].size == 2
    assert tied
