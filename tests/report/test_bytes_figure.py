from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from latentwire.cli.app import main
from latentwire.errors import UnknownNameError, UsageError
from latentwire.evaluation.results import ResultRow, Results, RunInfo
from latentwire.report.bytes_figure import Point, collect_points, draw_bytes


def row(method: str, size: float, value: float, **changes: Any) -> ResultRow:
    known: dict[str, Any] = {
        "task": "record", "split": "test", "subset": "all", "method": method, "control": None,
        "sender_sees": "", "receiver_sees": "",
        "seed": 1, "metric": "exact_match", "value": value, "ci_low": value - 0.1, "ci_high": value + 0.1, "interval": "wilson",
        "n": 100, "chance": 0.0, "message_tokens": 1.0, "message_bytes": size, "latency_ms_p50": None, "problems": [],
    }  # fmt: skip
    return ResultRow(**(known | changes))  # type: ignore[typeddict-item]


def results(*rows: ResultRow, seed: int = 1, **config: Any) -> Results:
    info = RunInfo(
        state="completed", config={"seed": seed, "output_dir": f"runs/{seed}", **config}, seeds=[seed], git={}, versions={},
        models={}, hardware={}, data_revisions={}, partial=[], notes={}, prompt_hashes={},
    )  # fmt: skip
    return Results(schema_version=2, run=info, rows=[{**item, "seed": seed} for item in rows])


TEXT = (row("receiver_only", 0, 0.1), row("receiver_text", 40, 0.9), row("text_relay", 30, 0.8))


def bridges(value: float) -> tuple[ResultRow, ...]:
    label = "bridge:pooled+rules"
    return (
        row(f"{label}@float32", 640, value),
        row(f"{label}@int4", 84, value - 0.2),
        row(f"{label}@int4", 84, 0.1, control="shuffled"),
        row(f"{label}@int4", 84, 0.1, subset="who"),
        row(f"{label}@int4", 84, 0.3, metric="f1"),
    )


def by_label(points: list[Point]) -> dict[tuple[str, str], Point]:
    return {(point.series or point.method, point.precision): point for point in points}


def test_precisions_of_one_bridge_are_one_line_and_text_stands_beside_it() -> None:
    points = collect_points([("a", results(*TEXT, *bridges(0.7)))])
    assert [(point.series, point.message_bytes) for point in points] == [
        ("", 0), ("", 30), ("", 40), ("bridge:pooled+rules", 84), ("bridge:pooled+rules", 640),
    ]  # fmt: skip
    point = by_label(points)["bridge:pooled+rules", "int4"]
    assert (point.value, point.low, point.high) == pytest.approx((0.5, 0.4, 0.6))
    assert point.seeds == pytest.approx((0.5,))


def test_seeds_of_one_config_are_averaged_and_other_configs_are_other_lines() -> None:
    files = [
        ("one-seed1", results(*TEXT, *bridges(0.7), seed=1, bridge={"hidden_size": 8})),
        ("one-seed2", results(*TEXT, *bridges(0.9), seed=2, bridge={"hidden_size": 8})),
        ("two-seed1", results(*bridges(0.6), seed=1, bridge={"hidden_size": 16})),
    ]
    points = by_label(collect_points(files))
    both = points["bridge:pooled+rules (one)", "float32"]
    assert both.value == pytest.approx(0.8)
    assert both.seeds == (0.7, 0.9)
    assert both.low == pytest.approx(0.7)
    assert points["bridge:pooled+rules (two)", "float32"].seeds == (0.6,)
    assert points["receiver_text", ""].value == 0.9


def test_text_is_taken_from_where_most_rows_were_read() -> None:
    few = row("receiver_text", 41, 0.5, n=10)
    points = by_label(collect_points([("a", results(few, *bridges(0.7))), ("b", results(*TEXT, *bridges(0.7), seed=2))]))
    assert points["receiver_text", ""].value == 0.9


