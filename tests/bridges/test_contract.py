"""What every registered bridge must do; a new one is covered by its line in ``BRIDGES``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from latentwire.bridges import BRIDGES, bridge_config
from latentwire.bridges.base import Bridge, BridgeConfig, BridgeEnds, BridgePair, ModelIdentity
from latentwire.errors import ArtefactError, ConfigError, MismatchError, UnknownNameError
from latentwire.models.sender import SenderStates

ENDS = BridgeEnds(sender_width=24, sender_layers=3, receiver_width=40, receiver_rms=0.37)
LENGTHS = (9, 1, 4)
#: bridges by a name of their own that have parts which they lack by default
VARIANTS: dict[str, dict[str, object]] = {"attentive+pointers": {"name": "attentive", "pointers": 2}}
pytestmark = pytest.mark.parametrize("name", [*BRIDGES, *VARIANTS])


def config_of(name: str) -> BridgeConfig:
    return bridge_config(VARIANTS.get(name, {"name": name}))


def build(name: str, seed: int = 0) -> Bridge:
    torch.manual_seed(seed)
    return config_of(name).build(ENDS).eval()


def batch(lengths: tuple[int, ...] = LENGTHS, seed: int = 1) -> SenderStates:
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(len(lengths), max(lengths), ENDS.sender_width, generator=generator)
    return SenderStates(states, torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None])


def row_alone(read: SenderStates, row: int) -> SenderStates:
    return SenderStates(read.states[row][read.mask[row]][None], read.mask[row][read.mask[row]][None])


def identity(name: str) -> ModelIdentity:
    return ModelIdentity(name=name, revision=None, fingerprint=f"weights of {name}", tokenizer_hash=f"tokens of {name}")


PAIR = BridgePair(
    sender=identity("alpha"), receiver=identity("beta"), sender_layer=3, sender_prompt="{text}", receiver_prompt="{message}"
)


def saved(name: str, folder: Path) -> Bridge:
    bridge = build(name)
    bridge.pair = PAIR
    bridge.save_pretrained(folder, card="# card")
    return bridge


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_message_is_float32_at_the_receivers_width_whatever_the_sender_runs_in(name: str, dtype: torch.dtype) -> None:
    read = batch()
    soft = build(name)(SenderStates(read.states.to(dtype), read.mask))
    assert soft.vectors.dtype == torch.float32
    assert soft.vectors.shape == (len(LENGTHS), soft.mask.shape[1], ENDS.receiver_width)
    assert soft.vectors.isfinite().all()


def test_every_parameter_is_float32(name: str) -> None:
    assert {parameter.dtype for parameter in build(name).parameters()} == {torch.float32}


def test_every_row_has_a_message_and_padding_is_zero_at_its_end(name: str) -> None:
    soft = build(name)(batch())
    assert (soft.tokens_per_row >= 1).all()
    assert torch.equal(soft.mask, soft.mask.cummin(dim=1).values)
    assert soft.vectors[~soft.mask].abs().sum() == 0


def test_same_states_give_the_same_message(name: str) -> None:
    assert torch.equal(build(name)(batch()).vectors, build(name)(batch()).vectors)


def test_different_states_give_different_messages(name: str) -> None:
    bridge = build(name)
    assert not torch.allclose(bridge(batch(seed=1)).vectors, bridge(batch(seed=2)).vectors, atol=1e-3)


def test_order_of_the_context_changes_the_message(name: str) -> None:
    bridge, read = build(name), batch((6, 6))
    turned = SenderStates(read.states.flip(1), read.mask)
    assert not torch.allclose(bridge(read).vectors, bridge(turned).vectors, atol=1e-3)


@pytest.mark.parametrize("gain", [1.0, 2.5])
def test_soft_tokens_have_the_scale_of_the_receivers_embeddings(name: str, gain: float) -> None:
    bridge = build(name)
    with torch.no_grad():
        bridge.gain.fill_(gain)
    soft = bridge(batch())
    rms = soft.vectors[soft.mask].pow(2).mean(-1).sqrt()
    torch.testing.assert_close(rms, torch.full_like(rms, gain * ENDS.receiver_rms), rtol=1e-3, atol=0)


def test_soft_tokens_begin_at_the_gain_that_is_asked_for(name: str) -> None:
    bridge = bridge_config({**config_of(name).model_dump(), "gain": 3}).build(ENDS)
    soft = bridge(batch())
    assert soft.vectors[soft.mask].pow(2).mean().sqrt().item() == pytest.approx(3 * ENDS.receiver_rms, rel=1e-3)


@pytest.mark.parametrize("row", range(len(LENGTHS)))
def test_a_message_does_not_depend_on_its_batch(name: str, row: int) -> None:
    bridge, read = build(name), batch()
    together, alone = bridge(read), bridge(row_alone(read, row))
    assert together.tokens_per_row[row] == alone.mask.sum()
    torch.testing.assert_close(together.vectors[row][together.mask[row]], alone.vectors[0], atol=1e-5, rtol=1e-4)


def test_what_stands_under_the_padding_does_not_matter(name: str) -> None:
    bridge, read = build(name), batch()
    dirty = SenderStates(torch.where(read.mask[..., None], read.states, torch.full_like(read.states, 50.0)), read.mask)
    assert torch.equal(bridge(read).vectors, bridge(dirty).vectors)


def test_gradient_reaches_every_parameter(name: str) -> None:
    bridge = build(name).train()
    soft = bridge(batch())
    (soft.vectors * torch.randn(soft.vectors.shape, generator=torch.Generator().manual_seed(5))).sum().backward()
    untouched = [key for key, parameter in bridge.named_parameters() if parameter.grad is None or not parameter.grad.abs().sum()]
    assert untouched == []


def test_parameters_are_counted_before_anything_is_built(name: str) -> None:
    bridge = build(name)
    assert config_of(name).num_params(ENDS) == bridge.num_params == sum(p.numel() for p in bridge.parameters())


def test_saved_bridge_comes_back_byte_for_byte(name: str, tmp_path: Path) -> None:
    bridge = saved(name, tmp_path / "first")
    torch.manual_seed(7)
    loaded = Bridge.from_pretrained(tmp_path / "first")
    assert (loaded.config, loaded.ends, loaded.pair) == (bridge.config, ENDS, PAIR)
    assert not loaded.training
    assert torch.equal(loaded(batch()).vectors, bridge(batch()).vectors)
    loaded.save_pretrained(tmp_path / "second", card="# card")
    for first in sorted((tmp_path / "first").iterdir()):
        assert first.read_bytes() == (tmp_path / "second" / first.name).read_bytes()
    assert {path.name for path in (tmp_path / "second").iterdir()} == {"config.json", "model.safetensors", "README.md"}


@pytest.mark.parametrize(
    ("change", "both"),
    [
        ({"sender": PAIR.sender.model_copy(update={"fingerprint": "F2"})}, ("weights of alpha", "F2")),
        ({"sender": PAIR.sender.model_copy(update={"tokenizer_hash": "T2"})}, ("tokens of alpha", "T2")),
        ({"receiver": PAIR.receiver.model_copy(update={"fingerprint": "F2"})}, ("weights of beta", "F2")),
        ({"receiver": PAIR.receiver.model_copy(update={"tokenizer_hash": "T2"})}, ("tokens of beta", "T2")),
        ({"sender": identity("gamma")}, ("'alpha'", "'gamma'")),
        ({"sender_layer": 2}, ("sender layer 3", "given are 2")),
    ],
    ids=["sender weights", "sender tokenizer", "receiver weights", "receiver tokenizer", "other sender", "layer"],
)
def test_other_models_are_refused_naming_both_values(
    name: str, change: dict[str, object], both: tuple[str, str], tmp_path: Path
) -> None:
    saved(name, tmp_path)
    pair = Bridge.from_pretrained(tmp_path).pair
    assert pair is not None
    given = {"sender": PAIR.sender, "receiver": PAIR.receiver, "sender_layer": PAIR.sender_layer}
    pair.check(**given)  # type: ignore[arg-type]
    with pytest.raises(MismatchError) as caught:
        pair.check(**{**given, **change})  # type: ignore[arg-type]
    assert all(value in str(caught.value) for value in both)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove(path: Path) -> None:
    path.unlink()


def other_schema(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 99}))


def without_ends(path: Path) -> None:
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "ends"}))


def other_width(path: Path) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "ends": {**content["ends"], "sender_width": 27}}))


@pytest.mark.parametrize(
    ("file", "harm"),
    [
        ("model.safetensors", cut),
        ("model.safetensors", remove),
        ("config.json", cut),
        ("config.json", remove),
        ("config.json", other_schema),
        ("config.json", without_ends),
        ("config.json", other_width),
    ],
    ids=[
        "weights cut",
        "weights gone",
        "config cut",
        "config gone",
        "other schema",
        "config without ends",
        "weights of another width",
    ],
)
def test_broken_artefact_is_reported_in_one_line(name: str, file: str, harm: Callable[[Path], None], tmp_path: Path) -> None:
    saved(name, tmp_path)
    harm(tmp_path / file)
    with pytest.raises(ArtefactError) as caught:
        Bridge.from_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("location", ["runs/nothing/bridge", "/nowhere/bridge"])
def test_missing_folder_says_how_to_get_a_bridge(name: str, location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtefactError, match=r"^no bridge at '.*': no such folder; .*`make demo`$"):
        Bridge.from_pretrained(location)


def test_misspelt_name_suggests_this_bridge(name: str) -> None:
    name = config_of(name).name
    with pytest.raises(UnknownNameError, match=rf"^unknown bridge '{name}x'; did you mean .*{name}") as caught:
        bridge_config({"name": f"{name}x"})
    assert caught.value.exit_code == 2


def test_unknown_setting_is_refused_by_name(name: str) -> None:
    name = config_of(name).name
    with pytest.raises(ConfigError, match=rf"'{name}': unknown key 'hiden_size'; "):
        bridge_config({"name": name, "hiden_size": 8})


def test_a_bridge_whose_training_failed_is_named(name: str) -> None:
    bridge = build(name)
    assert bridge.with_finite_weights() is bridge
    with torch.no_grad():
        next(bridge.parameters()).view(-1)[0] = torch.nan
    with pytest.raises(ArtefactError, match="no finite numbers"):
        bridge.with_finite_weights()
