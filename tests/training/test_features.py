from __future__ import annotations

from pathlib import Path

import pytest
import torch

from latentwire.errors import LatentWireError
from latentwire.models.sender import Sender, load_sender
from latentwire.training.features import FeatureCache, cache_summary, clear_cache

TEXTS = ["Maria left 47 apples in Lisbon.", "The code is b 7 k y.", "A third, somewhat longer text about nothing at all."]


@pytest.fixture(scope="module")
def sender() -> Sender:
    return load_sender("nano-llama", layer=2, device="cpu")


def test_cached_states_are_those_of_the_sender(sender: Sender, tmp_path: Path) -> None:
    read = sender.read(TEXTS)
    cached = FeatureCache(sender, folder=tmp_path).states(TEXTS)
    assert torch.equal(cached.mask, read.mask)
    torch.testing.assert_close(cached.states * cached.mask[..., None], read.states * read.mask[..., None])


def test_each_text_is_read_once_across_processes_and_orders(sender: Sender, tmp_path: Path) -> None:
    first = FeatureCache(sender, folder=tmp_path)
    first.add(TEXTS[:2])
    second = FeatureCache(sender, folder=tmp_path)
    states = second.states([TEXTS[1], TEXTS[2], TEXTS[0], TEXTS[1]])
    assert (first.texts_read, second.texts_read) == (2, 1)
    assert torch.equal(states.states[0], states.states[3])


def test_another_layer_shares_nothing(sender: Sender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FeatureCache(sender, folder=tmp_path).add(TEXTS)
    other = FeatureCache(load_sender("nano-llama", layer=1, device="cpu"), folder=tmp_path)
    other.add(TEXTS)
    assert other.texts_read == len(TEXTS)
    monkeypatch.setattr("latentwire.training.features.cache_folder", lambda: tmp_path)
    assert [entry["layer"] for entry in cache_summary()] in ([1, 2], [2, 1])


@pytest.mark.parametrize("damage", ["cut", "flipped", "index"])
def test_a_damaged_segment_is_set_aside_and_read_again(sender: Sender, tmp_path: Path, damage: str) -> None:
    intact = FeatureCache(sender, folder=tmp_path).states(TEXTS)
    segment = next(tmp_path.glob("*/segment-*.bin"))
    data = segment.read_bytes()
    if damage == "cut":
        segment.write_bytes(data[:-100])
    elif damage == "flipped":
        segment.write_bytes(data[:50] + bytes([data[50] ^ 255]) + data[51:])
    else:
        segment.with_suffix(".json").write_text('{"rows": 3')
    notices: list[str] = []
    cache = FeatureCache(sender, folder=tmp_path, notice=notices.append)
    assert torch.equal(cache.states(TEXTS).states, intact.states)
    assert cache.texts_read == len(TEXTS)
    assert len(notices) == 1
    assert "set aside" in notices[0]
    assert list(tmp_path.glob("*/*.corrupt"))


def test_the_least_recently_used_segment_goes_when_the_cap_is_reached(sender: Sender, tmp_path: Path) -> None:
    FeatureCache(sender, folder=tmp_path).add(TEXTS[:1])
    size = next(tmp_path.glob("*/segment-*.bin")).stat().st_size
    notices: list[str] = []
    newer = FeatureCache(
        load_sender("nano-llama", layer=1, device="cpu"), folder=tmp_path, cap_gib=1.5 * size / 2**30, notice=notices.append
    )
    newer.add(TEXTS[:1])
    assert len(list(tmp_path.glob("*/segment-*.bin"))) == 1
    assert "evicted" in notices[0]


def test_a_segment_above_the_cap_is_refused(sender: Sender, tmp_path: Path) -> None:
    with pytest.raises(LatentWireError, match="cache_cap_gib"):
        FeatureCache(sender, folder=tmp_path, cap_gib=1e-9).add(TEXTS)
    assert not list(tmp_path.rglob("*.bin"))


def test_clearing_frees_everything(sender: Sender) -> None:
    FeatureCache(sender).add(TEXTS)
    assert clear_cache() > 0
    assert cache_summary() == []
