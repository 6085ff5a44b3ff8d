from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentwire.analysis.limits import (
    LIMITS_FILE,
    LimitEntry,
    SeedScore,
    entries_of,
    limits_page,
    merged,
    read_limits,
    write_limits,
)
from latentwire.errors import ArtefactError, DataError, UsageError

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "docs" / "data" / "demo_results.json"


def entry(score: float = 0.9, *, low: float | None = None, seed: int = 1, **changes: Any) -> LimitEntry:
    own = SeedScore(seed=seed, score=score, ci_low=score - 0.02 if low is None else low, ci_high=score + 0.02, shuffled=0.05)
    content: dict[str, Any] = {
        "kind": "spans", "task": "tinyworld_record1", "sender": "a", "receiver": "b", "bridge": "pooled", "rate": "one per 1",
        "message_tokens": 8.0, "message_bytes": 512.0, "metric": "exact_match", "split": "test", "n": 1000, "tasks_together": 1,
        "chance": 0.03, "text_score": 1.0, "seeds": (own,), "settings": "x", "command": "latentwire eval runs/x",
    }  # fmt: skip
    return LimitEntry(**(content | changes))


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (entry(0.90), "works"),
        (entry(0.89), "risky"),
        (entry(0.50), "risky"),
        (entry(0.49), "fails"),
        (entry(0.47, text_score=0.5), "works"),
        (entry(0.2, text_score=0.0), "works"),
        # half of what the reader has, and no more than guessing: nothing was communicated
        (entry(0.51, text_score=0.98, chance=0.5), "fails"),
        (entry(0.95, text_score=1.0, chance=0.94), "fails"),
    ],
)
def test_verdicts_are_computed_from_the_scores(found: LimitEntry, verdict: str) -> None:
    assert found.verdict == verdict


def test_a_score_that_a_foreign_message_reaches_too_fails() -> None:
    shuffled = SeedScore(seed=1, score=0.95, ci_low=0.93, ci_high=0.97, shuffled=0.94)
    assert entry().model_copy(update={"seeds": (shuffled,)}).verdict == "fails"


def test_a_weak_reader_is_marked() -> None:
    assert entry(0.8, text_score=0.35, chance=0.26).reader_is_weak
    assert not entry(0.8, text_score=0.9, chance=0.26).reader_is_weak


def test_a_reader_that_gets_nothing_right_has_no_share() -> None:
    nothing = entry(0.0, low=0.0, text_score=0.0)
    assert (nothing.relative, nothing.shown_relative, nothing.verdict) == (None, "–", "fails")
    assert "Infinity" not in json.dumps(nothing.as_dict())


def test_entries_come_from_result_files_that_hold_bridge_and_text() -> None:
    results = json.loads(DEMO.read_text())
    found = {item.task: item for item in entries_of(DEMO, command="make demo")[0]}
    assert set(found) == {row["task"] for row in results["rows"]}
    one = found["tinyworld_record2"]
    row = next(
        row for row in results["rows"]
        if (row["task"], row["method"], row["control"], row["subset"]) == ("tinyworld_record2", "bridge:pooled", None, "all")
    )  # fmt: skip
    assert (one.score, one.interval, one.message_bytes) == (row["value"], (row["ci_low"], row["ci_high"]), row["message_bytes"])
    assert (one.kind, one.rate, one.tasks_together) == ("spans", "one soft token per 1 sender tokens", 7)
    assert one.seeds[0].shuffled is not None


def test_seeds_that_began_from_their_own_stage_one_join(tmp_path: Path) -> None:
    results = json.loads(DEMO.read_text())
    assert results["run"]["config"]["bridge"]["init"]
    other = json.loads(json.dumps(results).replace("runs/demo/stage1", "runs/demo-seed7/stage1"))
    for row in other["rows"]:
        row["seed"] = 7 if row["seed"] is not None else None
    other["run"]["config"]["seed"] = 7
    path = tmp_path / "results.json"
    path.write_text(json.dumps(other))
    joined = merged(entries_of(DEMO, command="make demo")[0], entries_of(path)[0])
    assert len(joined) == 7
    assert all(len(one.seeds) == 2 for one in joined)


def test_a_setting_that_came_later_and_was_left_alone_makes_no_other_entry(tmp_path: Path) -> None:
    def joined(change: Callable[[dict[str, Any]], None]) -> int:
        results = json.loads(DEMO.read_text())
        change(results["run"]["config"])
        for row in results["rows"]:
            row["seed"] = 7 if row["seed"] is not None else None
        path = tmp_path / "results.json"
        path.write_text(json.dumps(results))
        return len(merged(entries_of(DEMO, command="make demo")[0], entries_of(path)[0]))

    assert joined(lambda config: config["training"].pop("log_every")) == 7
    assert joined(lambda config: config.setdefault("packing", {}).update(redrawn=0.0)) == 7
    assert joined(lambda config: config["training"].update(log_every=7)) == 14
    assert joined(lambda config: config.setdefault("packing", {}).update(redrawn=0.5)) == 14


