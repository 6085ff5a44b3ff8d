"""The list of settings: whole, explained, and true to what ``--set`` takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from latentwire.bridges import BRIDGES
from latentwire.cli.app import main
from latentwire.config import RunConfig, build_config, load_config, settings_of
from latentwire.schema import Setting

ROOT = Path(__file__).parents[2]
NANO = ROOT / "configs" / "nano.yaml"
SETTINGS = settings_of()


def _owner(setting: Setting) -> str:
    """A bridge that has the setting."""
    first = setting.what.partition(":")[0].split(", ")[0]
    return first if first in BRIDGES else "perceiver"


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: f"{setting.name}={setting.default}")
def test_every_setting_is_explained_and_its_default_is_taken(setting: Setting) -> None:
    assert setting.what
    assert setting.allowed != "group"
    if setting.default == "required":
        return
    value = json.dumps(setting.default)
    if setting.name.startswith("bridge.") and setting.name != "bridge.name":
        bridge = {"name": _owner(setting), setting.name.removeprefix("bridge."): setting.default}
        assert build_config({**_minimal(), "bridge": bridge}, where="test").bridge["name"] == bridge["name"]
        return
    assert build_config(_minimal(), [f"{setting.name}={value}"], where="test") == build_config(_minimal(), where="test")


def _minimal() -> dict[str, object]:
    return {"task": "tinyworld_topic", "sender": {"model": "nano-llama"}, "receiver": {"model": "nano-mistral"}}


def test_none_is_missing() -> None:
    def leaves(value: object, prefix: str = "") -> set[str]:
        if isinstance(value, dict) and prefix != "bridge":
            return {leaf for key, item in value.items() for leaf in leaves(item, f"{prefix}.{key}" if prefix else key)}
        return set() if prefix == "bridge" else {prefix}

    config = RunConfig.model_validate(_minimal()).model_dump()
    named = {setting.name for setting in SETTINGS if not setting.name.startswith("bridge.")}
    assert named == leaves(config)


def test_a_part_of_a_name_chooses_and_a_config_shows_its_own_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "training.lr", "--config", str(NANO), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["training.lr", "pretraining.training.lr"]
    assert [row["here"] for row in rows] == [load_config(NANO).training.lr, load_config(NANO).pretraining.training.lr]
    assert main(["settings", "bridge.", "--config", str(NANO)]) == 0
    out = capsys.readouterr().out
    assert "whole number ≥ 1 and ≤ 256" in out
    assert "perceiver | pooled" in out


def test_a_name_that_is_none_names_its_neighbours(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "training.lrr"]) == 2
    assert "did you mean training.lr" in capsys.readouterr().err
