"""Results and registry through git: two clones, one repository, no manual step."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path

import pytest

from latentwire.errors import LatentWireError
from latentwire.experiments.exchange import sync as syncing
from latentwire.experiments.exchange.collect import cap_log
from latentwire.experiments.exchange.git import GitError
from latentwire.experiments.exchange.sync import push_results, sync
from latentwire.experiments.registry.check import validate
from latentwire.experiments.registry.leases import process_identity
from latentwire.experiments.registry.model import ErrorClass, State
from latentwire.experiments.registry.registry import Registry
from tests.experiments.helping import claimed, commit_code, completed, git, make_clones, plan, write_result


def quiet(line: str) -> None:
    """Notes are not looked at."""


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Registry, Registry]:
    laptop, cluster = make_clones(tmp_path, "laptop", "cluster")
    return Registry(laptop / "runs", note=quiet), Registry(cluster / "runs", note=quiet)


def planned_in_both(one: Registry, other: Registry) -> None:
    plan(one, "a")
    for registry in (one, other):
        sync(registry, say=quiet)


def status(registry: Registry) -> str:
    return git(registry.layout.root, "status", "--porcelain")


def test_a_plan_goes_out_and_a_result_comes_back(pair: tuple[Registry, Registry]) -> None:
    laptop, cluster = pair
    plan(laptop, "a")
    assert "pushed" in sync(laptop, say=quiet)
    sync(cluster, say=quiet)
    completed(cluster, "a", 0.75)
    push_results(cluster, say=quiet)
    git(laptop.layout.root, "pull", "--quiet", "--rebase")
    experiment = laptop.experiment("a")
    assert experiment.state is State.COMPLETED
    assert experiment.last is not None
    assert experiment.last.metrics == {"accuracy": 0.75}
    assert json.loads((laptop.layout.root / "runs/out/a/results.json").read_text()) == {"accuracy": 0.75}
    laptop.rebuild_view()
    assert status(laptop) == ""
    assert status(cluster) == ""


def test_a_mark_of_the_laptop_meets_a_result_of_the_cluster(pair: tuple[Registry, Registry]) -> None:
    laptop, cluster = pair
    planned_in_both(laptop, cluster)
    claim = claimed(cluster, "a")
    push_results(cluster, say=quiet)
    sync(laptop, say=quiet)
    laptop.mark_rerun("a", reason="a fault in the data")
    write_result(cluster, "a")
    cluster.complete(claim, result_file=None)
    push_results(cluster, say=quiet)
    sync(laptop, say=quiet)
    push_results(cluster, say=quiet)
    for registry in pair:
        experiment = registry.experiment("a")
        assert experiment.state is State.PENDING
        assert experiment.reason == "marked for re-run: a fault in the data"
        assert [attempt.state for attempt in experiment.attempts] == [State.COMPLETED]
        assert status(registry) == ""
    assert cluster.should_run("a")[0]


def test_two_clusters_that_run_one_experiment_keep_both_attempts_and_results(pair: tuple[Registry, Registry]) -> None:
    one, two = pair
    planned_in_both(one, two)
    completed(one, "a", 0.25)
    completed(two, "a", 0.75)
    for registry in (one, two, one):
        push_results(registry, say=quiet)
    for registry in pair:
        experiment = registry.experiment("a")
        assert experiment.state is State.COMPLETED
        assert sorted(attempt.metrics["accuracy"] for attempt in experiment.attempts) == [0.25, 0.75]
        # the result in place is that of the attempt that counts, the other one lies beside it
        assert validate(registry) == []
        folder = registry.layout.root / "runs/out/a"
        found = sorted(json.loads(path.read_text())["accuracy"] for path in folder.iterdir())
        assert found == [0.25, 0.75]
        assert status(registry) == ""
    assert one.layout.view.read_text() == two.layout.view.read_text()


def test_a_result_is_not_replaced_by_an_attempt_that_failed_after_it_came(pair: tuple[Registry, Registry]) -> None:
    one, two = pair
    planned_in_both(one, two)
    claim = claimed(one, "a")
    completed(two, "a", 0.75)
    push_results(two, say=quiet)
    push_results(one, say=quiet)  # brings the result to where an attempt is still at work
    write_result(one, "a", {"accuracy": 0.25})
    push_results(one, say=quiet)
    sync(two, say=quiet)
    assert validate(two) == []  # what is not over yet has not been sent
    assert "results.json" in status(one)
    one.fail(claim, error="the end of it went wrong", error_class=ErrorClass.DATA, exit_code=1)
    push_results(one, say=quiet)
    sync(two, say=quiet)
    for registry in pair:
        assert registry.experiment("a").state is State.COMPLETED
        assert validate(registry) == []
        assert status(registry) == ""
        folder = registry.layout.root / "runs/out/a"
        assert json.loads((folder / "results.json").read_text()) == {"accuracy": 0.75}
        assert [json.loads(path.read_text()) for path in folder.glob("*.other-*")] == [{"accuracy": 0.25}]


def test_a_running_job_never_gets_other_code(pair: tuple[Registry, Registry]) -> None:
    laptop, cluster = pair
    plan(cluster, "a")
    push_results(cluster, say=quiet)
    git(laptop.layout.root, "pull", "--quiet")
    commit_code(laptop.layout.root, "print('second')\n")
    git(laptop.layout.root, "push", "--quiet")
    for number in range(2):  # the second push starts from a checkout that is behind
        plan(cluster, f"b{number}")
        push_results(cluster, say=quiet)
        assert (cluster.layout.root / "code.py").read_text() == "print('first')\n"
    assert status(cluster) == ""
    git(laptop.layout.root, "pull", "--quiet", "--rebase")
    assert (laptop.layout.root / "code.py").read_text() == "print('second')\n"
    assert list(laptop.experiments()) == ["a", "b0", "b1"]
    # when the job is over, a plain pull brings the code
    git(cluster.layout.root, "pull", "--quiet")
    assert (cluster.layout.root / "code.py").read_text() == "print('second')\n"
    assert status(cluster) == ""


def test_sync_brings_code_and_keeps_unfinished_work(pair: tuple[Registry, Registry]) -> None:
    laptop, cluster = pair
    commit_code(cluster.layout.root, "print('from the cluster')\n")
    plan(cluster, "a")
    sync(cluster, say=quiet)
    (laptop.layout.root / "notes.py").write_text("unfinished\n")
    plan(laptop, "b")
    sync(laptop, say=quiet)
    assert (laptop.layout.root / "code.py").read_text() == "print('from the cluster')\n"
    assert (laptop.layout.root / "notes.py").read_text() == "unfinished\n"
    assert status(laptop) == "?? notes.py\n"
    assert list(laptop.experiments()) == ["a", "b"]


def test_code_that_conflicts_is_left_to_a_person(pair: tuple[Registry, Registry]) -> None:
    laptop, cluster = pair
    commit_code(cluster.layout.root, "print('cluster')\n")
    sync(cluster, say=quiet)
    commit_code(laptop.layout.root, "print('laptop')\n")
    plan(laptop, "a")
    with pytest.raises(GitError, match=r"code\.py was changed here and upstream"):
        sync(laptop, say=quiet)
    assert (laptop.layout.root / "code.py").read_text() == "print('laptop')\n"
    # what was asked for is committed here and not lost
    assert "runs/registry/a/" in git(laptop.layout.root, "ls-tree", "-r", "--name-only", "HEAD")


def test_local_changes_in_the_way_stop_a_sync_before_it_changes_anything(pair: tuple[Registry, Registry]) -> None:
    laptop, cluster = pair
    commit_code(cluster.layout.root, "print('cluster')\n")
    sync(cluster, say=quiet)
    (laptop.layout.root / "code.py").write_text("print('not committed')\n")
    with pytest.raises(GitError, match="commit or stash"):
        sync(laptop, say=quiet)
    assert (laptop.layout.root / "code.py").read_text() == "print('not committed')\n"


def test_plain_git_works_beside_it(pair: tuple[Registry, Registry]) -> None:
    laptop, cluster = pair
    for registry, name in ((laptop, "from-laptop"), (cluster, "from-cluster")):
        plan(registry, name)
        registry.rebuild_view()
        git(registry.layout.root, "add", "runs")
        git(registry.layout.root, "commit", "--quiet", "-m", f"Plan {name}")
    git(laptop.layout.root, "push", "--quiet")
    git(cluster.layout.root, "pull", "--quiet", "--rebase")
    git(cluster.layout.root, "push", "--quiet")
    git(laptop.layout.root, "pull", "--quiet")
    for registry in pair:
        registry.rebuild_view()
        assert list(json.loads(registry.layout.view.read_text())["experiments"]) == ["from-cluster", "from-laptop"]
    push_results(cluster, say=quiet)
    assert "from-laptop" in git(laptop.layout.root, "show", "HEAD:runs/experiment_registry.json")


def test_what_a_person_has_staged_stays_theirs(pair: tuple[Registry, Registry]) -> None:
    laptop, _ = pair
    (laptop.layout.root / "code.py").write_text("print('half done')\n")
    git(laptop.layout.root, "add", "code.py")
    plan(laptop, "a")
    push_results(laptop, say=quiet)
    assert "code.py" not in git(laptop.layout.root, "show", "--name-only", "--format=", "HEAD")
    assert status(laptop) == "M  code.py\n"


def test_weights_and_caches_never_enter_git_but_what_explains_a_failure_does(pair: tuple[Registry, Registry]) -> None:
    laptop, cluster = pair
    plan(cluster, "a")
    log = cluster.layout.logs / "a.log"
    claim = cluster.claim("a", lease_s=60.0, log=str(log))
    assert claim is not None
    folder = cluster.layout.root / "runs/out/a"
    small = ("config.json", "log.jsonl", "train.json")
    large = ("checkpoint.safetensors", "bridge/model.safetensors", "bridge/config.json", "work/x/state.json", "tensorboard/events")
    for name in (*small, *large):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    predictions = folder / "predictions" / "sst2" / "bridge.jsonl"
    predictions.parent.mkdir(parents=True)
    predictions.write_text(json.dumps({"n": 500, "problems": []}) + "\n" + '{"prediction": "positive"}\n' * 500)
    log.parent.mkdir()
    log.write_bytes(b"the first line\n" + b"x" * 2_000_000 + b"\nRuntimeError: the last line\n")
    cluster.fail(claim, error="broken", error_class=ErrorClass.UNKNOWN, exit_code=1)
    push_results(cluster, say=quiet)
    git(laptop.layout.root, "pull", "--quiet")
    came = {
        path.relative_to(laptop.layout.root / "runs/out/a").as_posix() for path in (laptop.layout.root / "runs/out/a").rglob("*.*")
    }
    assert came == {*small, "samples/sst2/bridge.jsonl"}
    sample = (laptop.layout.root / "runs/out/a/samples/sst2/bridge.jsonl").read_text().splitlines()
    assert json.loads(sample[0]) == {"n": 500, "problems": [], "sample": 100}
    assert len(sample) == 101
    text = (laptop.layout.logs / "a.log").read_text()
    assert text.startswith("the first line")
    assert text.endswith("RuntimeError: the last line\n")
    assert len(text) < 300_000
    assert "bytes left out" in text
    assert (cluster.layout.whole_logs / "a.log").stat().st_size > 2_000_000


def test_a_log_that_is_no_text_is_cut_once_and_what_it_was_cut_from_stays(pair: tuple[Registry, Registry]) -> None:
    layout = pair[1].layout
    log = layout.logs / "odd.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    whole = b"line with latin-1 \xe9\n" * 100_000
    log.write_bytes(whole)
    cap_log(layout, log)
    cut = log.read_bytes()
    assert len(cut) < 300_000
    cap_log(layout, log)
    assert log.read_bytes() == cut
    with log.open("ab") as file:  # the same log again, as where a script names it
        file.write(whole)
    cap_log(layout, log)
    assert [path.read_bytes() for path in sorted(layout.whole_logs.iterdir())] == [whole, cut + whole]


def test_a_file_that_is_too_large_stays_here_and_is_named(pair: tuple[Registry, Registry]) -> None:
    laptop, _ = pair
    plan(laptop, "a")
    write_result(laptop, "a", {"accuracy": 0.5, "padding": "x" * (6 * 2**20)})
    said: list[str] = []
    push_results(laptop, say=said.append)
    assert said == ["runs/out/a/results.json is larger than 5 MiB and stays here"]
    assert "results.json" not in git(laptop.layout.root, "ls-tree", "-r", "--name-only", "HEAD")


def test_deleted_events_stay_in_git(pair: tuple[Registry, Registry]) -> None:
    laptop, cluster = pair
    plan(laptop, "a")
    sync(laptop, say=quiet)
    for path in laptop.layout.events("a").iterdir():
        path.unlink()
    plan(laptop, "b")
    push_results(laptop, say=quiet)
    sync(cluster, say=quiet)
    assert list(cluster.experiments()) == ["a", "b"]


def test_no_remote_and_no_network_are_said_and_nothing_is_lost(
    pair: tuple[Registry, Registry], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    laptop, _ = pair
    monkeypatch.setattr(syncing, "FIRST_PAUSE_S", 0.001)
    plan(laptop, "a")
    (tmp_path / "upstream.git").rename(tmp_path / "away.git")
    with pytest.raises(LatentWireError, match=r"not pushed after 8 tries .* all is committed here"):
        push_results(laptop, say=quiet)
    (tmp_path / "away.git").rename(tmp_path / "upstream.git")
    assert "pushed" in push_results(laptop, say=quiet)
    git(laptop.layout.root, "remote", "remove", "origin")
    plan(laptop, "b")
    assert "no remote" in push_results(laptop, say=quiet)
    assert status(laptop) == ""


def test_many_pushes_at_once_from_one_checkout_and_from_two(pair: tuple[Registry, Registry]) -> None:
    failures: list[BaseException] = []

    def push(registry: Registry, number: int) -> None:
        try:
            plan(registry, f"{registry.layout.root.name}-{number}")
            push_results(registry, say=quiet)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=push, args=(registry, number)) for registry in pair for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for registry in (*pair, *pair):
        push_results(registry, say=quiet)
    names = [f"{name}-{number}" for name in ("cluster", "laptop") for number in range(3)]
    assert [list(registry.experiments()) for registry in pair] == [names, names]


def test_outside_of_git_it_says_so(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "runs")
    plan(registry, "a")
    with pytest.raises(GitError, match="not a git repository"):
        push_results(registry, say=quiet)


def test_the_lock_of_a_process_that_is_gone_is_broken_at_once(
    pair: tuple[Registry, Registry], monkeypatch: pytest.MonkeyPatch
) -> None:
    laptop, _ = pair
    plan(laptop, "a")
    with subprocess.Popen(["sleep", "60"]) as holder:
        identity = process_identity(holder.pid)
        laptop.layout.git_lock.parent.mkdir(parents=True, exist_ok=True)
        laptop.layout.git_lock.write_text(json.dumps({"id": "0", "process": identity}))
        monkeypatch.setattr(syncing, "LOCK_WAIT_S", 0.5)
        if identity is not None:
            with pytest.raises(LatentWireError, match="another command has been pushing results"):
                push_results(laptop, say=quiet)
        holder.kill()
    if identity is None:
        pytest.skip("this system has no /proc")
    assert "pushed to" in push_results(laptop, say=quiet)
    assert not laptop.layout.git_lock.exists()


def test_results_behind_a_link_are_not_said_to_be_pushed(pair: tuple[Registry, Registry], tmp_path: Path) -> None:
    laptop, _ = pair
    (tmp_path / "scratch").mkdir()
    laptop.layout.runs.symlink_to(tmp_path / "scratch")
    plan(laptop, "a")
    with pytest.raises(GitError, match="is a link, behind which git holds nothing"):
        push_results(laptop, say=quiet)
