from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
import torch

from latentwire.config import TrainingSettings
from latentwire.data.readers import read_task
from latentwire.data.task import Example, load_task
from latentwire.models.receiver import Receiver
from latentwire.models.soft_tokens import SoftTokens
from latentwire.prompts import Prompt
from latentwire.training import objectives


def questions(rows: Sequence[Example]) -> list[Prompt]:
    return [row.receiver_prompt for row in rows]


def messages(receiver: Receiver, rows: int, tokens: int = 3) -> SoftTokens:
    torch.manual_seed(0)
    return SoftTokens(torch.randn(rows, tokens, receiver.width) * 0.1, torch.ones(rows, tokens, dtype=torch.bool))


def test_option_loss_is_the_cross_entropy_of_scores_taken_one_by_one(receiver: Receiver) -> None:
    rows = read_task(load_task("tinyworld_intent"), "train", max_rows=3).examples
    soft = messages(receiver, 3)
    loss = objectives.task_loss(receiver, rows, questions(rows), soft, rng=Random(0), settings=TrainingSettings())
    expected = []
    for index, row in enumerate(rows):
        scores = []
        for option in row.options:
            ids = receiver.answer_ids(row.receiver_prompt, option, end=False)
            log_probs, _ = receiver.answer_log_probs(receiver.prefix([row.receiver_prompt], soft[index : index + 1]), [ids])
            scores.append(log_probs.sum())
        expected.append(torch.nn.functional.cross_entropy(torch.stack(scores)[None], torch.tensor([row.label])))
    torch.testing.assert_close(loss, torch.stack(expected).mean(), atol=1e-4, rtol=1e-4)


def test_options_can_be_taught_like_free_answers(receiver: Receiver) -> None:
    rows = read_task(load_task("tinyworld_intent"), "train", max_rows=3).examples
    soft = messages(receiver, 3)
    settings = TrainingSettings(option_objective="answer")
    loss = objectives.task_loss(receiver, rows, questions(rows), soft, rng=Random(0), settings=settings)
    written = objectives.written_losses(receiver, questions(rows), [row.options[row.label or 0] for row in rows], soft)
    torch.testing.assert_close(loss, written.mean())
    scored = objectives.task_loss(receiver, rows, questions(rows), soft, rng=Random(0), settings=TrainingSettings())
    assert abs(float(loss - scored)) > 0.01


def test_questions_about_one_message_cost_what_they_would_alone(receiver: Receiver) -> None:
    first, second, third, fourth = read_task(load_task("tinyworld_record2"), "train", max_rows=4).examples
    bundles, soft = [(first, second), (third,), (fourth, first, third)], messages(receiver, 3)
    together = objectives.asked_losses(receiver, bundles, soft)
    alone = []
    for index, bundle in enumerate(bundles):
        losses = [
            objectives.written_losses(receiver, [row.receiver_prompt], [row.answer], soft[index : index + 1]) for row in bundle
        ]
        alone.append(torch.cat(losses).mean())
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-4, rtol=1e-4)


def test_the_divergence_vanishes_where_the_message_is_the_text(receiver: Receiver) -> None:
    row = read_task(load_task("tinyworld_record1"), "train", max_rows=1).examples[0]
    before, _ = receiver.prompter.prefix_ids(row.receiver_prompt_aware)
    text = receiver.embed(torch.tensor(before[1:]))[None].detach()  # the begin-of-text token is the prompt's own
    as_soft = SoftTokens(text, torch.ones(text.shape[:2], dtype=torch.bool))
    assert float(objectives.kl_term(receiver, [row], [row.receiver_prompt], as_soft)) < 1e-4
    assert float(objectives.kl_term(receiver, [row], [row.receiver_prompt], messages(receiver, 1))) > 0.1


def test_contrast_is_small_where_only_the_own_message_explains_the_answer() -> None:
    low, high = torch.tensor([0.1, 0.2]), torch.tensor([5.0, 6.0])
    assert float(objectives.contrast_term(low, high)) < 0.02 < 4 < float(objectives.contrast_term(high, low))


def test_free_and_optional_answers_mix_in_one_batch(receiver: Receiver) -> None:
    free = read_task(load_task("tinyworld_record1"), "train", max_rows=2).examples
    optional = read_task(load_task("tinyworld_topic"), "train", max_rows=2).examples
    soft = messages(receiver, 4)
    rows = [free[0], optional[0], free[1], optional[1]]
    mixed = objectives.task_loss(receiver, rows, questions(rows), soft, rng=Random(0), settings=TrainingSettings())
    apart = [
        objectives.task_loss(receiver, [row], questions([row]), soft[index : index + 1], rng=Random(0), settings=TrainingSettings())
        for index, row in enumerate(rows)
    ]
    torch.testing.assert_close(mixed, torch.stack(apart).mean(), atol=1e-4, rtol=1e-4)


def test_large_option_sets_are_sampled_with_the_gold_one_kept() -> None:
    kept = objectives._gold_and_sampled(77, 30, Random(0), 16)
    assert kept[0] == 30
    assert len(set(kept)) == 16
    assert objectives._gold_and_sampled(3, 1, Random(0), 16)[0] == 1


def test_the_end_of_an_answer_is_taught(receiver: Receiver) -> None:
    row = read_task(load_task("tinyworld_record1"), "train", max_rows=1).examples[0]
    assert receiver.answer_ids(row.receiver_prompt, row.answer)[-1] == receiver.tokenizer.eos_token_id


def test_diversity_and_rank_tell_equal_messages_from_different_ones(receiver: Receiver) -> None:
    different = messages(receiver, 6)
    equal = SoftTokens(different.vectors[:1].expand(6, -1, -1), different.mask)
    assert objectives.diversity_term(equal).item() == pytest.approx(1.0, abs=1e-5)
    assert objectives.diversity_term(different).item() < 0.3
    assert objectives.effective_rank(equal) < objectives.effective_rank(different)
