"""``preflight``, ``explain`` and ``limits`` typed as a user would."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from latentwire.analysis.preflight import model_checks
from latentwire.analysis.preflight import run as preflight
from latentwire.analysis.preflight.findings import Check, Status
from latentwire.analysis.preflight.model_checks import MeasuredBits
from latentwire.analysis.preflight.run import subject
from latentwire.cli.app import main
from latentwire.evaluation.run_folder import run_folder_of
from latentwire.training.run import train_run
from tests.analysis.test_row_checks import gsm8k  # noqa: F401
from tests.training.test_trainer import small_config

ROOT = Path(__file__).resolve().parents[2]
NANO = str(ROOT / "configs" / "nano.yaml")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train_run(small_config(folder, task="tinyworld_record1"))
    return folder


def checks(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in json.loads(capsys.readouterr().out)["tasks"][0]["checks"]}


def test_a_planted_fault_is_named_and_the_exit_code_says_so(gsm8k: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    asked = ["preflight", "--task", "gsm8k", "--data_dir", str(gsm8k), "--no-models"]
    assert main(asked) == 0
    assert "verdict  risky: output" in capsys.readouterr().out
    solution = [*asked, "--set", "variant.target=solution"]
    assert main(solution) == 3
    shown = capsys.readouterr()
    assert "FAIL target and metric" in shown.out
    assert "verdict  no: target and metric" in shown.out
    assert shown.err.splitlines()[-1].startswith("error: gsm8k will not work as it stands: target and metric: ")
    assert main([*solution, "--set", "variant.max_new_tokens=10", "--json"]) == 3
    found = checks(capsys)
    assert (found["targets"]["status"], found["targets"]["numbers"]["max_new_tokens"]) == ("fail", 10)
    assert main([*solution, "--allow", "target and metric", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "risky"


def test_the_receiver_reads_and_the_bits_are_measured(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["preflight", "--bridge", str(run), "--task", "tinyworld_record1", "--rows", "6", "--json"]
    # twelve steps of training do not suffice, and it says so
    assert main(asked) == 3
    shown = json.loads(capsys.readouterr().out)["tasks"][0]
    assert [check["name"] for check in shown["checks"] if check["status"] == "fail"] == ["this bridge"]
    assert main([*asked, "--set", "bridge.tokens_per_soft_token=2"]) == 0
    assert "this bridge" not in checks(capsys)
    found = {check["name"]: check for check in shown["checks"]}
    assert found["reading"]["status"] == found["without the text"]["status"] == "pass"
    assert shown["task_bits"]["needed"]["value"] > 5
    assert found["bits"]["status"] == "skip"
    assert found["bits"]["mend"] == f"run `latentwire capacity {run}`"


@pytest.mark.parametrize(("arrives", "bits"), [("pass", "warn"), ("warn", "fail")])
def test_bits_are_a_warning_where_the_bridge_was_measured_to_work(
    arrives: Status, bits: Status, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "bridge_delivers", lambda *_: Check("this bridge", arrives, "measured"))
    monkeypatch.setattr(model_checks, "measured_bits", lambda _: MeasuredBits(per_soft_token=0.1, best=1.0))
    monkeypatch.setattr(model_checks, "tasks_of_run", lambda _: ("tinyworld_code8",))
    main(["preflight", "--bridge", str(run), "--task", "tinyworld_record1", "--rows", "6", "--json"])
    assert checks(capsys)["bits"]["status"] == bits


def test_a_receiver_that_cannot_read_an_open_task_fails(gsm8k: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    assert main(["preflight", NANO, "--task", "gsm8k", "--data_dir", str(gsm8k), "--rows", "6", "--json"]) == 3
    found = checks(capsys)["reading"]
    assert found["status"] == "fail"
    assert found["row"] is not None


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "no task is named; give --task NAME"),
        (["--task", "gsm8"], 2, "unknown task 'gsm8'; did you mean gsm8k?"),
        (["--task", "tinyworld_topic", "--allow", "target"], 2, "unknown check 'target'; did you mean targets"),
        (["--task", "tinyworld_topic", "--rows", "0"], 2, "--rows 0 does not fit"),
        ([NANO, "--bridge", "runs/x"], 2, "give either the config"),
        (["--bridge", "runs/nowhere"], 1, "no bridge at 'runs/nowhere'"),
        (["missing.yaml"], 2, "config 'missing.yaml' does not exist"),
        (
            ["--task", "gsm8k", "--data_dir", "nowhere"],
            1,
            "task 'gsm8k': no folder 'nowhere/gsm8k'; --data_dir 'nowhere' does not exist",
        ),
    ],
)
def test_bad_input_of_preflight_is_one_line(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["preflight", *arguments, "--no-models"]) == code
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(error) == 1
    assert error[0].startswith(f"error: {message}")


def test_the_two_preflights_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preflight", "--help"]) == 0
    assert "experiments preflight" in " ".join(capsys.readouterr().out.split())


def test_a_row_is_explained_on_the_terminal_as_json_and_on_paper(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(run), "--row", "3", "--out", str(tmp_path / "row.html")]) == 0
    shown = capsys.readouterr().out
    assert "nearest vocabulary (cosine)" in shown
    assert "receiver reads: ⟨message⟩ ⏎ Question:" in shown
    page = (tmp_path / "row.html").read_text()
    assert "<svg" in page
    assert "nearest vocabulary (cosine)" in page
    assert main(["explain", str(run), "--row", "3", "--json", "--out", str(tmp_path / "row.png")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["soft_tokens"]) == len(found["sources"])
    assert len(found["sources"][0]) == len(found["sender_tokens"])
    assert (tmp_path / "row.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["runs/nowhere"], 1, "'runs/nowhere' holds no run"),
        (["RUN", "--row", "-1"], 2, "row -1 does not exist: rows count from 0"),
        (["RUN", "--out", "row.gif"], 2, "--out 'row.gif' does not fit; end it in .html"),
        (["RUN", "--split", "tset"], 2, "unknown split 'tset'; did you mean test?"),
    ],
)
def test_bad_input_of_explain_is_one_line(
    arguments: list[str], code: int, message: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["explain", *(str(run) if part == "RUN" else part for part in arguments)]) == code
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_several_tasks_asks_which(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((run / "config.json").read_text())
    content["config"]["task"] = ["tinyworld_record1", "tinyworld_topic"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert main(["explain", str(tmp_path)]) == 2
    assert "add --task with one of: tinyworld_record1, tinyworld_topic" in capsys.readouterr().err


def test_limits_are_added_shown_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, page = tmp_path / "limits.json", tmp_path / "limits.md"
    for command in (["limits"], ["limits", "list"], ["limits", "page", "--out", str(page)]):
        assert main([*command, "--file", str(data)]) == 1
        assert "does not exist" in capsys.readouterr().err
    assert not page.exists()
    demo = str(ROOT / "docs" / "data" / "demo_results.json")
    assert (
        main(["limits", "add", str(ROOT / "docs" / "data" / "trec_compare.json"), demo, "--command", "x", "--file", str(data)]) == 1
    )
    assert not data.exists()
    assert main(["limits", "add", demo, "--file", str(data), "--command", "make demo"]) == 0
    assert main(["limits", "page", "--file", str(data), "--out", str(page)]) == 0
    assert "tinyworld_record3" in page.read_text()
    capsys.readouterr()
    assert main(["limits", "--file", str(data), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {entry["task"] for entry in listed} >= {"tinyworld_topic", "tinyworld_code24"}
    assert {entry["verdict"] for entry in listed} <= {"works", "risky", "fails"}


def test_of_another_bridge_than_the_runs_nothing_is_known(run: Path, tmp_path: Path) -> None:
    assert subject(str(run)).run_folder == subject(str(run / "bridge")).run_folder == run
    for override in ("bridge.hidden_size=32", "bridge={name: linear}"):
        changed = subject(str(run), overrides=[override])
        assert (changed.run_folder, changed.artefact) == (None, None)


def test_a_run_may_be_called_bridge(run: Path, tmp_path: Path) -> None:
    named = tmp_path / "bridge"
    copytree(run, named)
    assert run_folder_of(named) == named
    assert run_folder_of(named / "bridge") == named


def test_bridges_of_failed_trainings_are_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "run"
    copytree(run, broken)
    weights = broken / "bridge" / "model.safetensors"
    tensors = load_file(weights)
    save_file({name: torch.full_like(tensor, torch.nan) for name, tensor in tensors.items()}, weights)
    for command in (["recall", "--texts", "gsm8k"], ["capacity"], ["preflight", "--bridge"], ["explain"]):
        assert main([*command, str(broken)]) == 1, command
        shown = capsys.readouterr().err
        assert "no finite numbers" in shown
        assert "Traceback" not in shown
