"""``latentwire recall`` as a user meets it: a table, files, a figure over several runs, one line for a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from latentwire.cli.app import main
from latentwire.training.run import train_run
from tests.training.test_trainer import BRIDGES, small_config


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Bridges at two rates, hardly trained."""
    folder = tmp_path_factory.mktemp("runs")
    for rate in (1, 2):
        bridge = BRIDGES[1] | {"tokens_per_soft_token": rate}
        small = {"steps": 2, "batch_size": 4, "warmup_steps": 0}
        train_run(small_config(folder / str(rate), task="tinyworld_record1", bridge=bridge, training=small))
    return [str(folder / "1"), str(folder / "2")]


def test_two_rates_give_two_tables_and_one_figure(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recall", *runs, "--rows", "4"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "one soft token per 1 sender tokens" in out
    assert "one soft token per 2 sender tokens" in out
    assert "another text's message" in out
    assert (Path(runs[0]) / "recall.png").stat().st_size > 10_000
    assert not (Path(runs[1]) / "recall.png").exists()


def test_json_is_the_file(runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recall", runs[0], "--rows", "4", "--out", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "recall.json").read_text())


def test_one_folder_for_several_runs_is_refused(runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recall", *runs, "--out", str(tmp_path)]) == 2
    assert "measure them one by one" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
