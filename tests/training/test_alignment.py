from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentwire.bridges.base import BridgeEnds
from latentwire.bridges.perceiver import PerceiverConfig
from latentwire.bridges.pooled import PooledConfig
from latentwire.data.readers import read_task
from latentwire.data.task import Example, load_task
from latentwire.errors import DataError, UsageError
from latentwire.models.receiver import Receiver, load_receiver
from latentwire.models.sender import Sender, load_sender
from latentwire.models.soft_tokens import SoftTokens
from latentwire.training.alignment import Alignment, assign, overlap, spread


def test_spans_share_the_characters_they_have_in_common() -> None:
    shared = overlap([(0, 3), (3, 8)], [(0, 2), (2, 5), (5, 8)])
    assert shared.tolist() == [[2, 1, 0], [0, 2, 3]]


def test_a_word_of_two_tokens_takes_the_place_of_a_full_stop() -> None:
    # Tor|bon stand where the sender has one token, the full stop behind them is cheap
    assert assign([0, 1, 1, 2], [3.0, 4.0, 4.0, 0.1], groups=3, back=1, ahead=0) == ((0,), (1,), (2, 3))
    # without a look back the second half cannot be known later
    assert assign([0, 1, 1, 2], [3.0, 4.0, 4.0, 0.1], groups=3, back=0, ahead=0) == ((0,), (1, 2), (3,))


@given(st.lists(st.integers(0, 6), min_size=1, max_size=14), st.integers(0, 2), st.integers(0, 2))
def test_every_token_is_placed_once_in_order_and_within_sight(homes: list[int], back: int, ahead: int) -> None:
    homes = sorted(homes)
    placed = assign(homes, [1.0 + token % 3 for token in range(len(homes))], groups=7, back=back, ahead=ahead)
    assert len(placed) == 7
    assert [token for group in placed for token in group] == list(range(len(homes)))
    assert all(-ahead <= group - homes[token] <= back for group, tokens in enumerate(placed) for token in tokens)


@pytest.fixture(scope="module")
def ends() -> tuple[Sender, Receiver, BridgeEnds]:
    sender, receiver = load_sender("nano-llama", layer=1, device="cpu"), load_receiver("nano-mistral", device="cpu")
    return (
        sender,
        receiver,
        BridgeEnds(sender_width=sender.width, receiver_width=receiver.width, receiver_rms=receiver.embedding_rms),
    )


def record() -> Example:
    return read_task(load_task("tinyworld_record1"), "train", max_rows=1).examples[0]


@pytest.mark.parametrize("rate", [1, 2, 4])
def test_plans_of_the_embedded_pair_name_every_receiver_token_once(ends: tuple[Sender, Receiver, BridgeEnds], rate: int) -> None:
    sender, receiver, widths = ends
    row = record()
    bridge = PooledConfig(tokens_per_soft_token=rate, look_ahead=1).build(widths)
    soft = bridge(sender.read([row.sender_prompt]))
    plan = Alignment(sender, receiver, bridge, [row]).plan(row)
    assert [token for group in plan.groups for token in group] == list(range(len(plan.tokens)))
    assert len(plan.groups) == soft.vectors.shape[1]


def test_a_fixed_number_of_soft_tokens_stands_for_the_words_of_the_note(ends: tuple[Sender, Receiver, BridgeEnds]) -> None:
    sender, receiver, widths = ends
    row = record()
    bridge = PerceiverConfig(soft_tokens=8).build(widths)
    with pytest.raises(UsageError, match=r"training\.align_to=note"):
        Alignment(sender, receiver, bridge, [row])
    alignment = Alignment(sender, receiver, bridge, [row], to="note")
    plan = alignment.plan(row)
    assert receiver.tokenizer.decode([plan.tokens[token] for group in plan.groups for token in group]).strip() == row.note
    with pytest.raises(DataError, match="has no notes"):
        alignment.loss([replace(row, note=None)], bridge(sender.read([row.sender_prompt])))


def test_soft_tokens_that_are_the_embeddings_of_the_words_cost_nothing(ends: tuple[Sender, Receiver, BridgeEnds]) -> None:
    sender, receiver, widths = ends
    row = record()
    alignment = Alignment(sender, receiver, PerceiverConfig(soft_tokens=12).build(widths), [row], to="note")
    tokens = list(alignment.plan(row).tokens)
    vectors = torch.zeros(1, 12, receiver.width)
    own = receiver.embed.weight.detach()[tokens]
    vectors[0, : len(tokens)] = own * receiver.embedding_rms / own.pow(2).mean(-1, keepdim=True).sqrt()
    mask = torch.ones(1, 12, dtype=torch.bool)
    assert alignment.loss([row], SoftTokens(vectors, mask)).item() < 1e-9
    assert alignment.loss([row], SoftTokens(vectors.roll(1, 1), mask)).item() > 0.5


def test_targets_have_the_scale_with_which_soft_tokens_begin(ends: tuple[Sender, Receiver, BridgeEnds]) -> None:
    sender, receiver, widths = ends
    row = record()
    alignment = Alignment(sender, receiver, PerceiverConfig(soft_tokens=12, gain=3).build(widths), [row], to="note")
    tokens = list(alignment.plan(row).tokens)
    own = receiver.embed.weight.detach()[tokens]
    vectors = torch.zeros(1, 12, receiver.width)
    vectors[0, : len(tokens)] = 3 * own * receiver.embedding_rms / own.pow(2).mean(-1, keepdim=True).sqrt()
    mask = torch.ones(1, 12, dtype=torch.bool)
    assert alignment.loss([row], SoftTokens(vectors, mask)).item() < 1e-9
    assert alignment.loss([row], SoftTokens(vectors / 3, mask)).item() > 0.3


@given(st.integers(1, 40), st.integers(1, 20))
def test_words_of_a_note_are_spread_in_order_over_the_message(tokens: int, groups: int) -> None:
    homes = spread(tokens, groups)
    assert homes == sorted(homes)
    assert len(homes) == tokens
    assert max(homes) < groups
    assert tokens < groups or set(homes) == set(range(groups))
    placed = assign(homes, [1.0] * tokens, groups=groups, back=2, ahead=2)
    assert [token for group in placed for token in group] == list(range(tokens))


def test_hidden_sender_tokens_leave_the_others_at_their_words(ends: tuple[Sender, Receiver, BridgeEnds]) -> None:
    sender, receiver, widths = ends
    row = record()
    bridge = PooledConfig().build(widths)
    alignment = Alignment(sender, receiver, bridge, [row])
    soft = bridge(sender.read([row.sender_prompt]))
    mask = soft.mask.clone()
    mask[0, :3] = False
    vectors = (soft.vectors * mask[..., None]).detach().requires_grad_()
    alignment.loss([row], SoftTokens(vectors, mask)).backward()
    assert vectors.grad is not None
    touched = vectors.grad[0].abs().sum(dim=1) > 0
    spoken = torch.tensor([bool(group) for group in alignment.plan(row).groups])
    assert torch.equal(touched, mask[0] & spoken)
    nothing = alignment.loss([row], SoftTokens(vectors, torch.zeros_like(mask)))
    assert nothing.item() == 0.0
