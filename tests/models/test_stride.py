"""Soft tokens that take up more than one of the receiver's positions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from latentwire.analysis.message_views import attention_on, stacked
from latentwire.bridges import bridge_config
from latentwire.bridges.base import Bridge, BridgeEnds
from latentwire.errors import DataError, MismatchError
from latentwire.evaluation.controls import CONTROLS, build_control
from latentwire.messages.channel import Channel
from latentwire.messages.settings import MessageSettings
from latentwire.models.receiver import Receiver, load_receiver
from latentwire.models.sender import SenderStates
from latentwire.models.soft_tokens import SoftTokens
from latentwire.prompts import Prompt
from tests.conftest import FAMILIES, WIDTH
from tests.models.test_receiver import ASK, OPTIONS, PROMPTS, one_by_one, ragged, receiver_of, sharpened

STRIDE = 3


def strided(receiver: Receiver) -> SoftTokens:
    return replace(ragged(receiver), stride=STRIDE)


def alone(receiver: Receiver, soft: SoftTokens, row: int) -> SoftTokens:
    real = soft.mask[row]
    return replace(soft, vectors=soft.vectors[row][real][None], mask=real[real][None])


def test_soft_tokens_are_a_stride_apart_and_what_follows_stands_behind_the_last_stride() -> None:
    receiver = load_receiver("nano-mistral")
    prompt = Prompt("Read", " now")
    before, after = receiver.prompter.prefix_ids(prompt)
    first = len(before)
    prefix = receiver.prefix([prompt], alone(receiver, strided(receiver), 0))
    behind = first + 4 * STRIDE
    message = [first + STRIDE * number for number in range(4)]
    assert prefix.positions.tolist() == [[*range(first), *message, *range(behind, behind + len(after))]]
    assert prefix.lengths == [first + 4 + len(after)]
    once = receiver.prefix([prompt], replace(alone(receiver, strided(receiver), 0), stride=1))
    assert once.positions.tolist() == [list(range(first + 4 + len(after)))]


@pytest.mark.parametrize("family", [*FAMILIES, "nano-mistral"])
def test_a_row_of_a_batch_reads_as_alone_whatever_asks_it(family_folder: dict[str, str], family: str) -> None:
    receiver = sharpened(family_folder[family]) if family in family_folder else receiver_of(family)
    soft = strided(receiver)
    together = receiver.prefix(PROMPTS, soft)
    tries = receiver.tries(PROMPTS, OPTIONS)
    written = receiver.generate_ids(together, max_new_tokens=4)
    for row, scores in enumerate(receiver.score_options(together, tries)):
        prefix = receiver.prefix([PROMPTS[row]], alone(receiver, soft, row))
        assert prefix.positions.tolist() == [together.positions[row][together.mask[row]].tolist()]
        torch.testing.assert_close(scores, one_by_one(receiver, prefix, PROMPTS[row], OPTIONS[row]), atol=1e-4, rtol=1e-5)
        assert receiver.generate_ids(prefix, max_new_tokens=4) == [written[row]]
        ended = written[row] if len(written[row]) == 4 else [*written[row], receiver.end_id]
        assert receiver.predicted_exactly(prefix, [ended]).all()
    best = [scores.argmax() for scores in receiver.score_contenders(together, tries)]
    assert best == [scores.argmax() for scores in receiver.score_options(together, tries)]


def test_equal_prompts_around_even_messages_stand_where_they_stand_alone() -> None:
    receiver = load_receiver("nano-mistral")
    soft = replace(ragged(receiver, (4, 4, 4)), stride=STRIDE)
    even = receiver.prefix([ASK] * 3, soft)
    for row in range(3):
        assert torch.equal(even.positions[row], receiver.prefix([ASK], soft[row : row + 1]).positions[0])
    trie = receiver.tries([ASK] * 3, [OPTIONS[0]] * 3)
    for row, scores in enumerate(receiver.score_options(even, trie)):
        expected = one_by_one(receiver, receiver.prefix([ASK], soft[row : row + 1]), ASK, OPTIONS[0])
        torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_the_stride_changes_what_is_read_and_a_beginning_read_ahead_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = load_receiver("nano-mistral")
    head = "Request: a lamp is lost. Answer: 2\n" * 4
    prompts = [Prompt(head + prompt.before, prompt.after) for prompt in PROMPTS]
    found = []
    for stride, least in ((STRIDE, 10**9), (STRIDE, 32), (1, 10**9)):
        monkeypatch.setattr("latentwire.models.past.SHARED_TOKENS", least)
        prefix = receiver.prefix(prompts, replace(ragged(receiver, (4, 1, 2)), stride=stride))
        read = receiver.with_shared_start_read(prefix)
        assert (read.past is not None) == (least == 32)
        assert torch.equal(read.positions[:, -1], prefix.positions[:, -1])
        found.append(torch.stack(receiver.score_options(prefix, receiver.tries(prompts, [OPTIONS[1]] * 3))))
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)
    assert (found[0] - found[2]).abs().max() > 1e-3


def test_positions_count_against_what_the_receiver_reads_at_most(family_folder: dict[str, str]) -> None:
    receiver = receiver_of(family_folder["llama"])
    soft = SoftTokens(torch.zeros(2, 60, WIDTH), torch.ones(2, 60, dtype=torch.bool))
    receiver.prefix([ASK, ASK], soft)
    for prompts in ([ASK, ASK], [PROMPTS[1], ASK]):
        with pytest.raises(
            DataError, match=r"^row \d gives the receiver \d+ tokens \(each soft token counts as 5\), .* reads at most 256; .*$"
        ):
            receiver.prefix(prompts, replace(soft, stride=5))


def test_whatever_happens_to_a_message_its_stride_stays() -> None:
    receiver = load_receiver("nano-mistral")
    soft = strided(receiver)
    channel = Channel(MessageSettings(precision="int8", verbatim="rules"), receiver)
    texts = ["Maria left 47 apples."] * 3
    sent = [
        channel.deliver(channel.written(soft, texts)).soft,
        channel.taught(soft, texts),
        soft[1:],
        soft.shifted(),
        SoftTokens.joined([soft, soft]),
        SoftTokens.gathered([soft, soft], [[0, 2, 4], [1, 3, 5]]),
        stacked([soft, soft]),
    ]
    for name in CONTROLS:
        control = build_control(name, [])
        if control.replace_vectors is not None:
            sent.append(control.replace_vectors(soft, ["a", "b", "c"]))  # type: ignore[arg-type]
    assert [message.stride for message in sent] == [STRIDE] * len(sent)
    with pytest.raises(MismatchError, match=r"^messages that differ in stride \(1, 3\) cannot be joined$"):
        SoftTokens.joined([soft, replace(soft, stride=1)])


def test_a_bridge_keeps_its_stride_in_its_artefact(tmp_path: object) -> None:
    config = bridge_config({"name": "pooled", "tokens_per_soft_token": 2, "stride": 2})
    bridge = config.build(BridgeEnds(sender_width=8, receiver_width=12, receiver_rms=0.1))
    read = SenderStates(torch.randn(1, 6, 8), torch.ones(1, 6, dtype=torch.bool))
    bridge.save_pretrained(str(tmp_path))
    loaded = Bridge.from_pretrained(str(tmp_path))
    assert bridge(read).stride == loaded(read).stride == 2


def test_attention_is_looked_at_where_soft_tokens_stand() -> None:
    receiver = load_receiver("nano-mistral")
    soft = alone(receiver, strided(receiver), 0)
    answer = receiver.answer_ids(ASK, "lost card")
    apart, how, _ = attention_on(receiver, ASK, soft, answer)
    side_by_side, _, _ = attention_on(receiver, ASK, replace(soft, stride=1), answer)
    assert how == "attention"
    assert max(abs(one - other) for one, other in zip(apart, side_by_side, strict=True)) > 1e-4
