"""Job scripts: the committed one is what is rendered, flags and cluster files decide it, and it is sound bash."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from latentwire.cli.app import main
from latentwire.experiments.work.slurm import Cluster, changed, directives, load_cluster, render

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = "telepathy/submit_reasoning_final.slurm"


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def clusters() -> list[str]:
    return sorted(path.stem for path in (ROOT / "configs/clusters").glob("*.yaml"))


def shellcheck() -> str:
    beside = Path(sys.executable).with_name("shellcheck")
    program = str(beside) if beside.exists() else shutil.which("shellcheck")
    if program is None:
        pytest.skip("no shellcheck here; `make setup` installs it")
    return program


def test_the_committed_script_is_the_rendered_one() -> None:
    assert Path(COMMITTED).read_text() == render("configs/paper.yaml", load_cluster("marlowe"), script=COMMITTED), (
        f"render it again: latentwire slurm render configs/paper.yaml --cluster marlowe --out {COMMITTED}"
    )


def test_the_committed_script_names_the_papers_cluster() -> None:
    text = Path(COMMITTED).read_text()
    for line in ("--account=marlowe-m000066", "--partition=preempt", "--requeue", "--signal=B:USR2@120", "--open-mode=append"):
        assert f"#SBATCH {line}\n" in text
    assert "${LATENTWIRE_WORKDIR:-/projects/m000066/sujinesh/LatentWire}" in text
    assert "${LATENTWIRE_SCRATCH:-/scratch/m000066/" in text
    assert "config=${1:-configs/paper.yaml}" in text


@pytest.mark.parametrize("cluster", clusters())
def test_scripts_pass_shellcheck(cluster: str, tmp_path: Path) -> None:
    script = tmp_path / "job.slurm"
    script.write_text(render("configs/paper.yaml", load_cluster(cluster)))
    done = subprocess.run([shellcheck(), str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_library_knows_no_cluster() -> None:
    for path in (ROOT / "latentwire").rglob("*"):
        if path.suffix in (".py", ".sh"):
            assert "marlowe-" not in path.read_text(), path
            assert "m000066" not in path.read_text(), path


def test_flags_stand_in_the_place_of_the_clusters_file() -> None:
    place = changed(load_cluster("marlowe"), account="mine", partition="gpu", gpus=4, time="1-00:00:00")
    lines = directives("configs/paper.yaml", place)
    assert {"--account=mine", "--partition=gpu", "--gpus=4", "--time=1-00:00:00", "--cpus-per-task=32", "--mem=400G"} <= set(lines)


def test_no_gpu_asks_for_none() -> None:
    lines = directives("configs/paper_nano.yaml", Cluster(name="cpu", gpus=0))
    assert not [line for line in lines if line.startswith(("--gpus", "--account", "--partition"))]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--cluster", "marlow"], "did you mean marlowe"),
        (["--time", "soon"], "time"),
        (["--gpus", "-1"], "gpus"),
    ],
)
def test_what_does_not_fit_is_named(arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["slurm", "render", "configs/paper_nano.yaml", *arguments]) == 2
    said = capsys.readouterr().err
    assert named in said
    assert said.count("\n") == 1


def test_submit_says_what_to_do_without_sbatch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["slurm", "submit", "configs/paper_nano.yaml", "--cluster", "generic"]) == 1
    assert "run the same command in a clone on a login node of the cluster" in capsys.readouterr().err
    assert main(["slurm", "submit", "configs/paper_nano.yaml", "--dry-run"]) == 0
    assert "#SBATCH --gpus=1" in capsys.readouterr().out


def test_submit_hands_the_script_to_sbatch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    program = tmp_path / "sbatch"
    program.write_text('#!/bin/sh\necho "Submitted batch job 7: $*"; test -f "$1"\n')
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert main(["slurm", "submit", "configs/paper_nano.yaml", "--gpus", "0"]) == 0
    assert capsys.readouterr().out == "Submitted batch job 7: runs/slurm/paper_nano.slurm configs/paper_nano.yaml\n"
    assert "--gpus" not in (tmp_path / "runs/slurm/paper_nano.slurm").read_text().split("set -euo")[0]


# ------------------------------------------------------------------------------- the script itself, with made-up programs


def checkout(folder: Path) -> Path:
    """A folder that the script takes for a checkout, whose environment notes every call of Python."""
    (folder / "latentwire").mkdir(parents=True)
    (folder / "scripts").mkdir()
    (folder / "configs").mkdir()
    for name in ("pyproject.toml", "constraints.txt", "configs/paper.yaml"):
        (folder / name).write_text("")
    (folder / "scripts/setup.sh").write_text(
        'echo "$@" >> setups; sleep 1; mkdir -p "$1/bin"; cp python "$1/bin/python"; chmod +x "$1/bin/python"\n'
    )
    (folder / "python").write_text(
        '#!/usr/bin/env bash\necho "$* on ${CUDA_VISIBLE_DEVICES:-}" >> calls\n'
        'case "$*" in *" worker "*) exec bash worker;; *" plan "*) exit "${PLAN_EXIT:-0}";; esac\n'
    )
    (folder / "worker").write_text("exit 0\n")
    (folder / "scontrol").write_text('#!/bin/sh\necho "$@" >> scontrol.calls\n')
    (folder / "scontrol").chmod(0o755)
    return folder


def start(folder: Path, **variables: str) -> subprocess.Popen[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("LATENTWIRE_", "SLURM", "CUDA"))}
    return subprocess.Popen(
        ["bash", str(ROOT / COMMITTED)],
        cwd=folder,
        env={**kept, "PATH": f"{folder}:{os.environ['PATH']}", "LATENTWIRE_SCRATCH": str(folder / "scratch"), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = process.communicate(timeout=60)
    return process.returncode, said


def calls(folder: Path, word: str) -> list[str]:
    return [line for line in (folder / "calls").read_text().splitlines() if f" {word}" in line]


def test_two_jobs_set_up_one_environment_once(tmp_path: Path) -> None:
    folder = checkout(tmp_path / "code")
    jobs = [start(folder), start(folder)]
    assert [ended(job)[0] for job in jobs] == [0, 0]
    assert (folder / "setups").read_text().count("\n") == 1
    assert ended(start(folder))[0] == 0
    assert (folder / "setups").read_text().count("\n") == 1


def test_one_worker_for_each_gpu(tmp_path: Path) -> None:
    folder = checkout(tmp_path / "code")
    code, said = ended(start(folder, CUDA_VISIBLE_DEVICES="0,3"))
    assert code == 0, said
    workers = calls(folder, "worker")
    assert sorted(line.split("--gpu ")[1].split()[0] for line in workers) == ["0", "3"]
    assert len(calls(folder, "plan")) == 1
    assert (folder / "calls").read_text().count("push-results") == 1


def test_a_place_that_is_not_ready_starts_no_worker(tmp_path: Path) -> None:
    folder = checkout(tmp_path / "code")
    code, said = ended(start(folder, PLAN_EXIT="1"))
    assert code == 1
    assert "no experiment was touched" in said
    assert calls(folder, "worker") == []


def test_outside_of_a_checkout_the_script_says_so(tmp_path: Path) -> None:
    code, said = ended(start(tmp_path, SLURM_SUBMIT_DIR=str(tmp_path)))
    assert code == 1
    assert "no checkout of LatentWire" in said


@pytest.mark.parametrize(("number", "requeues"), [(signal.SIGUSR2, True), (signal.SIGTERM, False)])
def test_a_signal_reaches_the_workers_and_the_job_ends_with_75(tmp_path: Path, number: int, requeues: bool) -> None:
    folder = checkout(tmp_path / "code")
    (folder / "worker").write_text("trap 'kill $!; echo saved >> saved; exit 75' TERM; sleep 60 & touch up.$$; wait $!\n")
    process = start(folder, CUDA_VISIBLE_DEVICES="0,1", SLURM_JOB_ID="7")
    end = time.monotonic() + 30
    while len(list(folder.glob("up.*"))) < 2:
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(number)
    code, said = ended(process)
    assert code == 75, said
    assert (folder / "saved").read_text() == "saved\nsaved\n"
    # before its time limit a job asks to be requeued; one that is pre-empted is requeued by Slurm, one that is cancelled is not
    assert (folder / "scontrol.calls").exists() == requeues


def test_a_time_limit_that_comes_while_results_are_pushed_still_requeues(tmp_path: Path) -> None:
    folder = checkout(tmp_path / "code")
    (folder / "worker").write_text("trap 'kill $!; exit 75' TERM; sleep 60 & touch up; wait $!\n")
    (folder / "python").write_text(
        '#!/usr/bin/env bash\ncase "$*" in *" worker "*) exec bash worker;; *push-results*) touch pushing; exec sleep 60;; esac\n'
    )
    process = start(folder, CUDA_VISIBLE_DEVICES="0", SLURM_JOB_ID="7")
    for number, sign in ((signal.SIGUSR2, "up"), (signal.SIGTERM, "pushing")):
        end = time.monotonic() + 30
        while not (folder / sign).exists():
            assert time.monotonic() < end, sign
            time.sleep(0.05)
        process.send_signal(number)
    code, said = ended(process)
    assert code == 75, said
    assert (folder / "scontrol.calls").read_text() == "requeue 7\n"


def test_a_killed_worker_is_started_again_and_not_for_ever(tmp_path: Path) -> None:
    folder = checkout(tmp_path / "code")
    (folder / "worker").write_text("kill -KILL $$\n")
    code, said = ended(start(folder, CUDA_VISIBLE_DEVICES="0"))
    assert code == 137
    assert said.count("starting it again") == 3
    assert len(calls(folder, "worker")) == 4
