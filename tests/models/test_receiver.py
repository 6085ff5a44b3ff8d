from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from latentwire.errors import DataError, MismatchError
from latentwire.models.receiver import Receiver, load_receiver
from latentwire.models.soft_tokens import Prefix, SoftTokens
from latentwire.prompts import Prompt
from tests.conftest import FAMILIES, WIDTH

ASK = Prompt("Read this.", "\nQuestion: What does the customer want?\nAnswer:")
PROMPTS = [ASK, Prompt("", "\nAnswer:"), Prompt("Request:", "\nQuestion: Which of these three is it, please?\nAnswer:")]
#: several tokens, a beginning of another option, one token each, another number of options in every row
OPTIONS = [
    ("lost card", "lost card abroad", "card arrival", "change pin"),
    ("1", "2", "3"),
    ("science", "a", "a b c d e f g", "reverted card payment?", "top up"),
]


@cache
def receiver_of(folder: str) -> Receiver:
    return load_receiver(folder)


@cache
def sharpened(folder: str) -> Receiver:
    """Random weights predict nearly flat; a larger head makes options and greedy choices differ clearly."""
    receiver = load_receiver(folder)
    head = receiver.model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight * 20, requires_grad=False)
    return receiver


def ragged(receiver: Receiver, lengths: tuple[int, ...] = (4, 1, 0)) -> SoftTokens:
    generator = torch.Generator().manual_seed(3)
    vectors = torch.randn(len(lengths), max(lengths), receiver.width, generator=generator) * receiver.embedding_rms
    return SoftTokens(vectors, torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None])


def alone(receiver: Receiver, soft: SoftTokens | None, row: int) -> Prefix:
    if soft is None:
        return receiver.prefix([PROMPTS[row]])
    kept = SoftTokens(soft.vectors[row][soft.mask[row]][None], soft.mask[row][soft.mask[row]][None])
    return receiver.prefix([PROMPTS[row]], kept)


def one_by_one(receiver: Receiver, prefix: Prefix, prompt: Prompt, options: tuple[str, ...]) -> Tensor:
    """The log-likelihood of each option by its own pass; closed where one is the beginning of another."""
    closed = any(a != b and b.startswith(f"{a} ") for a in options for b in options)
    answers = [receiver.answer_ids(prompt, option, end=closed) for option in options]
    return torch.stack([receiver.answer_log_probs(prefix, [answer])[0].sum() for answer in answers])


@pytest.mark.parametrize("with_soft_tokens", [False, True], ids=["text only", "soft tokens"])
@pytest.mark.parametrize("family", [*FAMILIES, "nano-llama", "nano-mistral"])
def test_all_options_in_one_pass_score_as_each_alone(family_folder: dict[str, str], family: str, with_soft_tokens: bool) -> None:
    receiver = sharpened(family_folder[family]) if family in family_folder else receiver_of(family)
    soft = ragged(receiver) if with_soft_tokens else None
    together = receiver.score_options(receiver.prefix(PROMPTS, soft), receiver.tries(PROMPTS, OPTIONS))
    for row, scores in enumerate(together):
        expected = one_by_one(receiver, alone(receiver, soft, row), PROMPTS[row], OPTIONS[row])
        assert expected.std() > 0.01
        torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("family", [*FAMILIES, "nano-mistral"])
def test_contenders_have_their_exact_scores_and_the_others_a_bound_below_the_best(
    family_folder: dict[str, str], family: str
) -> None:
    receiver = sharpened(family_folder[family]) if family in family_folder else receiver_of(family)
    prefix, tries = receiver.prefix(PROMPTS, ragged(receiver)), receiver.tries(PROMPTS, OPTIONS)
    pairs = zip(receiver.score_options(prefix, tries), receiver.score_contenders(prefix, tries), strict=True)
    for exact, found in pairs:
        assert exact.argmax() == found.argmax()
        torch.testing.assert_close(found.max(), exact.max(), atol=1e-4, rtol=1e-5)
        assert (found > exact - 1e-4).all()
        bounded = found > exact + 1e-4
        assert (found[bounded] < exact.max()).all()


@pytest.mark.parametrize("family", [*FAMILIES, "nano-mistral"])
def test_the_preferred_option_is_the_one_with_the_best_score(family_folder: dict[str, str], family: str) -> None:
    receiver = sharpened(family_folder[family]) if family in family_folder else receiver_of(family)
    prefix, tries = receiver.prefix(PROMPTS, ragged(receiver)), receiver.tries(PROMPTS, OPTIONS)
    best = [int(scores.argmax()) for scores in receiver.score_options(prefix, tries)]
    assert receiver.prefers(prefix, tries, best) == [True] * 3
    for shift in (1, 2):
        others = [(label + shift) % len(options) for label, options in zip(best, OPTIONS, strict=True)]
        assert receiver.prefers(prefix, tries, others) == [False] * 3


