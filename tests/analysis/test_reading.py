"""Bits delivered: a message that is as good as the text delivers what the text does, a destroyed one nothing."""

from __future__ import annotations

from functools import partial
from math import log2
from typing import Any

import pytest
import torch

from latentwire.analysis.capacity.codes import Wording, load_alphabet
from latentwire.analysis.capacity.reading import check_lengths, code_ids, examples, graded, read_messages, read_text
from latentwire.bridges.base import Bridge, BridgeEnds
from latentwire.bridges.linear import LinearConfig
from latentwire.errors import DataError
from latentwire.evaluation.controls import build_control
from latentwire.models.receiver import Receiver
from latentwire.models.sender import Sender, load_sender
from latentwire.models.soft_tokens import SoftTokens

WORDING, ALPHABET = Wording(), load_alphabet("tinyworld")


class TextBridge(Bridge):
    """Passes on the receiver's own embeddings, which the sender's layer 0 are: the message is the text."""

    def vectors(self, states: Any, mask: Any) -> Any:
        return states, mask

    def forward(self, read: Any) -> SoftTokens:
        return SoftTokens(read.states, read.mask)


@pytest.fixture(scope="module")
def sender() -> Sender:
    return load_sender("nano-mistral", layer=0, device="cpu")


@pytest.fixture(scope="module")
def bridge(receiver: Receiver) -> Bridge:
    ends = BridgeEnds(sender_width=receiver.width, receiver_width=receiver.width, receiver_rms=receiver.embedding_rms)
    return TextBridge(LinearConfig(), ends)


def test_a_message_that_is_the_text_delivers_what_the_text_does(sender: Sender, bridge: Bridge, receiver: Receiver) -> None:
    codes = ALPHABET.draw(8, 20)
    sent = read_messages(sender, bridge, receiver, WORDING, ALPHABET, codes, batch_size=7)
    read = read_text(receiver, WORDING, ALPHABET, codes)
    assert [one.bits for one in sent] == pytest.approx([one.bits for one in read], abs=0.01)
    assert [one.exact for one in sent] == [one.exact for one in read]
    # the embedded receiver repeats codes of 8
    assert sum(one.exact for one in sent) >= 18
    assert sum(one.bits for one in sent) / 20 > 38
    assert all(one.bits <= 40 for one in sent)
    words = len(WORDING.context(codes[0]).replace(".", " .").split())
    assert {one.soft_tokens for one in sent} == {words}
    assert {one.message_bytes for one in sent} == {words * receiver.width * 4}


@pytest.mark.parametrize("control", ["zero", "shuffled", "noise"])
def test_a_destroyed_message_delivers_nothing(sender: Sender, bridge: Bridge, receiver: Receiver, control: str) -> None:
    codes = ALPHABET.draw(8, 12)
    sent = read_messages(sender, bridge, receiver, WORDING, ALPHABET, codes, control=partial(build_control, control), batch_size=5)
    assert sum(one.bits for one in sent) / len(sent) <= 0
    assert not any(one.exact for one in sent)


def test_bits_are_the_codes_minus_what_the_receiver_misses(receiver: Receiver) -> None:
    """Against log-probabilities computed one code at a time, the end token apart."""
    codes = ALPHABET.draw(4, 3)
    for code, found in zip(codes, read_text(receiver, WORDING, ALPHABET, codes), strict=True):
        prefix = receiver.prefix([WORDING.asked.with_text(WORDING.context(code))])
        ids = code_ids(receiver, WORDING, [code])[0]
        log_probs, _ = receiver.answer_log_probs(prefix, [ids])
        assert len(ids) == 5
        assert found.bits == pytest.approx(4 * log2(32) + float(log_probs[0, :-1].sum()) / 0.6931471805599453, abs=1e-3)
        assert found.end_bits == pytest.approx(-float(log_probs[0, -1]) / 0.6931471805599453, abs=1e-3)


def test_exact_is_what_greedy_decoding_writes(receiver: Receiver) -> None:
    # 32 symbols are more than the embedded receiver was ever asked for
    for length in (2, 16, 32):
        codes = ALPHABET.draw(length, 8)
        prompts = [WORDING.asked.with_text(WORDING.context(code)) for code in codes]
        written = receiver.generate(receiver.prefix(prompts), max_new_tokens=length + 4)
        exact = [one.exact for one in read_text(receiver, WORDING, ALPHABET, codes)]
        assert exact == [text == " ".join(code) for text, code in zip(written, codes, strict=True)]


def test_graded_answers_are_log_probs_and_exactness_at_once(receiver: Receiver) -> None:
    codes = ALPHABET.draw(3, 4)
    prefix = receiver.prefix([WORDING.asked.with_text(WORDING.context(code)) for code in codes])
    ids = code_ids(receiver, WORDING, codes)
    ids[0][1] = ids[0][0]  # a wrong answer among right ones
    log_probs, mask, right = receiver.graded_answers(prefix, ids)
    expected, expected_mask = receiver.answer_log_probs(prefix, ids)
    assert torch.equal(log_probs, expected)
    assert torch.equal(mask, expected_mask)
    assert torch.equal(right.all(dim=1), receiver.predicted_exactly(prefix, ids))
    assert right[0].tolist()[1] is False


def test_a_code_that_goes_on_is_exact_but_for_the_end(receiver: Receiver) -> None:
    """The message tells codes of 8, the receiver is held against their first 4 symbols."""
    codes = ALPHABET.draw(8, 6)
    prefix = receiver.prefix([WORDING.asked.with_text(WORDING.context(code)) for code in codes])
    missing, ends, exact, exact_code = graded(receiver, prefix, code_ids(receiver, WORDING, [code[:4] for code in codes]))
    assert exact_code.all()
    assert not exact.any()
    assert float(missing.max()) < 1 < float(ends.min())


def test_equal_codes_are_rows_of_their_own() -> None:
    rows = examples(WORDING, [("a",), ("a",)])
    assert rows[0].id != rows[1].id
    assert rows[0].receiver_prompt_aware.text == f"The code is a.{WORDING.asked.text}"


def test_lengths_that_do_not_fit_are_refused_before_any_work(sender: Sender, bridge: Bridge, receiver: Receiver) -> None:
    check_lengths(sender, bridge, receiver, WORDING, ALPHABET, [8, 400])
    with pytest.raises(DataError, match=r"codes of length 600 do not fit: the receiver 'nano-mistral@\d' would need 12\d\d tokens"):
        check_lengths(sender, bridge, receiver, WORDING, ALPHABET, [1, 600])
    with pytest.raises(DataError, match=r"codes of length 2000 do not fit: the sender .* give shorter --lengths"):
        check_lengths(sender, bridge, receiver, WORDING, ALPHABET, [1, 2000])
