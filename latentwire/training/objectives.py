"""What the bridge is taught: a weighted sum of terms, all through the frozen receiver and in nats.

``answer``     cross-entropy of the answer, or of the right option among all
``note``       the receiver writes the sender's note from the soft tokens; ``text``: the sender's whole text
``kl``         divergence of the answer's distribution from that of the same receiver reading the text (Hinton et al. 2015)
``contrast``   the answer likelier with the row's own message than with another's (van den Oord et al. 2018, one negative)
``diversity``  squared cosine between the messages of different rows

``align`` (``alignment.py``) needs no receiver pass. Shapes: B rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from latentwire.config import TrainingSettings
from latentwire.data.task import Example
from latentwire.errors import DataError
from latentwire.models.receiver import Receiver
from latentwire.models.soft_tokens import SoftTokens
from latentwire.models.trie import build_branches
from latentwire.prompts import Prompt

#: above this many trie nodes only the gold and some sampled options are scored in training
MOST_TRIE_NODES = 64
#: what the receiver is asked when it writes from the soft tokens
WRITING_CUES = {"note": "\nNote:", "text": "\nRepeat:"}


def task_loss(
    receiver: Receiver,
    examples: Sequence[Example],
    prompts: Sequence[Prompt],
    soft: SoftTokens | None,
    *,
    rng: Random,
    settings: TrainingSettings,
) -> Float[Tensor, ""]:
    """Mean over the rows of ``task_losses``."""
    return task_losses(receiver, examples, prompts, soft, rng=rng, settings=settings).mean()


def task_losses(
    receiver: Receiver,
    examples: Sequence[Example],
    prompts: Sequence[Prompt],
    soft: SoftTokens | None,
    *,
    rng: Random,
    settings: TrainingSettings,
) -> Float[Tensor, " B"]:
    """Option cross-entropy where there are options, mean token cross-entropy where the answer is free; rows with options first.

    ``soft`` stands in the holes of the ``prompts``. With ``option_objective: answer`` options are taught like free answers,
    which costs one short answer instead of a whole trie.
    """
    losses: list[Tensor] = []
    scored = [is_scored_by_options(example, settings) for example in examples]
    with_options = [index for index, is_scored in enumerate(scored) if is_scored]
    free = [index for index, is_scored in enumerate(scored) if not is_scored]
    if with_options:
        losses.append(_option_losses(receiver, examples, prompts, soft, with_options, rng, settings.sampled_options))
    if free:
        answers = [examples[index].answer for index in free]
        losses.append(written_losses(receiver, [prompts[index] for index in free], answers, rows_of(soft, free)))
    return torch.cat(losses)


def is_scored_by_options(example: Example, settings: TrainingSettings) -> bool:
    """Whether a row is taught by cross-entropy among its options."""
    return bool(example.options) and settings.option_objective == "options"


def asked_losses(receiver: Receiver, bundles: Sequence[Sequence[Example]], soft: SoftTokens) -> Float[Tensor, " B"]:
    """Mean token cross-entropy of the answers to all questions of each bundle, asked about one message in one pass.

    The questions do not see each other: every answer costs what it would alone. ``soft`` has one message per bundle.
    """
    prompter = receiver.prompter
    trees = [
        build_branches(
            [(prompter.prefix_ids(row.receiver_prompt)[1], receiver.answer_ids(row.receiver_prompt, row.answer)) for row in bundle]
        )
        for bundle in bundles
    ]
    prefix = receiver.prefix([bundle[0].receiver_prompt for bundle in bundles], soft, open_end=True)
    found = receiver.branch_log_probs(prefix, trees)
    return torch.stack([torch.stack([-branch.mean() for branch in row]).mean() for row in found])


def rows_of(soft: SoftTokens | None, rows: Sequence[int]) -> SoftTokens | None:
    """The messages of some rows of a batch."""
    return None if soft is None else soft[torch.tensor(rows)]


def check_notes(settings: TrainingSettings, examples: Sequence[Example]) -> None:
    """Raises ``DataError`` where a row has no note and something that is to be taught needs it; cheaper now than after hours."""
    without = next((example.task for example in examples if example.note is None), None)
    if without is None:
        return
    if settings.first_stage.objective == "note" or settings.terms.note:
        raise _no_notes(without)
    if settings.aligns and settings.align_to != "text":
        raise DataError(f"task {without!r} has no notes, so training.align_to={settings.align_to} does not fit; use align_to=text")


def _no_notes(task: str) -> DataError:
    return DataError(
        f"task {task!r} has no notes, so the objective 'note' does not fit; "
        "use 'text' (training.first_stage.objective=text, training.terms.text)"
    )


def writing_loss(receiver: Receiver, examples: Sequence[Example], soft: SoftTokens, objective: str) -> Float[Tensor, ""]:
    """Mean token cross-entropy of the note (``note``) or of the sender's whole text (``text``).

    Raises:
        DataError: ``note`` is asked for and a row has none.
    """
    targets = []
    for example in examples:
        target = example.note if objective == "note" else example.sender_prompt
        if target is None:
            raise _no_notes(example.task)
        targets.append(target)
    prompts = [Prompt(example.receiver_prompt.before, WRITING_CUES[objective]) for example in examples]
    return written_losses(receiver, prompts, targets, soft).mean()


def written_losses(
    receiver: Receiver, prompts: Sequence[Prompt], answers: Sequence[str], soft: SoftTokens | None
) -> Float[Tensor, " B"]:
    """Mean cross-entropy per token of each answer, its end token included."""
    ids = [receiver.answer_ids(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    log_probs, mask = receiver.answer_log_probs(receiver.prefix(prompts, soft), ids)
    return -log_probs.sum(dim=1) / mask.sum(dim=1)


def kl_term(receiver: Receiver, examples: Sequence[Example], prompts: Sequence[Prompt], soft: SoftTokens) -> Float[Tensor, ""]:
    """Mean over answer tokens of KL(receiver reading the text ‖ receiver reading the message)."""
    answers = [receiver.answer_ids(prompt, row.answer) for prompt, row in zip(prompts, examples, strict=True)]
    with torch.no_grad():
        wanted, _, mask = receiver.answer_logits(receiver.prefix([row.receiver_prompt_aware for row in examples]), answers)
    found, _, _ = receiver.answer_logits(receiver.prefix(prompts, soft), answers)
    divergence = F.kl_div(found.log_softmax(-1), wanted.log_softmax(-1), reduction="none", log_target=True).sum(-1)
    return (divergence * mask).sum() / mask.sum()


def contrast_term(own: Float[Tensor, " B"], others: Float[Tensor, " B"]) -> Float[Tensor, ""]:
    """Mean of -log σ(loss with another row's message - loss with the own one)."""
    return F.softplus(own - others).mean()


def _option_losses(
    receiver: Receiver,
    examples: Sequence[Example],
    all_prompts: Sequence[Prompt],
    soft: SoftTokens | None,
    rows: list[int],
    rng: Random,
    sampled_options: int,
) -> Float[Tensor, " B"]:
    prompts = [all_prompts[index] for index in rows]
    options = [examples[index].options for index in rows]
    labels = [examples[index].label or 0 for index in rows]
    tries = receiver.tries(prompts, options)
    if max(len(trie.tokens) for trie in tries) > MOST_TRIE_NODES:
        kept = [_gold_and_sampled(len(row), label, rng, sampled_options) for row, label in zip(options, labels, strict=True)]
        options = [tuple(row[index] for index in indexes) for row, indexes in zip(options, kept, strict=True)]
        labels = [0] * len(rows)
        tries = receiver.tries(prompts, options)
    scores = receiver.score_options(receiver.prefix(prompts, rows_of(soft, rows)), tries)
    targets = torch.tensor(labels, device=scores[0].device).split(1)
    return torch.stack([F.cross_entropy(score[None], target) for score, target in zip(scores, targets, strict=True)])


def _gold_and_sampled(count: int, label: int, rng: Random, wanted: int) -> list[int]:
    """The gold option first, then ``wanted - 1`` others."""
    others = [index for index in range(count) if index != label]
    return [label, *rng.sample(others, min(wanted - 1, len(others)))]


def diversity_term(soft: SoftTokens) -> Float[Tensor, ""]:
    """Mean squared cosine between the mean messages of different rows: 0 when they are orthogonal, 1 when all are equal."""
    if len(soft.vectors) < 2:
        return soft.vectors.new_zeros(())
    mean = soft.vectors.sum(dim=1) / soft.mask.sum(dim=1, keepdim=True).clamp(min=1)
    unit = F.normalize(mean, dim=-1)
    cosines = unit @ unit.T
    off_diagonal = ~torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    return cosines[off_diagonal].pow(2).mean()


@torch.no_grad()
def effective_rank(soft: SoftTokens) -> float:
    """Exponential of the entropy of the normalised singular values of all soft tokens of a batch (Roy & Vetterli 2007)."""
    # Metal has no singular values
    vectors = soft.vectors[soft.mask].float().cpu()
    values = torch.linalg.svdvals(vectors - vectors.mean(dim=0))
    shares = values / values.sum().clamp(min=1e-12)
    return float(torch.exp(-(shares * shares.clamp(min=1e-12).log()).sum()))


@torch.no_grad()
def rms_ratio(soft: SoftTokens, receiver_rms: float) -> float:
    """Root mean square of the soft tokens over that of the receiver's embedding table."""
    return float(soft.vectors[soft.mask].float().pow(2).mean().sqrt() / receiver_rms)
