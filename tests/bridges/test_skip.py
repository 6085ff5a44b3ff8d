"""Bridges that do not read the tokens with which all contexts begin alike."""

from __future__ import annotations

import pytest
import torch

from latentwire.bridges import BRIDGES, bridge_config
from latentwire.bridges.base import Bridge
from latentwire.models.receiver import load_receiver
from latentwire.models.sender import SenderStates, load_sender
from latentwire.training.alignment import Alignment
from latentwire.training.packing import soft_token_starts
from tests.bridges.test_contract import ENDS, batch, row_alone
from tests.training.test_alignment import record

SKIP = 3
#: longer than the skipped tokens, as long as these, shorter, and one longer by one
LENGTHS = (9, 3, 1, 4)
every_bridge = pytest.mark.parametrize("name", BRIDGES)


def pair_of(name: str) -> tuple[Bridge, Bridge]:
    """A bridge that skips tokens, and one of the same weights that does not."""
    built = []
    for skip in (SKIP, 0):
        torch.manual_seed(0)
        built.append(bridge_config({"name": name, "skip": skip}).build(ENDS).eval())
    return built[0], built[1]


@every_bridge
@torch.no_grad()
def test_a_message_is_that_of_what_stands_behind(name: str) -> None:
    skipping, plain = pair_of(name)
    read = batch(LENGTHS)
    soft = skipping(read)
    for row, length in enumerate(LENGTHS):
        alone = row_alone(read, row)
        # a context that has no other tokens is read whole
        first = SKIP if length > SKIP else 0
        wanted = plain(SenderStates(alone.states[:, first:], alone.mask[:, first:]))
        torch.testing.assert_close(soft.vectors[row][soft.mask[row]], wanted.vectors[0], rtol=1e-4, atol=1e-5)
        by_itself = skipping(alone)
        torch.testing.assert_close(by_itself.vectors[by_itself.mask], wanted.vectors[0], rtol=1e-4, atol=1e-5)
    assert soft.mask.any(dim=1).all()


@every_bridge
@torch.no_grad()
def test_the_config_says_how_many_soft_tokens_a_context_gets(name: str) -> None:
    for bridge in pair_of(name):
        for length in range(1, 12):
            assert bridge.config.soft_tokens_of(length) == int(bridge(batch((length,))).mask.sum())


def test_contexts_of_one_length_leave_no_gaps() -> None:
    skipping, _ = pair_of("pooled")
    assert skipping(batch((9, 9))).has_no_gaps
    assert skipping(batch((9,))).mask.shape == (1, 6)


def test_the_rate_says_what_is_skipped() -> None:
    config = bridge_config({"name": "attentive", "tokens_per_soft_token": 5, "skip": 3, "unfold": 4})
    assert config.describe_rate() == "one soft token per 5 sender tokens behind the first 3, unfolded by 4 vectors each"


def test_words_are_aligned_to_the_soft_tokens_that_stand_for_them() -> None:
    sender, receiver = load_sender("nano-llama", layer=1), load_receiver("nano-mistral")
    row, rate = record(), 2
    config = bridge_config({"name": "linear", "tokens_per_soft_token": rate, "skip": SKIP})
    encoded = sender.tokenizer(row.sender_prompt, add_special_tokens=False, return_offsets_mapping=True)
    starts = [start for start, _ in encoded["offset_mapping"]]
    assert soft_token_starts(config, sender, row.sender_prompt) == starts[SKIP::rate]
    bridge = config.build(
        ENDS.model_copy(update={"sender_width": sender.width, "sender_layers": 1, "receiver_width": receiver.width})
    )
    plan = Alignment(sender, receiver, bridge, [row]).plan(row)
    assert len(plan.groups) == int(bridge(sender.read([row.sender_prompt])).mask.sum())
    last = receiver.tokenizer.decode([plan.tokens[place] for place in plan.groups[-1]])
    assert row.sender_prompt.endswith(last.strip())


@torch.no_grad()
def test_tokens_that_training_hides_do_not_make_a_context_shorter() -> None:
    skipping, _ = pair_of("pooled")
    read = batch((9,))
    hidden = read.mask.clone()
    hidden[0, 1:8] = False  # two are left, fewer than are skipped
    soft = skipping(SenderStates(read.states, hidden))
    assert soft.mask.tolist() == [[False] * 5 + [True]]
