"""Shortcuts on the way to an answer change no bit of it (on a CPU)."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from latentwire.bridges import bridge_config
from latentwire.bridges.base import BridgeEnds
from latentwire.messages.precision import pack, unpack
from latentwire.methods.bridge import soft_tokens_of
from latentwire.models.receiver import Receiver
from latentwire.models.sender import load_sender
from latentwire.models.soft_tokens import Prefix, SoftTokens
from latentwire.models.tokens import encode_plain
from latentwire.models.trie import build_trie
from latentwire.prompts import Prompt

TEXTS = ["Maria left 47 red apples in Lisbon.", "The code is 4 7 k m."]
PROMPTS = [Prompt("", "\nQuestion: What colour?\nAnswer:"), Prompt("Note:", "\nQuestion: How many apples are there?\nAnswer:")]
OPTIONS = ["red apples", "red", "blue lamps", "blue", "no"]


def test_a_sender_without_mask_reads_the_same() -> None:
    sender = load_sender("nano-llama", layer=2, device="cpu")
    for texts in (TEXTS[:1], [TEXTS[0]] * 3):
        read = sender.read(texts)
        encoded, skip = sender.prompter.context_ids(texts)
        ids = torch.tensor(encoded)
        with torch.no_grad():
            masked = sender.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).last_hidden_state
        assert torch.equal(read.states, masked[:, skip:])


def test_a_single_row_is_written_as_with_a_mask(receiver: Receiver) -> None:
    prefix = receiver.prefix(PROMPTS[:1])
    rows = receiver.generate_ids(prefix, max_new_tokens=12)
    attention, positions = prefix.mask.long(), prefix.mask.long().cumsum(1) - 1
    written: list[int] = []
    with torch.no_grad():
        output = receiver.model(
            inputs_embeds=prefix.embeddings, attention_mask=attention, position_ids=positions, use_cache=True, logits_to_keep=1
        )
        for step in range(12):
            chosen = output.logits[:, -1].argmax(-1)
            if int(chosen) in receiver.end_ids:
                break
            written.append(int(chosen))
            attention = F.pad(attention, (0, 1), value=1)
            output = receiver.model(
                input_ids=chosen[:, None], attention_mask=attention, position_ids=positions[:, -1:] + 1 + step,
                use_cache=True, past_key_values=output.past_key_values,
            )  # fmt: skip
    assert rows == [written]


def test_rows_with_one_trie_score_as_with_tries_of_their_own(receiver: Receiver) -> None:
    prefix = receiver.prefix(PROMPTS)
    ids = [receiver.answer_ids(PROMPTS[0], option, end=False) for option in OPTIONS]
    one = build_trie(ids, receiver.end_id)
    others = [build_trie(ids, receiver.end_id) for _ in PROMPTS]
    with torch.no_grad():
        assert torch.equal(receiver.tree_logits(prefix, [one, one]), receiver.tree_logits(prefix, others))


def test_tries_are_kept_and_are_those_of_their_own_prompt(receiver: Receiver) -> None:
    prompts = [*PROMPTS, Prompt("The colour is", ""), Prompt("They are called ", "")]
    tries = receiver.tries(prompts, [OPTIONS] * 4)
    assert receiver.tries(prompts, [OPTIONS] * 4)[0] is tries[0]
    for prompt, trie in zip(prompts, tries, strict=True):
        assert trie == build_trie([receiver.answer_ids(prompt, option, end=False) for option in OPTIONS], receiver.end_id)


def test_a_prefix_of_one_row_is_that_of_the_batch(receiver: Receiver) -> None:
    alone, both = receiver.prefix(PROMPTS[:1]), receiver.prefix(PROMPTS)
    assert torch.equal(alone.embeddings, both[[0]].embeddings)
    assert torch.equal(alone.mask, both[[0]].mask)
    assert isinstance(alone[[0]], Prefix)
    assert torch.equal(alone[[0]].embeddings, alone.embeddings)


@pytest.mark.parametrize("form", ["float32", "bf16", "int8"])
def test_messages_of_one_length_arrive_as_among_others(form: str) -> None:
    vectors = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(3, 4, dtype=torch.bool)
    even = unpack(pack(SoftTokens(vectors, mask), form), form, 6)  # type: ignore[arg-type]
    ragged_mask = mask.clone()
    ragged_mask[2, 2:] = False
    ragged = unpack(pack(SoftTokens(vectors, ragged_mask), form), form, 6)  # type: ignore[arg-type]
    assert torch.equal(even.vectors[:2], ragged.vectors[:2])
    assert torch.equal(even.mask, mask)
    assert torch.equal(ragged.mask, ragged_mask)


def test_remembered_tokens_are_those_of_the_tokenizer_and_nobody_can_spoil_them(receiver: Receiver) -> None:
    text = "\nAnswer: remembered"
    first = encode_plain(receiver.tokenizer, text)
    first.append(-1)
    assert encode_plain(receiver.tokenizer, text) == receiver.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_rows_of_one_trie_are_scored_together_as_one_by_one(receiver: Receiver) -> None:
    prefix = receiver.prefix(PROMPTS)
    (trie,) = receiver.tries(PROMPTS[:1], [OPTIONS])
    with torch.no_grad():
        logits = receiver.tree_logits(prefix, [trie, trie])
    together = trie.option_scores(logits.log_softmax(-1))
    for own, scores in zip(logits, together, strict=True):
        assert torch.equal(scores, trie.option_scores(own.log_softmax(-1)))


def test_the_kept_bias_is_the_one_a_batch_builds(receiver: Receiver) -> None:
    alone, both = receiver.prefix(PROMPTS[1:]), receiver.prefix(PROMPTS)
    (trie,) = receiver.tries(PROMPTS[1:], [OPTIONS])
    # the second row is the longer one, so nothing is padded in it
    embeddings, bias, positions = (part[1:] for part in receiver.tree_inputs(both, [trie, trie]))
    for _ in range(2):
        own = receiver.tree_inputs(alone, [trie])
        assert torch.equal(own[0], embeddings)
        assert torch.equal(own[1], bias)
        assert torch.equal(own[2], positions)


def test_options_of_one_token_score_as_behind_a_bias(receiver: Receiver) -> None:
    prefix = receiver.prefix(PROMPTS[1:])
    (trie,) = receiver.tries(PROMPTS[1:], [["red", "blue"]])
    length = prefix.mask.shape[1]
    with torch.no_grad():
        without = receiver.tree_logits(prefix, [trie])
        bias = trie.bias(length, torch.float32, torch.device("cpu"))
        output = receiver.model(
            inputs_embeds=prefix.embeddings, attention_mask=bias, position_ids=prefix.positions, logits_to_keep=1, use_cache=False
        )
    assert torch.equal(without, output.logits)


def test_a_trie_keeps_few_biases() -> None:
    trie = build_trie([[1, 2], [1, 3, 4]], None)
    for length in range(1, 40):
        assert trie.bias(length, torch.float32, torch.device("cpu")).shape[-1] == length + len(trie.tokens)
    assert len(trie._biases) <= 8


def test_rows_without_padding_are_put_together_as_one_by_one(receiver: Receiver) -> None:
    """The same prompt around messages of one length: prefixes, what a tree pass reads, scores and gradients."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(3, 4, receiver.width, generator=generator).requires_grad_()
    mask = torch.ones(3, 4, dtype=torch.bool)
    prompts = [PROMPTS[1]] * 3
    even = receiver.prefix(prompts, SoftTokens(vectors, mask))
    alone = [receiver.prefix(prompts[:1], SoftTokens(vectors[row : row + 1], mask[:1])) for row in range(3)]
    assert torch.equal(even.embeddings, torch.cat([prefix.embeddings for prefix in alone]))
    assert even.mask.all()
    (gradient,) = torch.autograd.grad(even.embeddings.pow(2).sum(), vectors)
    assert torch.equal(gradient, 2 * vectors)

    tries = receiver.tries(prompts, [OPTIONS] * 3)
    together = receiver.tree_inputs(even, tries)
    for row, prefix in enumerate(alone):
        for found, wanted in zip(together, receiver.tree_inputs(prefix, tries[:1]), strict=True):
            assert torch.equal(found[row : row + 1], wanted)
    # a longer row beside them makes all of them padded: the bias is built row by row, the scores stay
    padded = receiver.prefix(
        [*prompts, Prompt("A note of some more words:", prompts[0].after)],
        SoftTokens(torch.cat([vectors, vectors[:1]]), torch.ones(4, 4, dtype=torch.bool)),
    )
    with torch.no_grad():
        scores = receiver.score_options(even, tries)
        others = receiver.score_options(padded, receiver.tries([*prompts, prompts[0]], [OPTIONS] * 4))
    for own, other in zip(scores, others[:3], strict=True):
        torch.testing.assert_close(own, other, atol=1e-4, rtol=0)