def test_rows_of_single_tokens_are_scored_without_any_node(family_folder: dict[str, str]) -> None:
    receiver = sharpened(family_folder["llama"])
    prompts, options = PROMPTS[:2], [("1", "2"), ("a", "b", "c")]
    tries = receiver.tries(prompts, options)
    assert not any(trie.tokens for trie in tries)
    for row, scores in enumerate(receiver.score_options(receiver.prefix(prompts), tries)):
        expected = one_by_one(receiver, alone(receiver, None, row), prompts[row], options[row])
        torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-5)


def test_scores_pass_a_gradient_to_the_soft_tokens_and_to_nothing_else(family_folder: dict[str, str]) -> None:
    receiver = sharpened(family_folder["mistral"])
    soft = ragged(receiver, (4, 2, 3))
    soft.vectors.requires_grad_()
    scores = receiver.score_options(receiver.prefix(PROMPTS, soft), receiver.tries(PROMPTS, OPTIONS))
    torch.stack([row.log_softmax(0)[0] for row in scores]).sum().backward()
    assert soft.vectors.grad is not None
    assert torch.equal(soft.vectors.grad.abs().sum(-1) > 0, soft.mask)
    assert not any(parameter.requires_grad for parameter in receiver.model.parameters())


@pytest.mark.parametrize("with_soft_tokens", [False, True], ids=["text only", "soft tokens"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_is_answered_the_same_alone_and_in_a_batch(
    family_folder: dict[str, str], family: str, with_soft_tokens: bool
) -> None:
    receiver = sharpened(family_folder[family])
    soft = ragged(receiver) if with_soft_tokens else None
    together = receiver.generate_ids(receiver.prefix(PROMPTS, soft), max_new_tokens=12)
    assert together == [receiver.generate_ids(alone(receiver, soft, row), max_new_tokens=12)[0] for row in range(3)]
    assert len({tuple(row) for row in together}) > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_teacher_forcing_knows_what_greedy_decoding_gives(family_folder: dict[str, str], family: str) -> None:
    receiver = sharpened(family_folder[family])
    prefix = receiver.prefix(PROMPTS, ragged(receiver))
    greedy = receiver.generate_ids(prefix, max_new_tokens=6)
    assert all(greedy)
    assert receiver.predicted_exactly(prefix, greedy).tolist() == [True] * 3
    for row, ids in enumerate(greedy):
        wrong = [*greedy[:row], [*ids[:-1], (ids[-1] + 1) % 100 + 3], *greedy[row + 1 :]]
        assert receiver.predicted_exactly(prefix, wrong).tolist() == [other != row for other in range(3)]


def test_generation_stops_at_the_end_token_and_leaves_it_out(family_folder: dict[str, str]) -> None:
    receiver = load_receiver(family_folder["llama"])
    free = receiver.generate_ids(receiver.prefix(PROMPTS), max_new_tokens=8)
    receiver.end_ids = {free[0][3]}
    stopped = receiver.generate_ids(receiver.prefix(PROMPTS), max_new_tokens=8)
    assert stopped[0] == free[0][: free[0].index(free[0][3])]
    assert all(row == free[number][: len(row)] for number, row in enumerate(stopped))


def test_no_more_tokens_than_asked_for(family_folder: dict[str, str]) -> None:
    receiver = sharpened(family_folder["qwen2"])
    assert [len(row) for row in receiver.generate_ids(receiver.prefix(PROMPTS[:1]), max_new_tokens=1)] == [1]


def test_answer_is_written_as_plain_text(family_folder: dict[str, str]) -> None:
    receiver = sharpened(family_folder["qwen2"])
    prefix = receiver.prefix(PROMPTS[:1])
    ids = receiver.generate_ids(prefix, max_new_tokens=4)[0]
    assert receiver.generate(prefix, max_new_tokens=4) == [receiver.tokenizer.decode(ids, skip_special_tokens=True).strip()]


def test_soft_tokens_stand_between_before_and_after(family_folder: dict[str, str]) -> None:
    receiver = receiver_of(family_folder["llama"])
    soft = ragged(receiver, (2,))
    prefix = receiver.prefix([ASK], soft)
    text = receiver.prefix([ASK])
    at = int(text.mask.sum()) - len(receiver.tokenizer(ASK.after, add_special_tokens=False)["input_ids"])
    assert torch.equal(prefix.embeddings[0, at : at + 2], soft.vectors[0])
    assert torch.equal(torch.cat([prefix.embeddings[0, :at], prefix.embeddings[0, at + 2 :]]), text.embeddings[0])
    assert receiver.count_tokens(ASK) == text.mask.sum()


def test_prefixes_are_padded_on_the_left(family_folder: dict[str, str]) -> None:
    prefix = receiver_of(family_folder["llama"]).prefix(PROMPTS)
    assert prefix.mask[:, -1].all()
    assert not prefix.mask[1, 0]
    assert torch.equal(prefix.mask, prefix.mask.cummax(dim=1).values)


def test_soft_tokens_of_another_width_are_refused_with_both_widths(family_folder: dict[str, str]) -> None:
    receiver = receiver_of(family_folder["llama"])
    soft = SoftTokens(torch.zeros(1, 2, 48), torch.ones(1, 2, dtype=torch.bool))
    with pytest.raises(MismatchError, match=rf"^soft tokens of width 48 cannot enter .* \(width {WIDTH}\); use .*$"):
        receiver.prefix([ASK], soft)


@pytest.mark.parametrize("prompt", [ASK, Prompt("lamps " * 300, "\nAnswer:")], ids=["soft tokens", "text"])
def test_too_long_prefix_is_refused_with_both_lengths(family_folder: dict[str, str], prompt: Prompt) -> None:
    receiver = receiver_of(family_folder["llama"])
    soft = SoftTokens(torch.zeros(2, 250, WIDTH), torch.tensor([[False] * 250, [prompt is ASK] * 250]))
    with pytest.raises(DataError, match=r"^row 1 gives the receiver \d+ tokens, .* reads at most 256; shorten .*$"):
        receiver.prefix([PROMPTS[1], prompt], soft)


@pytest.mark.parametrize("family", FAMILIES)
def test_embedding_rms_is_the_scale_the_model_reads(family_folder: dict[str, str], family: str) -> None:
    receiver = receiver_of(family_folder[family])
    read = receiver.model.get_input_embeddings()(torch.arange(receiver.source.config.vocab_size))
    assert receiver.embedding_rms == pytest.approx(read.pow(2).mean().sqrt().item(), rel=1e-5)


def test_message_size_counts_only_real_soft_tokens() -> None:
    soft = SoftTokens(torch.zeros(2, 3, WIDTH), torch.tensor([[True, True, True], [True, False, False]]))
    assert soft.tokens_per_row.tolist() == [3, 1]
    assert soft.bytes_per_row(torch.bfloat16).tolist() == [3 * WIDTH * 2, WIDTH * 2]


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_in_a_receiver_takes_a_gradient(family_folder: dict[str, str], family: str) -> None:
    model = receiver_of(family_folder[family]).model
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(part.training for part in model.modules())


@pytest.mark.parametrize("with_soft_tokens", [False, True], ids=["text only", "soft tokens"])
@pytest.mark.parametrize("family", [*FAMILIES, "nano-mistral"])
def test_rows_that_have_ended_are_computed_no_further(
    family_folder: dict[str, str], family: str, with_soft_tokens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = sharpened(family_folder.get(family, family))
    soft = ragged(receiver, (4, 1, 0, 3, 2)) if with_soft_tokens else None
    prompts = [
        Prompt("Anna keeps", f"\nQuestion: what {word}?\nAnswer:")
        for word in ("is it", "colour", "else", "about Tom", "do boats need")
    ]
    prefix = receiver.prefix(prompts, soft)
    monkeypatch.setattr(receiver, "end_ids", set())
    whole = receiver.generate_ids(prefix, max_new_tokens=8)
    # the third token of the first row ends an answer, wherever it comes
    end = whole[0][2]
    wanted = [row[: row.index(end)] if end in row else row for row in whole]
    sizes: list[int] = []
    forward = receiver.model.forward

    def counted(*args: object, **settings: Tensor) -> object:
        sizes.append(len(settings["position_ids"]))
        return forward(*args, **settings)

    monkeypatch.setattr(receiver, "end_ids", {end})
    monkeypatch.setattr(receiver.model, "forward", counted)
    assert receiver.generate_ids(prefix, max_new_tokens=8) == wanted
    left = [sum(len(row) > step for row in wanted) for step in range(8)]
    for size, needed in zip(sizes[1:], left, strict=False):
        # fewer than half of what is computed is never still computed for nothing
        assert needed <= size < 2 * needed or size == needed