def test_files_without_the_receiver_reading_the_text_are_refused(tmp_path: Path) -> None:
    results = json.loads(DEMO.read_text())
    results["rows"] = [row for row in results["rows"] if row["method"] != "receiver_text"]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    with pytest.raises(DataError, match="both bridge and receiver_text"):
        entries_of(tmp_path)
    results = json.loads(DEMO.read_text())
    relay = next(row for row in results["rows"] if row["method"] == "text_relay")
    relay["problems"] = ["one label for all rows"]
    path.write_text(json.dumps(results))
    assert len(entries_of(path)[0]) == 7
    bridges = [row for row in results["rows"] if row["method"].startswith("bridge:")]
    bridges[0]["problems"] = ["NaN scores"]
    path.write_text(json.dumps(results))
    sound, left_out = entries_of(path)
    assert len(sound) == 6
    assert left_out == {bridges[0]["task"]: "NaN scores"}
    for bridge in bridges:
        bridge["problems"] = ["NaN scores"]
    path.write_text(json.dumps(results))
    with pytest.raises(DataError, match=r"prediction check failed \(NaN scores\)"):
        entries_of(path)
    with pytest.raises(ArtefactError, match="does not exist"):
        entries_of(tmp_path / "nowhere.json")
    # a config that is given by mistake must not be deleted on advice
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ArtefactError, match=r"is no result file; give the run folder"):
        entries_of(tmp_path / "config.json")
    results = json.loads(DEMO.read_text())
    for row in results["rows"]:
        row["split"] = "validation"
    path.write_text(json.dumps(results))
    with pytest.raises(DataError, match="scores of validation rows"):
        entries_of(path)


def test_seeds_join_their_entry_and_are_replaced_when_measured_again(tmp_path: Path) -> None:
    both = merged([entry(0.8, seed=1)], [entry(0.9, seed=2)])
    assert len(both) == 1
    assert both[0].score == pytest.approx(0.85)
    assert both[0].interval == pytest.approx((0.78, 0.92))
    again = merged(both, [entry(0.6, seed=2)])
    assert [seed.score for seed in again[0].seeds] == [0.8, 0.6]
    assert len(merged(again, [entry(0.9, settings="other")])) == 2
    assert len(merged(again, [entry(0.9, seed=3, n=20, text_score=0.5)])) == 2, "other rows are another measurement"
    write_limits(again, tmp_path / "limits.json")
    assert read_limits(tmp_path / "limits.json") == again
    (tmp_path / "limits.json").write_text("[]")
    with pytest.raises(ArtefactError, match="not of schema"):
        read_limits(tmp_path / "limits.json")
    assert read_limits(tmp_path / "nowhere.json") == []


def test_the_page_is_what_the_data_say() -> None:
    assert "Nothing is measured yet" in limits_page([])
    page = limits_page([entry(0.95), entry(0.8, text_score=0.35, chance=0.26, kind="arithmetic")])
    assert "| **works** | tinyworld_record1 |" in page
    assert "**works** \\*" in page
    assert page.count("Not measured yet") == 3
    assert (ROOT / "docs" / "limits.md").read_text() == limits_page(read_limits()), "run `latentwire limits page`"


def test_every_shipped_entry_names_no_place_of_one_machine() -> None:
    text = LIMITS_FILE.read_text()
    assert json.loads(text)["schema_version"] == 1
    assert '"/' not in text


def test_the_command_of_an_entry_is_one_that_runs(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    own = tmp_path / "own" / "results.json"
    own.write_text(DEMO.read_text())
    assert {found.command for location in (own, own.parent) for found in entries_of(location)[0]} == {"latentwire eval runs/own"}
    with pytest.raises(UsageError, match="--command"):
        entries_of(DEMO)
    compared = json.loads(DEMO.read_text())
    del compared["run"]["models"]["bridge"]
    own.write_text(json.dumps(compared))
    with pytest.raises(UsageError, match="--command"):
        entries_of(own.parent)


def test_an_entry_keeps_the_commands_of_all_its_seeds() -> None:
    first, second = entry(0.8, seed=1, command="latentwire eval runs/s1"), entry(0.9, seed=2, command="latentwire eval runs/s2")
    (both,) = merged([first], [second])
    assert both.command == "latentwire eval runs/s1; latentwire eval runs/s2"
    (again,) = merged([both], [second])
    assert again.command == both.command
    (replaced,) = merged([first], [entry(0.7, seed=1, command="latentwire eval runs/s3")])
    assert replaced.command == "latentwire eval runs/s3"


def test_of_a_task_what_works_comes_first() -> None:
    lines = limits_page([entry(0.2, rate="poor"), entry(0.3, rate="all", text_score=0.0), entry(0.95, rate="good")]).splitlines()
    order = [next(rate for rate in ("poor", "all", "good") if f", {rate} |" in line) for line in lines if line.startswith("| **")]
    assert order == ["good", "all", "poor"]
