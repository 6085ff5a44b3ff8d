"""Soft tokens that take up more than one of the receiver's positions, or are unfolded by vectors behind them."""

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
from latentwire.models.trie import build_trie
from latentwire.prompts import Prompt
from latentwire.training.optimisers import Optimiser
from tests.conftest import FAMILIES, WIDTH
from tests.models.test_receiver import ASK, OPTIONS, PROMPTS, one_by_one, ragged, receiver_of, sharpened

STRIDE = 3


def strided(receiver: Receiver, unfold: int = 0) -> SoftTokens:
    return replace(ragged(receiver), stride=STRIDE, unfold=unfolding(receiver, unfold))


def unfolding(receiver: Receiver, count: int) -> torch.Tensor | None:
    drawn = torch.randn(count, receiver.width, generator=torch.Generator().manual_seed(1))
    return drawn * receiver.embedding_rms if count else None


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


@pytest.mark.parametrize(
    ("stride", "unfold", "steps"),
    [(3, 2, [0, 1, 2]), (3, 5, [0, 0, 1, 1, 2, 2]), (4, 1, [0, 2]), (6, 2, [0, 2, 4]), (1, 2, [0, 0, 0]), (3, 3, [0, 0, 1, 2])],
)
def test_what_unfolds_a_soft_token_stands_behind_it_spread_over_its_stride(stride: int, unfold: int, steps: list[int]) -> None:
    receiver = load_receiver("nano-mistral")
    prompt = Prompt("Read", " now")
    before, after = receiver.prompter.prefix_ids(prompt)
    soft = replace(alone(receiver, strided(receiver, unfold), 0), stride=stride)
    prefix = receiver.prefix([prompt], soft)
    first = len(before)
    message = [first + stride * number + step for number in range(4) for step in steps]
    assert prefix.positions.tolist() == [[*range(first), *message, *range(first + 4 * stride, first + 4 * stride + len(after))]]
    read = prefix.embeddings[0, first : first + len(message)].unflatten(0, (4, -1))
    assert torch.equal(read[:, 0], soft.vectors[0].to(read.dtype))
    assert soft.unfold is not None
    assert torch.equal(read[:, 1:], soft.unfold.to(read.dtype).expand(4, -1, -1))


@pytest.mark.parametrize("unfold", [0, 2])
@pytest.mark.parametrize("family", [*FAMILIES, "nano-mistral"])
def test_a_row_of_a_batch_reads_as_alone_whatever_asks_it(family_folder: dict[str, str], family: str, unfold: int) -> None:
    receiver = sharpened(family_folder[family]) if family in family_folder else receiver_of(family)
    soft = strided(receiver, unfold)
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


@pytest.mark.parametrize("unfold", [0, 2])
def test_equal_prompts_around_even_messages_stand_where_they_stand_alone(unfold: int) -> None:
    receiver = load_receiver("nano-mistral")
    soft = replace(ragged(receiver, (4, 4, 4)), stride=STRIDE, unfold=unfolding(receiver, unfold))
    even = receiver.prefix([ASK] * 3, soft)
    for row in range(3):
        assert torch.equal(even.positions[row], receiver.prefix([ASK], soft[row : row + 1]).positions[0])
    trie = receiver.tries([ASK] * 3, [OPTIONS[0]] * 3)
    for row, scores in enumerate(receiver.score_options(even, trie)):
        expected = one_by_one(receiver, receiver.prefix([ASK], soft[row : row + 1]), ASK, OPTIONS[0])
        torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(("stride", "unfold"), [(4, 0), (1, 1), (3, 2)])
