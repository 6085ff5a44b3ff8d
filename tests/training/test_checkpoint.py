from __future__ import annotations

from pathlib import Path

import pytest
import torch

from latentwire.errors import ArtefactError
from latentwire.training.checkpoint import load_checkpoint, save_checkpoint


def test_everything_an_optimiser_holds_comes_back(tmp_path: Path) -> None:
    state = {
        "numbers": [1, 2.5, None, True, "text"],
        "by_index": {0: torch.arange(3), 7: {"bf16": torch.ones(2, dtype=torch.bfloat16)}},
        "empty": {},
        "scalar": torch.tensor(3.0),
    }
    save_checkpoint(tmp_path / "state", state)
    loaded = load_checkpoint(tmp_path / "state")
    assert loaded["numbers"] == state["numbers"]
    assert list(loaded["by_index"]) == [0, 7]
    assert torch.equal(loaded["by_index"][0], torch.arange(3))
    assert loaded["by_index"][7]["bf16"].dtype == torch.bfloat16
    assert loaded["empty"] == {}
    assert loaded["scalar"].item() == 3.0


def test_equal_states_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_checkpoint(tmp_path / name, {"x": torch.linspace(0, 1, 7), "step": 3})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("position", [0, 30, -1])
def test_a_changed_byte_is_noticed(tmp_path: Path, position: int) -> None:
    path = tmp_path / "state"
    save_checkpoint(path, {"x": torch.linspace(0, 1, 50), "step": 3})
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(bytes(data))
    with pytest.raises(ArtefactError, match="cut or corrupt"):
        load_checkpoint(path)


def test_a_missing_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="without --resume"):
        load_checkpoint(tmp_path / "nothing")
