"""What the bridge is taught: the answer, one option among several, or (first stage) to make the receiver write the text.

All objectives run through the frozen receiver and are in nats. Shapes: B rows.
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
from latentwire.models.receiver import Receiver, SoftTokens
from latentwire.prompts import Prompt

#: above this many trie nodes only the gold and some sampled options are scored in training
MOST_TRIE_NODES = 64
#: what the receiver is asked in the first stage
FIRST_STAGE_CUES = {"note": "\nNote:", "text": "\nRepeat:"}


def task_loss(
    receiver: Receiver,
    examples: Sequence[Example],
    prompts: Sequence[Prompt],
    soft: SoftTokens | None,
    *,
    rng: Random,
    settings: TrainingSettings,
) -> Float[Tensor, ""]:
    """Mean over the rows: option cross-entropy where there are options, mean token cross-entropy where the answer is free.

    ``soft`` stands in the holes of the ``prompts``. With ``option_objective: answer`` options are taught like free answers,
    which costs one short answer instead of a whole trie.
    """
    losses: list[Tensor] = []
    scored = [example.options and settings.option_objective == "options" for example in examples]
    with_options = [index for index, is_scored in enumerate(scored) if is_scored]
    free = [index for index, is_scored in enumerate(scored) if not is_scored]
    if with_options:
        losses.append(_option_losses(receiver, examples, prompts, soft, with_options, rng, settings.sampled_options))
    if free:
        answers = [examples[index].answer for index in free]
        losses.append(written_losses(receiver, [prompts[index] for index in free], answers, rows_of(soft, free)))
    return torch.cat(losses).mean()


def rows_of(soft: SoftTokens | None, rows: Sequence[int]) -> SoftTokens | None:
    """The messages of some rows of a batch."""
    return None if soft is None else soft[torch.tensor(rows)]


def first_stage_loss(receiver: Receiver, examples: Sequence[Example], soft: SoftTokens, objective: str) -> Float[Tensor, ""]:
    """Mean token cross-entropy of the note (``note``) or of the sender's whole text (``text``).

    Raises:
        DataError: ``note`` is asked for and a row has none.
    """
    targets = []
    for example in examples:
        target = example.note if objective == "note" else example.sender_prompt
        if target is None:
            raise DataError(
                f"task {example.task!r} has no notes, so training.first_stage.objective=note does not fit; "
                "use training.first_stage.objective=text"
            )
        targets.append(target)
    prompts = [Prompt(example.receiver_prompt.before, FIRST_STAGE_CUES[objective]) for example in examples]
    return written_losses(receiver, prompts, targets, soft).mean()


def written_losses(
    receiver: Receiver, prompts: Sequence[Prompt], answers: Sequence[str], soft: SoftTokens | None
) -> Float[Tensor, " B"]:
    """Mean cross-entropy per token of each answer, its end token included."""
    ids = [receiver.answer_ids(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    log_probs, mask = receiver.answer_log_probs(receiver.prefix(prompts, soft), ids)
    return -log_probs.sum(dim=1) / mask.sum(dim=1)


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
    return torch.stack(
        [
            F.cross_entropy(score[None], torch.tensor([label], device=score.device))
            for score, label in zip(scores, labels, strict=True)
        ]
    )


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
    vectors = soft.vectors[soft.mask].float()
    values = torch.linalg.svdvals(vectors - vectors.mean(dim=0))
    shares = values / values.sum().clamp(min=1e-12)
    return float(torch.exp(-(shares * shares.clamp(min=1e-12).log()).sum()))


@torch.no_grad()
def rms_ratio(soft: SoftTokens, receiver_rms: float) -> float:
    """Root mean square of the soft tokens over that of the receiver's embedding table."""
    return float(soft.vectors[soft.mask].float().pow(2).mean().sqrt() / receiver_rms)
