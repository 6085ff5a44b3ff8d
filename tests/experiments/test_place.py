"""Preflight: each thing that can be wrong with a place is named in one line before anything is run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from latentwire.cli.app import main
from latentwire.config import build_config
from latentwire.experiments.work import place
from latentwire.experiments.work.needs import needs_of, suite_needs
from latentwire.experiments.work.place import Needs, check_place, git_findings, problems
from latentwire.experiments.work.plan import load_suite

ROOT = Path(__file__).resolve().parents[2]
PAIR = {"task": "tinyworld_topic", "sender": {"model": "nano-llama"}, "receiver": {"model": "nano-mistral"}}
GIB = 1 << 30
GPU = {"name": "H100", "free": 70 * GIB, "total": 80 * GIB}


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A place where everything can be written."""
    return {**os.environ, "LATENTWIRE_CACHE": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "hub"), "TMPDIR": str(tmp_path)}


def found(needs: Needs, environ: dict[str, str]) -> list[str]:
    return problems(check_place(needs, environment=environ))


def test_a_place_that_has_everything_is_ready(tmp_path: Path, environ: dict[str, str]) -> None:
    assert found(Needs(root=tmp_path, modules=("json",)), environ) == []
    assert (tmp_path / "runs").is_dir()
    assert not list(tmp_path.rglob(".latentwire-probe-*"))


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "file").write_text("")
    [problem] = found(Needs(root=tmp_path, modules=("json",)), environ | {"HF_HOME": str(tmp_path / "file" / "hub")})
    assert "HF_HOME" in problem
    assert "scratch" in problem


def test_a_full_disk_is_named_with_what_is_needed(tmp_path: Path, environ: dict[str, str]) -> None:
    [problem] = found(Needs(root=tmp_path, run_bytes=1 << 60, modules=("json",)), environ)
    assert "1073741824.0 GiB needed" in problem


def test_a_module_that_cannot_be_imported_is_named(tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "broken_by_a_library.py").write_text("raise OSError('libcudart.so.12: cannot open shared object file')")
    environ |= {"PYTHONPATH": str(tmp_path)}
    lines = found(Needs(root=tmp_path, modules=("json", "broken_by_a_library", "nobody_has_this")), environ)
    assert len(lines) == 2
    assert "libcudart" in lines[0]
    assert "No module named 'nobody_has_this'" in lines[1]


def test_versions_are_compared_as_numbers() -> None:
    assert place._fits("2.13.0+cu128", ">=2.13,<2.14")
    assert place._fits("10.0", ">=9.1")
    assert not place._fits("2.14.1", ">=2.13,<2.14")
    assert not place._fits("0.9", ">=0.22")


def test_the_gpu_must_hold_the_pair_with_its_activations(tmp_path: Path) -> None:
    fits, large = Needs(root=tmp_path, gpu_bytes=30 * GIB), Needs(root=tmp_path, gpu_bytes=70 * GIB)
    assert place._gpus(fits, {"gpus": [GPU]}) == []
    [problem] = place._gpus(large, {"gpus": [GPU]})
    assert "70.0 GiB of 80.0 GiB free" in problem.text
    [problem] = place._gpus(fits, {"gpus": [], "cuda_error": "RuntimeError: no driver"})
    assert "no driver" in problem.text
    assert place._gpus(Needs(root=tmp_path), {"gpus": []}) == []


def test_an_unfinished_merge_is_a_problem_and_changed_code_a_warning(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True, capture_output=True)

    assert git_findings(tmp_path)[0].level == place.WARNING
    git("init", "--quiet")
    git("config", "user.email", "you@example.org")
    assert git_findings(tmp_path) == []
    (tmp_path / "code.py").write_text("")
    [warning] = git_findings(tmp_path)
    assert (warning.level, "code.py" in warning.text) == (place.WARNING, True)
    (tmp_path / ".git" / "MERGE_HEAD").write_text("")
    assert problems(git_findings(tmp_path)) == [
        "git: a merge, rebase or cherry-pick is not finished; finish or abort it, see `git status`"
    ]


def test_the_embedded_pair_needs_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("LATENTWIRE_DEVICE")
    assert needs_of([build_config(PAIR, where="test")], root=tmp_path, device=None).gpu_bytes is None


def test_models_that_cannot_be_had_are_named_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    notes = [text for _, text in suite_needs(load_suite("configs/paper.yaml"), root=tmp_path).notes]
    assert len(notes) == 2
    assert "meta-llama/Llama-3.1-8B-Instruct" in notes[0]
    assert "latentwire fetch" in notes[0]


def test_a_bridge_that_cannot_be_built_is_a_problem_of_the_preflight(tmp_path: Path) -> None:
    bridge = {"name": "perceiver", "hidden_size": 64, "heads": 6}
    content = {
        "task": "tinyworld_topic",
        "sender": {"model": "nano-llama"},
        "receiver": {"model": "nano-mistral"},
        "bridge": bridge,
    }
    notes = needs_of([build_config(content, where="test")], root=tmp_path, device="cpu").notes
    assert "heads" in notes[0][1]


def test_missing_rows_are_a_problem(tmp_path: Path) -> None:
    content = PAIR | {"task": "sst2", "data": {"data_dir": str(tmp_path)}}
    notes = needs_of([build_config(content, where="test")], root=tmp_path, device="cpu").notes
    assert "sst2" in notes[0][1]


def test_preflight_ends_with_1_and_one_line_for_each_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LATENTWIRE_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr("latentwire.experiments.work.needs.MODULES", ("json",))
    assert main(["experiments", "preflight", "configs/paper_nano.yaml"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("problem: LATENTWIRE_CACHE")
    assert said[-1].startswith("error: this place is not ready: 1 problem")


def test_place_runs_on_the_standard_library_alone() -> None:
    code = "import sys, latentwire.experiments.work.place; print(*{'torch', 'pydantic', 'typer', 'yaml'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("", 0), done.stderr
