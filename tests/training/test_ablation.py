from __future__ import annotations

from pathlib import Path

import pytest

from latentwire.errors import ConfigError, UsageError
from latentwire.training.ablation import ablation_rows, variations

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "nano.yaml"


def test_one_change_at_a_time_or_all_combinations(tmp_path: Path) -> None:
    vary = ["training.lr=0.1,0.2", "bridge.look_back=0"]
    names = [item.name for item in variations(CONFIG, [], vary, [1, 2], tmp_path)]
    assert names == ["base", "training.lr=0.1", "training.lr=0.2", "bridge.look_back=0"]
    grid = variations(CONFIG, [], vary, [1, 2], tmp_path, grid=True)
    assert [item.name for item in grid] == ["base", "training.lr=0.1 bridge.look_back=0", "training.lr=0.2 bridge.look_back=0"]
    assert [(run.training.lr, run.bridge["look_back"], run.seed) for run in grid[2].configs] == [(0.2, 0, 1), (0.2, 0, 2)]


def test_every_run_has_a_folder_of_its_own_that_tells_what_it_is(tmp_path: Path) -> None:
    found = variations(CONFIG, ["training.steps=5"], ["task=tinyworld_topic,[tinyworld_topic,tinyworld_intent]"], [7], tmp_path)
    folders = [str(run.folder.relative_to(tmp_path)) for item in found for run in item.configs]
    assert folders == ["base/seed7", "task=tinyworld_topic/seed7", "task=_tinyworld_topic_tinyworld_intent_/seed7"]
    assert found[2].configs[0].task == ("tinyworld_topic", "tinyworld_intent")
    assert all(run.training.steps == 5 for item in found for run in item.configs)


def test_mistakes_are_named_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--vary .training\.lr. names no values"):
        variations(CONFIG, [], ["training.lr"], [1], tmp_path)
    with pytest.raises(ConfigError, match=r"unknown key .training\.rate."):
        variations(CONFIG, [], ["training.rate=1"], [1], tmp_path)


def test_differences_are_in_points_against_the_mean_of_the_base() -> None:
    rows = ablation_rows({"base": [0.5, 0.7], "a=1": [0.6, 0.61]})
    assert [(row["variation"], row["validation"], row["difference_points"]) for row in rows] == [
        ("base", 0.6, 0.0),
        ("a=1", 0.605, 0.5),
    ]
    assert rows[1]["by_seed"] == [0.6, 0.61]