def test_wrong_names_and_files_without_a_bridge_are_refused() -> None:
    files = [("a", results(*TEXT, *bridges(0.7)))]
    assert {point.metric for point in collect_points(files, metric="f1")} == {"f1"}
    with pytest.raises(UnknownNameError, match="unknown task 'recrd'; did you mean record"):
        collect_points(files, tasks=["recrd"])
    with pytest.raises(UnknownNameError, match="unknown metric 'f2'"):
        collect_points(files, metric="f2")
    with pytest.raises(UsageError, match="none of the runs has a bridge"):
        collect_points([("a", results(*TEXT))])


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_picture_shows_every_point(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bytes{suffix}"
    draw_bytes(collect_points([("a", results(*TEXT, *bridges(0.7)))]), path)
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG") if suffix == ".png" else b"<svg" in content
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def saved(folder: Path, content: Results) -> Path:
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(content))
    return folder


def test_the_command_draws_and_lists_the_points(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = saved(tmp_path / "run", results(*TEXT, *bridges(0.7)))
    out = tmp_path / "pictures" / "bytes.png"
    assert main(["plot", "bytes", str(run), str(run / "results.json"), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "bridge:pooled+rules@int4" in shown
    assert "50.0% (40.0–60.0)" in shown
    assert out.stat().st_size > 10_000
    assert main(["plot", "bytes", str(run), "--out", str(out), "--json"]) == 0
    assert {point["message_bytes"] for point in json.loads(capsys.readouterr().out)} == {0, 30, 40, 84, 640}


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["run", "--out", "bytes.txt"], 2, "end the name of the picture with .png or .pdf or .svg"),
        (["nowhere"], 1, "'nowhere' does not exist; write it with `latentwire eval"),
        (["empty"], 1, "latentwire eval empty"),
        (["run", "--task", "recrd"], 2, "did you mean record"),
    ],
)
def test_mistakes_get_one_line_and_no_picture(
    arguments: list[str],
    code: int,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "run", results(*TEXT, *bridges(0.7)))
    (tmp_path / "empty").mkdir()
    assert main(["plot", "bytes", *arguments]) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert expected in lines[0]
    assert not list(tmp_path.glob("bytes*"))


def test_other_configs_are_other_lines_whatever_their_folders_are_called() -> None:
    one = {"bridge": {"name": "pooled", "init": "a/stage1"}, "rate": 2}
    runs = [
        ("seed1", results(*bridges(0.7), **one)),
        ("seed2", results(*bridges(0.5), seed=2, **{**one, "bridge": {"name": "pooled", "init": "b/stage1"}})),
        ("seed1", results(*bridges(0.3), rate=4)),
    ]
    points = [point for point in collect_points(runs) if point.precision == "float32"]
    assert {point.series: len(point.seeds) for point in points} == {
        "bridge:pooled+rules (seed1) 1": 2, "bridge:pooled+rules (seed1) 2": 1,
    }  # fmt: skip


def test_a_run_that_stands_twice_is_one_and_few_rows_are_not_mixed_with_many() -> None:
    few = tuple({**item, "n": 10, "value": 0.1} for item in bridges(0.7))
    runs = [("a", results(*bridges(0.7))), ("copy", results(*bridges(0.7))), ("few", results(*few, seed=2))]  # type: ignore[arg-type]
    point = by_label(collect_points(runs))["bridge:pooled+rules", "int4"]
    assert (point.seeds, point.n) == (pytest.approx((0.5,)), 100)


def test_a_method_that_learns_is_averaged_over_its_seeds() -> None:
    files = [
        (f"run-seed{seed}", results(*TEXT, *bridges(0.7), row("lora", 40, value), seed=seed))
        for seed, value in ((1, 0.5), (2, 0.8))
    ]
    lora = by_label(collect_points(files))["lora", ""]
    assert lora.value == pytest.approx(0.65)
    assert lora.seeds == (0.5, 0.8)
