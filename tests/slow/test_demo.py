"""`make demo` and the README, as a new user meets them: trained from nothing, measured, held against what they promise."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from latentwire.cli.app import main
from latentwire.evaluation.results import Results, read_results
from latentwire.report.tables import find, tasks_of

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a checkout, in which the demo has run once."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("configs", "telepathy", "latentwire"):
        (folder / name).symlink_to(ROOT / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("LATENTWIRE_CACHE", str(folder / "cache"))
        assert main(["demo"]) == 0
    return folder


@pytest.fixture(scope="module")
def results(demo_folder: Path) -> Results:
    return read_results(demo_folder / "runs" / "demo" / "results.json")


def test_the_bridge_beats_the_receiver_alone_by_30_points_on_every_task(results: Results) -> None:
    for task in tasks_of(results):
        bridge, alone = find(results, task, "bridge"), find(results, task, "receiver_only")
        assert bridge is not None
        assert alone is not None
        assert bridge["value"] >= alone["value"] + 0.30, task


def test_what_survives_a_control_is_no_more_than_chance(results: Results) -> None:
    for task in tasks_of(results):
        alone = find(results, task, "receiver_only")
        assert alone is not None
        for name in ("zero", "shuffled", "noise"):
            control = find(results, task, "bridge", name)
            assert control is not None
            assert control["ci_low"] <= max(alone["value"], control["chance"]) + 0.05, (task, name)


def test_the_bridge_is_three_times_faster_than_the_relay_where_notes_are_longest(results: Results) -> None:
    relays = [row for row in results["rows"] if row["method"] == "text_relay" and row["subset"] == "all"]
    longest = max(relays, key=lambda row: row["message_tokens"])
    bridge = find(results, longest["task"], "bridge")
    assert bridge is not None
    assert (longest["latency_ms_p50"] or 0) >= 3 * (bridge["latency_ms_p50"] or 1), longest["task"]


def test_the_receiver_reading_the_text_is_shown_too(results: Results) -> None:
    for task in tasks_of(results):
        row = find(results, task, "receiver_text")
        assert row is not None
        assert row["latency_ms_p50"]


def test_a_second_demo_reuses_what_it_can_and_says_so(
    demo_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(demo_folder)
    before = (demo_folder / "runs/demo/results.json").read_bytes()
    assert main(["demo"]) == 0
    shown = capsys.readouterr()
    assert shown.err.count("reusing") == 2
    assert "bridge vs relay" in shown.out
    assert (demo_folder / "runs/demo/results.json").read_bytes() == before
    assert (demo_folder / "runs/demo/demo.png").stat().st_size > 10_000


def readme_blocks(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def test_the_readmes_commands_run_as_written(
    demo_folder: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import subprocess
    import sys

    monkeypatch.chdir(demo_folder)
    lines = [line for block in readme_blocks("") for line in block.splitlines() if line.startswith(".venv/bin/")]
    offline = [line for line in lines if not needs_the_hub(line)]
    assert len(offline) == 6
    for line in offline:
        program, *arguments = shlex.split(line.replace("$LATENTWIRE_DATA", str(data_dir)))
        if program == ".venv/bin/latentwire":
            assert main(arguments) == 0, line
        else:
            quick = ["--steps", "4", "--max_samples", "40"] if "train_" in line else ["--max_samples", "20"]
            done = subprocess.run([sys.executable, *arguments, *quick], capture_output=True, text=True, check=False)
            assert done.returncode == 0, (line, done.stderr)
    assert "47" in capsys.readouterr().out


def needs_the_hub(line: str) -> bool:
    return "llama_to_mistral" in line or ("train_telepathy" in line and "--source_model" not in line)


def test_the_readmes_python_runs_as_written(
    demo_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(demo_folder)
    [block] = readme_blocks("python")
    exec(compile(block, "README.md", "exec"), {})
    assert "47" in capsys.readouterr().out
