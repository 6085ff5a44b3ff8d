from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from latentwire.cli.app import main
from latentwire.errors import ArtefactError, UsageError
from latentwire.report.curve_figure import read_curves


def run(folder: Path, scores: dict[int, float], *, seed: int = 1, init: str | None = None, task: str = "a", **more: Any) -> Path:
    folder.mkdir(parents=True)
    config = {"task": [task], "seed": seed, "bridge": {"name": "pooled", "init": init}, **more}
    (folder / "config.json").write_text(json.dumps({"identity": "x", "config": config}))
    lines = [{"step": 1, "loss": 2.0}, *({"step": step, "validation": score} for step, score in scores.items())]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_seeds_are_one_line_wherever_their_stage_one_lies(tmp_path: Path) -> None:
    curves = read_curves(
        [
            run(tmp_path / "plain-seed1", {100: 0.2, 200: 0.6}),
            run(tmp_path / "plain-seed2", {100: 0.4, 200: 0.8, 300: 0.9}, seed=2),
            run(tmp_path / "stage-seed1", {100: 0.8}, init="runs/one"),
            run(tmp_path / "stage-seed2", {100: 0.9}, init="runs/two", seed=2),
        ]
    )
    assert [(curve.name, curve.seeds, curve.steps) for curve in curves] == [
        ("plain", (1, 2), (100, 200)),
        ("stage", (1, 2), (100,)),
    ]
    assert curves[0].scores == pytest.approx((0.3, 0.7))
    assert read_curves([tmp_path / "plain-seed2", run(tmp_path / "copy-seed2", {100: 0.4}, seed=2)])[0].seeds == (2,)
    assert [curves[0].reaches(score) for score in (0.3, 0.31, 0.9)] == [100, 200, None]


def test_the_command_says_when_a_score_is_reached(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slow = run(tmp_path / "slow", {100: 0.2, 200: 0.6, 300: 0.7})
    fast = run(tmp_path / "fast", {100: 0.75}, init="x")
    out = tmp_path / "pictures" / "curve.png"
    assert main(["plot", "curve", str(slow), str(fast), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "reaches 70.0% at step" in shown.replace("\n", " ")
    assert out.read_bytes().startswith(b"\x89PNG")
    assert main(["plot", "curve", str(slow), str(fast), "--out", str(out), "--score", "0.6", "--json"]) == 0
    assert [item["reached_at_step"] for item in json.loads(capsys.readouterr().out)] == [200, 100]


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    first = run(tmp_path / "one", {100: 0.2})
    with pytest.raises(UsageError, match=r"different tasks \(a; b\)"):
        read_curves([first, run(tmp_path / "two", {100: 0.2}, task="b")])
    with pytest.raises(ArtefactError, match="was not validated yet"):
        read_curves([run(tmp_path / "young", {})])
    with pytest.raises(ArtefactError, match="holds no run"):
        read_curves([tmp_path / "nowhere"])
    (first / "log.jsonl").write_text('{"step": 1')
    with pytest.raises(ArtefactError, match="cut or corrupt"):
        read_curves([first])
