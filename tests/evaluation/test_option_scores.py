"""The trie scorer gives what scoring each option alone gives, on every task that has options."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from latentwire.data.task import load_task, task_names
from latentwire.models.batching import PART_TOKENS
from latentwire.models.receiver import Receiver
from latentwire.models.scoring import LOGITS_PER_TOKEN
from latentwire.models.soft_tokens import Prefix
from latentwire.models.trie import build_trie
from latentwire.prompts import Prompt
from tests.data.test_prompts import three_examples

TASKS = [name for name in task_names() if load_task(name).has_options]


def one_by_one(receiver: Receiver, prompt: Prompt, options: tuple[str, ...]) -> list[float]:
    ids = [receiver.answer_ids(prompt, option, end=False) for option in options]
    if any(a != b and b[: len(a)] == a for a in ids for b in ids):  # one begins another: all are closed
        ids = [[*own, receiver.end_id] for own in ids]
    with torch.no_grad():
        return [float(receiver.answer_log_probs(receiver.prefix([prompt]), [own])[0].sum()) for own in ids]


@pytest.mark.parametrize("name", TASKS)
def test_scores_equal_those_of_each_option_alone(name: str, receiver: Receiver, tmp_path: Path) -> None:
    for example in three_examples(load_task(name), tmp_path):
        asked = [(example.receiver_prompt, example.options), (example.receiver_prompt_aware, example.options)]
        if example.receiver_prompt_options is not None:
            asked.append((example.receiver_prompt_options, example.option_texts))
        for prompt, options in asked:
            with torch.no_grad():
                [scores] = receiver.score_options(receiver.prefix([prompt]), receiver.tries([prompt], [options]))
            assert scores.tolist() == pytest.approx(one_by_one(receiver, prompt, options), abs=1e-4)


def test_the_77_intents_too(receiver: Receiver, data_dir: Path) -> None:
    from latentwire.data.readers import read_task

    [example] = read_task(load_task("banking77"), "test", data_dir=data_dir, max_rows=1).examples
    prompt = example.receiver_prompt
    with torch.no_grad():
        [scores] = receiver.score_options(receiver.prefix([prompt]), receiver.tries([prompt], [example.options]))
    assert len(example.options) == 77
    assert scores.tolist() == pytest.approx(one_by_one(receiver, prompt, example.options), abs=1e-4)


def test_large_tries_are_read_in_pieces_to_the_same_scores_and_gradients(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = tuple(
        f"{colour} {item} number {count}" for colour in ("red", "blue") for item in ("lamps", "boats") for count in range(20)
    )
    prompts = [Prompt("", "\nWhat?\nAnswer:"), Prompt("A longer prompt than the other.", "\nWhat?\nAnswer:")]
    found = []
    for pair_cost in (0.0, 1.0):
        monkeypatch.setattr(receiver, "pair_cost", pair_cost)
        tries = [
            build_trie([receiver.answer_ids(prompt, option, end=False) for option in many], receiver.end_id) for prompt in prompts
        ]
        tries.append(build_trie([receiver.answer_ids(prompts[0], "yes", end=False)], receiver.end_id))
        prefix = receiver.prefix([*prompts, prompts[0]])
        assert [receiver._pieces(prefix, len(trie.tokens)) > 1 for trie in tries] == [pair_cost > 0, pair_cost > 0, False]
        embeddings = prefix.embeddings.detach().requires_grad_()
        scores = receiver.score_options(Prefix(embeddings, prefix.mask), tries)
        (gradient,) = torch.autograd.grad(torch.cat(scores).sum(), embeddings)
        found.append((scores, gradient))
    (whole, whole_gradient), (pieces, pieces_gradient) = found
    for one, other in zip(whole, pieces, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
    torch.testing.assert_close(whole_gradient, pieces_gradient, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("read", "nodes"), [(20, 400), (5, 700), (60, 900)])
def test_a_trie_is_cut_into_as_many_pieces_as_cost_least(receiver: Receiver, read: int, nodes: int) -> None:
    def cost(pieces: int) -> float:
        positions = read + nodes / pieces
        return pieces * positions * (1 + receiver.pair_cost * positions)

    prefix = Prefix(torch.zeros(1, read, receiver.width), torch.ones(1, read, dtype=torch.bool))
    chosen = receiver._pieces(prefix, nodes)
    assert chosen > 1
    # one more or less where both cost about the same
    assert cost(chosen) <= 1.01 * min(cost(pieces) for pieces in range(1, 40))
    # a long prefix is not read several times
    long = Prefix(torch.zeros(1, 2000, receiver.width), torch.ones(1, 2000, dtype=torch.bool))
    assert receiver._pieces(long, nodes) == 1


def test_options_of_one_token_need_no_more_than_the_prefix(receiver: Receiver) -> None:
    prompts = [Prompt("", "\nWhat?\nAnswer:"), Prompt("A longer prompt than the other.", "\nWhat?\nAnswer:")]
    tries = [build_trie([[5], [9], [700]], None)] * 2
    together = receiver.prefix(prompts)
    assert receiver.tree_inputs(together, tries)[0] is together.embeddings
    for row, scores in enumerate(receiver.score_options(together, tries)):
        prefix = receiver.prefix(prompts[row : row + 1])
        assert receiver.tree_inputs(prefix, tries[:1])[1] is None
        logits = receiver.model(inputs_embeds=prefix.embeddings).logits[0, -1].log_softmax(-1)
        torch.testing.assert_close(scores, logits[[5, 9, 700]], atol=1e-4, rtol=0)


def test_logits_of_a_large_vocabulary_count_where_rows_are_read_together(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [Prompt("", "\nWhat?\nAnswer:")] * 6
    tries = [build_trie([[5, 7], [9, 7], [70, 7]], None)] * 6
    rows: list[int] = []
    known = receiver.tree_logits
    monkeypatch.setattr(receiver, "tree_logits", lambda prefix, asked: rows.append(len(asked)) or known(prefix, asked))
    together = receiver.score_options(receiver.prefix(prompts), tries)
    assert rows == [6]
    # four nodes of so many logits weigh as much as half of what a CPU reads at once
    monkeypatch.setattr(receiver, "vocabulary", PART_TOKENS["cpu"] // 8 * LOGITS_PER_TOKEN)
    apart = receiver.score_options(receiver.prefix(prompts), tries)
    assert rows == [6, 2, 2, 2]
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
