"""How long the message of each kind of bridge is, and which settings it takes."""

from __future__ import annotations

import pytest
import torch

from latentwire.bridges import BRIDGES, bridge_config
from latentwire.bridges.attentive import Pointers
from latentwire.bridges.base import BridgeEnds
from latentwire.bridges.card import bridge_card
from latentwire.errors import ConfigError
from latentwire.models.sender import SenderStates
from tests.bridges.test_contract import ENDS, LENGTHS, PAIR, batch, build, row_alone


@pytest.mark.parametrize("soft_tokens", [1, 5])
def test_perceiver_message_is_as_long_as_asked_for_any_context(soft_tokens: int) -> None:
    bridge = bridge_config({"name": "perceiver", "soft_tokens": soft_tokens}).build(ENDS)
    assert bridge(batch()).tokens_per_row.tolist() == [soft_tokens] * len(LENGTHS)


@pytest.mark.parametrize(("rate", "expected"), [(1, [9, 1, 4]), (2, [5, 1, 2]), (4, [3, 1, 1]), (16, [1, 1, 1])])
@pytest.mark.parametrize("name", ["pooled", "linear"])
def test_grouping_bridges_send_one_soft_token_per_group(name: str, rate: int, expected: list[int]) -> None:
    bridge = bridge_config({"name": name, "tokens_per_soft_token": rate}).build(ENDS)
    assert bridge(batch()).tokens_per_row.tolist() == expected


@pytest.mark.parametrize("rate", [2, 4])
@pytest.mark.parametrize("name", ["pooled", "linear"])
def test_grouped_message_does_not_depend_on_its_batch(name: str, rate: int) -> None:
    bridge, read = bridge_config({"name": name, "tokens_per_soft_token": rate}).build(ENDS), batch((9, 5))
    together, alone = bridge(read), bridge(row_alone(read, 1))
    torch.testing.assert_close(together.vectors[1][together.mask[1]], alone.vectors[0], atol=1e-5, rtol=1e-4)


def test_linear_group_is_the_mean_of_its_real_states() -> None:
    bridge = bridge_config({"name": "linear", "tokens_per_soft_token": 4}).build(ENDS)
    vectors, _ = bridge.vectors(batch((5,)).states, batch((5,)).mask)
    whole = bridge.project(bridge.norm_in(batch((5,)).states))
    torch.testing.assert_close(vectors[0, 0], whole[0, :4].mean(0))
    torch.testing.assert_close(vectors[0, 1], whole[0, 4])


def test_tokens_read_apart_add_up_whatever_stands_beside_them() -> None:
    settings = {"name": "pooled", "tokens_per_soft_token": 2, "hidden_size": 16, "look_back": 1, "look_ahead": 1}
    read = batch((6,))
    other, beside = read.states.clone(), read.states.clone()
    other[0, 2], beside[0, 3] = torch.randn(2, other.shape[-1], generator=torch.Generator().manual_seed(1))
    both = other.clone()
    both[0, 3] = beside[0, 3]
    for apart in (True, False):
        bridge = bridge_config({**settings, "apart": apart}).build(ENDS)
        plain, first, second, together = (bridge.vectors(states, read.mask)[0][0] for states in (read.states, other, beside, both))
        # what a new token changes does not depend on the token beside it: a pair never seen is said like any other
        assert torch.allclose(together - second, first - plain, atol=1e-5) is apart
        assert not torch.allclose(first, plain, atol=1e-3)


def test_each_soft_token_says_what_it_points_at_in_its_own_way() -> None:
    torch.manual_seed(0)
    pointers = Pointers(2, ENDS, 12)
    # with one token there is only one to point at
    queries, read, states = torch.randn(1, 3, 12), torch.randn(1, 1, 12), torch.randn(1, 1, ENDS.sender_width)
    said = pointers(queries, read, states, torch.ones(1, 1, dtype=torch.bool))[0]
    assert min((said[0] - said[1]).abs().max(), (said[1] - said[2]).abs().max()) > 1e-3
    for parameter in pointers.gate.parameters():
        torch.nn.init.zeros_(parameter)
    said = pointers(queries, read, states, torch.ones(1, 1, dtype=torch.bool))[0]
    torch.testing.assert_close(said, said[:1].expand(3, -1))


@pytest.mark.parametrize("soft_tokens", [8, 64])
def test_default_perceiver_for_the_paper_pair_stays_small(soft_tokens: int) -> None:
    ends = BridgeEnds(sender_width=4096, receiver_width=4096, receiver_rms=0.01)
    assert bridge_config({"name": "perceiver", "soft_tokens": soft_tokens}).num_params(ends) < 0.05 * 537e6


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "perceiver", "soft_tokens": 0},
        {"name": "perceiver", "soft_tokens": "many"},
        {"name": "perceiver", "depth": 0},
        {"name": "pooled", "tokens_per_soft_token": 0},
        {"name": "pooled", "hidden_size": 1},
        {"name": "pooled", "apart": "some"},
        {"name": "linear", "tokens_per_soft_token": 1000},
    ],
    ids=str,
)
def test_setting_out_of_range_is_refused_with_its_value(settings: dict[str, object]) -> None:
    key, value = list(settings.items())[1]
    with pytest.raises(ConfigError, match=rf"^bridge '{settings['name']}': {key} = {value!r} does not fit: "):
        bridge_config(settings)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"hidden_size = 100 is not a multiple of heads = 6"):
        bridge_config({"name": "perceiver", "hidden_size": 100}).num_params(ENDS)


@pytest.mark.parametrize("name", BRIDGES)
def test_card_names_the_pair_the_data_and_the_score(name: str) -> None:
    bridge = build(name)
    bridge.pair = PAIR
    config = {"task": ["tinyworld_topic"], "training": {"steps": 7, "batch_size": 4, "optimizer": "muon", "lr": 0.01}, "seed": 3}
    summary = {
        "data_revisions": {"tinyworld_topic": "tinyworld seed 3"}, "train_rows": 1200, "validation_rows": 50,
        "validation": 0.91234, "best_step": 5,
    }  # fmt: skip
    card = bridge_card(bridge, config, summary)
    for part in (
        "weights of alpha",
        "tokens of beta",
        "layer 3",
        "tinyworld seed 3",
        "1,200 to train",
        "muon 0.01",
        "0.9123 at step 5",
    ):
        assert part in card
    assert f"{name}, {bridge.config.describe_rate()}, {bridge.num_params:,} parameters" in card


@pytest.mark.parametrize(("look_back", "reached"), [(0, {2}), (1, {2, 3}), (2, {2, 3, 4})])
def test_a_pooled_soft_token_sees_its_own_group_and_those_it_looks_back_to(look_back: int, reached: set[int]) -> None:
    torch.manual_seed(0)
    ends = BridgeEnds(sender_width=6, receiver_width=5, receiver_rms=0.1)
    settings = {"name": "pooled", "tokens_per_soft_token": 2, "hidden_size": 8, "look_back": look_back}
    bridge = bridge_config(settings).build(ends)
    states, mask = torch.randn(1, 12, 6), torch.ones(1, 12, dtype=torch.bool)
    changed = states.clone()
    changed[0, 5, 0] += 1.0  # the second token of group 2
    before, after = (bridge(SenderStates(part, mask)).vectors[0] for part in (states, changed))
    moved = (before - after).abs().sum(-1) > 1e-6
    assert set(moved.nonzero()[:, 0].tolist()) == reached
