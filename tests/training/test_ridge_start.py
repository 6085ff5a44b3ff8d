"""A linear bridge that begins in closed form, and one that stays there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from latentwire.bridges.base import Bridge
from latentwire.bridges.linear import LinearBridge
from latentwire.config import RunConfig, build_config
from latentwire.errors import ConfigError
from latentwire.files import file_digest
from latentwire.training.parallel import Team
from latentwire.training.pretraining import prepare_texts
from latentwire.training.ridge import MOST_TEXTS, spread_texts
from latentwire.training.run import load_pair, new_bridge, train_run


def config(folder: Path, **changes: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "task": "tinyworld_record1",
        "sender": {"model": "nano-mistral", "layer": 0},
        "receiver": {"model": "nano-mistral"},
        "bridge": {"name": "linear", "start": "ridge"},
        "data": {"train_rows": 120, "validation_rows": 30},
        "training": {"steps": 0, "batch_size": 4},
        "pretraining": {"training": {"steps": 2, "batch_size": 8}, "validation_rows": 8},
        "output_dir": str(folder / "run"),
    }
    return build_config(settings | changes, where="test")


def test_no_step_leaves_the_map_that_was_solved_for(tmp_path: Path) -> None:
    """From the receiver's own embeddings the words themselves arrive, and the receiver reads them."""
    heard: list[str] = []
    summary = train_run(config(tmp_path), say=heard.append)
    assert (summary["steps"], summary["best_step"]) == (0, 0)
    assert summary["validation"] > 0.8
    assert any(line.startswith("ridge: ") for line in heard)
    bridge = Bridge.from_pretrained(tmp_path / "run/bridge")
    assert isinstance(bridge, LinearBridge)
    assert bridge.config.start == "ridge"
    before = file_digest(tmp_path / "run/bridge/model.safetensors")
    assert train_run(config(tmp_path)) == summary
    train_run(config(tmp_path), overwrite=True)
    assert file_digest(tmp_path / "run/bridge/model.safetensors") == before


def test_a_drawn_bridge_needs_a_step(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training.steps = 0 does not fit: .*bridge.init.*start: ridge"):
        config(tmp_path, bridge={"name": "linear"})


def test_trained_weights_are_kept(tmp_path: Path) -> None:
    train_run(config(tmp_path))
    onwards = config(
        tmp_path,
        bridge={"name": "linear", "start": "ridge", "init": str(tmp_path / "run")},
        data={"train_rows": 20, "validation_rows": 10},
        output_dir=str(tmp_path / "onwards"),
    )
    train_run(onwards)
    first, second = (Bridge.from_pretrained(tmp_path / name / "bridge").state_dict() for name in ("run", "onwards"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_texts_are_taken_from_all_tasks() -> None:
    many = [f"a{number}" for number in range(3 * MOST_TEXTS)] + [f"b{number}" for number in range(MOST_TEXTS)]
    taken = spread_texts([text for text in many for _ in range(2)])
    assert len(taken) == len(set(taken)) == MOST_TEXTS
    assert sum(text.startswith("b") for text in taken) == MOST_TEXTS // 4
    assert spread_texts(["one", "two", "one"]) == ["one", "two"]
    assert spread_texts([]) == []


def test_stage_one_begins_there_too(tmp_path: Path) -> None:
    run = config(tmp_path).stage_one
    sender, receiver = load_pair(run, device="cpu")
    bridge = new_bridge(run, sender, receiver)
    before = bridge.state_dict()["project.weight"].clone()
    heard: list[str] = []
    prepare_texts(run, sender, receiver, bridge, Team(), heard.append)
    assert not torch.equal(bridge.state_dict()["project.weight"], before)
    assert any(line.startswith("ridge: ") for line in heard)


def test_a_packing_and_other_bridges_have_no_such_choice(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="steps"):
        config(tmp_path, packing={"steps": 0})
    with pytest.raises(ConfigError, match="start"):
        config(tmp_path, bridge={"name": "pooled", "start": "ridge"})


def test_a_linear_bridge_from_before_there_was_a_choice_is_the_same_run(tmp_path: Path) -> None:
    plain, said, other = (
        config(tmp_path, bridge=bridge, training={"steps": 1})
        for bridge in ({"name": "linear"}, {"name": "linear", "start": "drawn"}, {"name": "linear", "start": "ridge"})
    )
    assert "start" not in plain.bridge
    assert said.identity == plain.identity != other.identity