def test_messages_made_in_groups_are_those_of_the_whole_batch() -> None:
    """Apart from rounding: a pass over fewer or shorter rows may add in another order."""
    sender = load_sender("nano-llama", layer=2, device="cpu")
    texts = [TEXTS[0], " ".join(TEXTS * 4)] * 9
    for name in ("perceiver", "pooled"):
        ends = BridgeEnds(sender_width=sender.width, receiver_width=160, receiver_rms=0.1)
        torch.manual_seed(0)
        bridge = bridge_config({"name": name}).build(ends).eval()
        with torch.no_grad():
            grouped, whole = soft_tokens_of(sender, bridge, texts), bridge(sender.read(texts))
        assert torch.equal(grouped.mask, whole.mask)
        torch.testing.assert_close(grouped.vectors, whole.vectors, atol=1e-5, rtol=1e-4)


def test_ids_alone_are_those_of_the_whole_encoding() -> None:
    for name in ("nano-llama", "nano-mistral"):
        sender = load_sender(name, layer=0, device="cpu")
        texts = [*TEXTS, " two  spaces\n", "é ü 漢字 <s> </s>", "12,345.6"]
        encoded, _ = sender.prompter.context_ids(texts)
        assert encoded == [list(ids) for ids in sender.tokenizer(texts)["input_ids"]]
