"""The manager and the registry script, as people and shell scripts call them: on the bare interpreter, without any package."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from latentwire.experiments import manager
from latentwire.experiments.registry.model import ErrorClass, State
from latentwire.experiments.registry.registry import Registry
from latentwire.experiments.shell import main as shell_main
from tests.experiments.helping import ROOT, claimed, completed, git, let_lease_run_out, make_clones, plan

MANAGER, SCRIPT = ROOT / "scripts/experiment_manager.py", ROOT / "telepathy/experiment_registry.py"


def bare(script: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A script on an interpreter that finds no installed package."""
    command = [sys.executable, "-S", "-E", str(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """One experiment in every state."""
    registry = Registry(tmp_path / "runs")
    for state in State:
        plan(registry, state.value)
    let_lease_run_out(registry, claimed(registry, "lost"))
    registry.reap()
    claimed(registry, "running")
    completed(registry, "completed", 0.75)
    registry.fail(claimed(registry, "failed"), error="no module named peft", error_class=ErrorClass.IMPORT, exit_code=1)
    registry.preempt(claimed(registry, "preempted"))
    registry.complete(claimed(registry, "invalid"), result_file=None)
    return registry


def manage(registry: Registry, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = manager.main(["--runs", str(registry.layout.runs), *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_clean_clone_says_what_comes_next(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    done = bare(MANAGER, "--runs", tmp_path / "runs", "--status")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"no experiments yet in {tmp_path}/runs; plan some: latentwire experiments plan configs/paper.yaml\n"
    assert list((tmp_path / "runs").iterdir()) == []


def test_every_command_works_without_any_package(registry: Registry) -> None:
    for flags in (["--status"], ["--list", "failed"], ["--details", "failed"], ["--recent-failures"], ["--rebuild-registry"]):
        for form in ([], ["--json"]):
            done = bare(MANAGER, "--runs", registry.layout.runs, *flags, *form)
            assert (done.returncode, done.stderr) == (0, ""), flags
            assert not form or json.loads(done.stdout)
    assert bare(SCRIPT, "--registry", registry.layout.runs, "summary").stdout.startswith(
        "7 experiments: 1 pending, 1 running, 1 completed"
    )


def test_status_counts_and_names_what_needs_somebody(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = manage(registry, capsys, "--status")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["7", "experiments"]
    assert all([state.value, "1"] in lines for state in State)
    assert "\033[" not in out
    needing = [line[0] for line in lines[lines.index(["needs", "somebody", "state", "reason"]) + 1 :] if line]
    assert needing[:3] == ["failed", "invalid", "lost"]
    content = json.loads(manage(registry, capsys, "--status", "--json")[1])
    assert content["counts"] == {state.value: 1 for state in State}
    assert content["needs_somebody"]["failed"]["reason"] == "import: no module named peft"


@pytest.mark.parametrize("state", [*(state.value for state in State), "all"])
def test_list_takes_every_state(registry: Registry, capsys: pytest.CaptureFixture[str], state: str) -> None:
    code, out, _ = manage(registry, capsys, "--list", state, "--json")
    assert code == 0
    assert list(json.loads(out)) == (sorted(item.value for item in State) if state == "all" else [state])


def test_marking_all_that_failed_takes_lost_and_invalid_too(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = manage(registry, capsys, "--mark-rerun-all-failed", "--reason", "the cluster is back", "--json")
    assert (code, json.loads(out)) == (0, {"marked": ["failed", "invalid", "lost"]})
    for name in ("failed", "invalid", "lost"):
        assert registry.experiment(name).reason == "marked for re-run: the cluster is back"
    view = json.loads(registry.layout.view.read_text())["experiments"]
    assert view["lost"]["state"] == "pending"
    assert "is pending already" in manage(registry, capsys, "--mark-rerun", "lost")[1]
    assert "completed is pending again" in manage(registry, capsys, "--mark-rerun", "completed")[1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--details", "faild"], "error: unknown experiment 'faild'; did you mean failed"),
        (["--mark-rerun", "nothing-like-it"], "error: unknown experiment 'nothing-like-it'; known: completed, failed"),
        (["--list", "faild"], "error: unknown state 'faild'; --list takes pending, running"),
        (["--list", ""], "error: unknown state ''; --list takes pending, running"),
        (["--details", ""], "error: unknown experiment ''"),
        (["--diagnose", ""], "error: unknown experiment ''"),
        (["--mark-rerun", ""], "error: unknown experiment ''"),
        (["--diagnose", ".."], "error: unknown experiment '..'"),
    ],
)
def test_bad_input_is_one_line(registry: Registry, capsys: pytest.CaptureFixture[str], flags: list[str], message: str) -> None:
    code, out, err = manage(registry, capsys, *flags)
    assert (code, out) == (2, "")
    assert err.startswith(message)
    assert err.count("\n") == 1


def test_a_path_is_no_experiment_and_its_files_stay_as_they_are(
    registry: Registry, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("config.json", "results.json"):
        (tmp_path / name).write_text("{}")
    for flag in ("--diagnose", "--details", "--mark-rerun"):
        code, _, err = manage(registry, capsys, flag, str(tmp_path))
        assert (code, err.count("\n")) == (2, 1)
    assert {path.name for path in tmp_path.glob("*.json*")} >= {"config.json", "results.json"}
    assert not list(tmp_path.glob("*.corrupt"))


def test_what_runs_now_is_not_diagnosed_as_lost(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    assert "ended without a word" not in manage(registry, capsys, "--diagnose", "running")[1]


def test_details_and_recent_failures_show_what_is_known(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    out = manage(registry, capsys, "--details", "failed")[1]
    assert "failed: failed" in out
    assert "import: no module named peft" in out
    failures = json.loads(manage(registry, capsys, "--recent-failures", "--json")[1])
    assert {failure["experiment"] for failure in failures} == {"failed", "invalid", "lost"}


def test_validate_finds_what_needs_somebody_and_says_so_by_its_exit_code(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = manage(registry, capsys, "--validate", "--json")
    assert code == 3
    assert {problem["experiment"] for problem in json.loads(out)["problems"]} == {"failed", "invalid", "lost"}
    manage(registry, capsys, "--mark-rerun-all-failed")
    assert manage(registry, capsys, "--validate")[:2] == (0, "7 experiments, nothing to complain about\n")
    result = registry.layout.root / "runs/out/completed/results.json"
    result.write_text('{"accuracy": 0.99}')
    assert "has changed since it was recorded" in manage(registry, capsys, "--validate")[1]
    result.unlink()
    assert "is not in this checkout" in manage(registry, capsys, "--validate")[1]


def test_a_damaged_event_is_taken_back_from_git(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clone,) = make_clones(tmp_path, "clone")
    registry = Registry(clone / "runs")
    plan(registry, "a")
    git(clone, "add", "runs")
    git(clone, "commit", "--quiet", "-m", "Plan")
    (event,) = registry.layout.events("a").iterdir()
    content = event.read_bytes()
    event.write_bytes(b"")
    code, out, err = manage(registry, capsys, "--validate")
    assert code == 3
    assert "set aside" in err
    assert "was cut or corrupt" in out
    assert "taken back from git: runs/registry/a/" in manage(registry, capsys, "--rebuild-registry")[1]
    assert event.read_bytes() == content
    assert manage(registry, capsys, "--validate")[0] == 0


def test_a_registry_behind_a_link_has_nothing_in_git(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clone,) = make_clones(tmp_path, "clone")
    (tmp_path / "scratch").mkdir()
    shutil.rmtree(clone / "runs", ignore_errors=True)
    (clone / "runs").symlink_to(tmp_path / "scratch")
    registry = Registry(clone / "runs")
    plan(registry, "a")
    (event,) = registry.layout.events("a").iterdir()
    event.write_bytes(b"")
    manage(registry, capsys, "--validate")
    code, out, _ = manage(registry, capsys, "--rebuild-registry")
    assert code == 0
    assert "taken back" not in out


# ------------------------------------------------------------------------------------------------------ the shell's script


def shell(registry: Registry, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = shell_main(["--registry", str(registry.layout.runs), *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_one_process_claims_and_another_records(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    assert bare(SCRIPT, "--registry", runs, "should_run", "a").stdout == "1|never run\n"
    assert bare(SCRIPT, "--registry", runs, "start", "a", "--gpu", 1).returncode == 0
    again = bare(SCRIPT, "--registry", runs, "start", "a", "--gpu", 2)
    assert again.returncode == 3
    assert again.stderr.startswith("error: a was not claimed: running on ")
    assert bare(SCRIPT, "--registry", runs, "should_run", "a").stdout.startswith("0|running on ")
    assert bare(SCRIPT, "--registry", runs, "heartbeat", "a").returncode == 0
    (tmp_path / "results.json").write_text('{"loss": 0.1}')
    done = bare(
        SCRIPT, "--registry", runs, "complete", "a", "--result-file", tmp_path / "results.json", "--metrics", '{"accuracy": 0.9}'
    )
    assert (done.returncode, done.stdout) == (0, "a is completed\n")
    attempt = Registry(runs).experiment("a").last
    assert attempt is not None
    assert (attempt.gpu, attempt.metrics, attempt.result_file) == ("1", {"accuracy": 0.9}, "results.json")
    # the name of the file that old scripts gave means the same registry
    assert bare(SCRIPT, "--registry", runs / "experiment_registry.json", "should_run", "a").stdout.startswith("0|completed")


def test_a_failure_gets_its_class_from_code_message_or_log(
    registry: Registry, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "log").write_text("step 1\nOSError: [Errno 122] Disk quota exceeded: 'cache'\n")
    for name, flags, error_class in (
        ("x", ["--error", "ModuleNotFoundError: No module named 'peft'", "--exit-code", 1], ErrorClass.IMPORT),
        ("y", ["--exit-code", 1, "--log", tmp_path / "log"], ErrorClass.DISK_QUOTA),
        ("z", ["--error", "I know better", "--error-class", "nan"], ErrorClass.NAN),
        ("w", ["--error", "CUDA out of memory. Tried to allocate 2.00 GiB", "--exit-code", 1], ErrorClass.OOM),
    ):
        assert shell(registry, capsys, "start", name)[0] == 0
        assert shell(registry, capsys, "fail", name, *flags)[0] == 0
        attempt = registry.experiment(name).last
        assert attempt is not None
        assert attempt.error_class is error_class


def test_what_a_script_gets_wrong_is_one_line(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, code, message in (
        (["complete", "nobody-has-it"], 1, "nobody-has-it is not claimed; `start nobody-has-it` claims it"),
        (["complete", "running", "--owner", "wrong"], 1, "running is not claimed by this owner"),
        (["complete", "running", "--metrics", "{"], 2, "--metrics '{' is no JSON"),
        (["complete", "running", "--metrics", '{"a": "b"}'], 2, "must be names with numbers"),
        (["start", "a/b"], 2, "cannot be a folder"),
        (["start", "new", "--lease-s", 0], 2, "--lease-s 0 is no time"),
        (["import", "/nowhere.json"], 1, "does not exist"),
    ):
        found, _, err = shell(registry, capsys, *arguments)
        assert (found, err.count("\n")) == (code, 1), arguments
        assert message in err
    assert registry.experiment("running").state is State.RUNNING


def test_what_has_ended_is_not_said_to_end_otherwise(
    registry: Registry, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "results.json").write_text('{"accuracy": 0.5}')
    assert shell(registry, capsys, "start", "new")[0] == 0
    assert shell(registry, capsys, "complete", "new", "--result-file", tmp_path / "results.json")[0] == 0
    for command in ("fail", "preempt"):
        code, out, err = shell(registry, capsys, command, "new")
        assert (code, out) == (1, "")
        assert err == "error: new has ended already: completed; nothing was changed\n"
    assert registry.experiment("new").state is State.COMPLETED


def test_a_second_result_does_not_hide_that_the_first_was_missing(
    registry: Registry, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "results.json").write_text('{"accuracy": 0.5}')
    assert shell(registry, capsys, "start", "new")[0] == 0
    assert shell(registry, capsys, "complete", "new", "--result-file", tmp_path / "nope.json")[0] == 3
    code, out, err = shell(registry, capsys, "complete", "new", "--result-file", tmp_path / "results.json")
    assert (code, out) == (1, "")
    assert "has ended already: invalid; nothing was changed (`experiment_manager.py --mark-rerun new`" in err


def test_a_log_stands_where_the_shell_says(
    registry: Registry, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    shell(registry, capsys, "start", "new", "--log", "mine.log")
    attempt = registry.experiment("new").last
    assert attempt is not None
    assert registry.layout.absolute(str(attempt.log)) == tmp_path / "elsewhere/mine.log"


def test_summary_checks_on_request(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    assert shell(registry, capsys, "summary")[0] == 0
    assert shell(registry, capsys, "summary", "--check")[0] == 3
    assert json.loads(shell(registry, capsys, "summary", "--json")[1])["counts"]["lost"] == 1


def test_an_old_registry_elsewhere_is_imported_once(tmp_path: Path) -> None:
    old = tmp_path / "registry.json"
    old.write_text(json.dumps({"experiments": {"a": {"status": "failed", "error": "x"}}}))
    for _ in range(2):
        assert bare(SCRIPT, "--registry", old, "summary").stdout == "1 experiments: 1 failed\n"
    assert json.loads(old.read_text())["experiments"]["a"]["status"] == "failed"
