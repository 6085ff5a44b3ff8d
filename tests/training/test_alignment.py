from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from latentwire.bridges.base import BridgeEnds
from latentwire.bridges.pooled import PooledConfig
from latentwire.models.receiver import load_receiver
from latentwire.models.sender import load_sender
from latentwire.training.alignment import Alignment, assign, overlap


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


def test_plans_of_the_embedded_pair_name_every_receiver_token_once() -> None:
    sender, receiver = load_sender("nano-llama", layer=1, device="cpu"), load_receiver("nano-mistral", device="cpu")
    ends = BridgeEnds(sender_width=sender.width, receiver_width=receiver.width, receiver_rms=receiver.embedding_rms)
    text = "In Torbon, Mareth has 27 hammers."
    for rate in (1, 2, 4):
        bridge = PooledConfig(tokens_per_soft_token=rate, look_ahead=1).build(ends)
        plan = Alignment(sender, receiver, bridge, [text]).plan(text)
        assert [token for group in plan.groups for token in group] == list(range(len(plan.tokens)))
        assert len(plan.groups) == bridge(sender.read([text])).vectors.shape[1]