@pytest.mark.parametrize("family", [*FAMILIES, "nano-mistral"])
@torch.no_grad()
def test_options_of_one_token_see_the_whole_message(family_folder: dict[str, str], family: str, stride: int, unfold: int) -> None:
    """Without a mask some models take positions that do not follow each other for several texts in one row."""
    receiver = sharpened(family_folder[family]) if family in family_folder else receiver_of(family)
    soft = replace(ragged(receiver, (4, 4, 4)), stride=stride, unfold=unfolding(receiver, unfold))
    together = receiver.prefix([ASK] * 3, soft)
    trie = build_trie([[5], [9], [70]], None)
    for row, scores in enumerate(receiver.score_options(together, [trie] * 3)):
        prefix = receiver.prefix([ASK], soft[row : row + 1])
        asked = {"inputs_embeds": prefix.embeddings, "position_ids": prefix.positions, "attention_mask": prefix.mask.long()}
        wanted = receiver.model(**asked).logits[0, -1].float().log_softmax(-1)[[5, 9, 70]]
        torch.testing.assert_close(scores, wanted, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(receiver.score_options(prefix, [trie])[0], wanted, atol=1e-4, rtol=1e-5)


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


def test_vectors_count_against_what_the_receiver_reads_at_most_where_they_are_more_than_positions(
    family_folder: dict[str, str],
) -> None:
    receiver = receiver_of(family_folder["llama"])
    soft = SoftTokens(torch.zeros(2, 60, WIDTH), torch.ones(2, 60, dtype=torch.bool), unfold=unfolding(receiver, 4))
    with pytest.raises(DataError, match=r"^row \d gives the receiver 3\d\d tokens \(each soft token counts as 5\), .*$"):
        receiver.prefix([ASK, ASK], soft)
    receiver.prefix([ASK, ASK], replace(soft, unfold=unfolding(receiver, 2)))


def test_whatever_happens_to_a_message_its_stride_and_unfolding_stay() -> None:
    receiver = load_receiver("nano-mistral")
    soft = strided(receiver, 2)
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
    assert all(message.unfold is soft.unfold for message in sent)
    with pytest.raises(MismatchError, match=r"^messages that differ in stride \(1, 3\) cannot be joined$"):
        SoftTokens.joined([soft, replace(soft, stride=1)])
    for other in (unfolding(receiver, 3), None):
        with pytest.raises(MismatchError, match=r"^messages whose bridges unfold them in different ways \(bridge.unfold\) cannot"):
            SoftTokens.joined([soft, replace(soft, unfold=other)])
    SoftTokens.joined([soft, replace(soft, unfold=unfolding(receiver, 2))])


def test_what_unfolds_a_message_is_not_sent_and_weighs_nothing() -> None:
    receiver = load_receiver("nano-mistral")
    channel = Channel(MessageSettings(), receiver)
    folded, plain = channel.deliver(strided(receiver, 6)), channel.deliver(strided(receiver))
    assert folded.packed == plain.packed
    assert folded.message_tokens == plain.message_tokens
    assert folded.message_bytes == plain.message_bytes


@torch.no_grad()
def test_the_receiver_reads_what_unfolds_a_message() -> None:
    receiver = load_receiver("nano-mistral")
    tries = receiver.tries(PROMPTS, OPTIONS)
    found = [torch.cat(receiver.score_options(receiver.prefix(PROMPTS, strided(receiver, count)), tries)) for count in (0, 2)]
    assert (found[0] - found[1]).abs().max() > 1e-3


def test_a_bridge_learns_what_unfolds_its_messages_and_keeps_it(tmp_path: object) -> None:
    config = bridge_config({"name": "pooled", "tokens_per_soft_token": 2, "stride": 2, "unfold": 3})
    assert config.describe_rate() == "one soft token per 2 sender tokens, unfolded by 3 vectors each"
    receiver = load_receiver("nano-mistral")
    ends = BridgeEnds(sender_width=8, receiver_width=receiver.width, receiver_rms=receiver.embedding_rms)
    bridge = config.build(ends)
    assert bridge.num_params == config.model_copy(update={"unfold": 0}).num_params(ends) + 3 * receiver.width
    read = SenderStates(torch.randn(1, 6, 8), torch.ones(1, 6, dtype=torch.bool))
    answer = receiver.answer_ids(ASK, "lost card")
    log_probs, _ = receiver.answer_log_probs(receiver.prefix([ASK], bridge(read)), [answer])
    log_probs.sum().backward()
    assert bridge.unfold_embeddings is not None
    assert (bridge.unfold_embeddings.grad.norm(dim=1) > 0).all()  # type: ignore[union-attr]
    optimiser = Optimiser(bridge.named_parameters(), name="muon", lr=0.1, weight_decay=0.0, total_steps=1, warmup_steps=0)
    muon = [parameter for group in optimiser.parts[0].param_groups for parameter in group["params"]]
    assert len(muon) == 2, "the two layers of the bridge; what unfolds is no matrix"
    bridge.save_pretrained(str(tmp_path))
    loaded = Bridge.from_pretrained(str(tmp_path))(read).unfold
    assert loaded is not None
    assert torch.equal(loaded, bridge(read).unfold)  # type: ignore[arg-type]
    assert loaded.pow(2).mean().sqrt().item() == pytest.approx(receiver.embedding_rms, rel=0.1)


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
    apart, how, *_ = attention_on(receiver, ASK, soft, answer)
    side_by_side, *_ = attention_on(receiver, ASK, replace(soft, stride=1), answer)
    assert how == "attention"
    assert max(abs(one - other) for one, other in zip(apart, side_by_side, strict=True)) > 1e-4


def test_attention_on_what_unfolds_a_soft_token_counts_as_its_own() -> None:
    receiver = load_receiver("nano-mistral")
    soft = alone(receiver, strided(receiver, 2), 0)
    found, how, _, elsewhere = attention_on(receiver, ASK, soft, receiver.answer_ids(ASK, "lost card"))
    assert how == "attention"
    assert len(found) == 4
    assert sum(found) + elsewhere == pytest.approx(1, abs=1e-4)
