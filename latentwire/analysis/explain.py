"""What each soft token of one message says: which words it is near, where it came from, who looks at it, what is lost without it.

- **nearest vocabulary**: cosine with the receiver's input embeddings. A vector of no meaning has neighbours too, so ``noise`` is
  the best cosine that one random direction in twenty exceeds; below it nothing is said.
- **sources**: how far the soft token moves, relative to its length, when the state of one sender token gives way to the mean of all
  states of the message (occlusion; Zeiler & Fergus 2014). Exact for what the bridge does; the states of other tokens still remember
  the hidden one. Where every R sender tokens make one soft token, its own group is named too; elsewhere gradient × state (Shrikumar
  et al. 2016) stands beside it.
- **attention**: what the receiver's answer tokens give to it, mean over heads, layers and the tokens of the predicted answer (eager
  attention; weights show where is looked, not what is used). Where a model has no such weights, the share of gradient × vector.
- **effect**: by how many nats the log-likelihoods of the gold and of the predicted answer change when this soft token is left
  out of the message, the others moving up; negative: it supported the answer.

Shapes: S sender tokens, K soft tokens, D_s / D_r sender / receiver width, V vocabulary, T answer tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentwire.analysis.message_views import (
    Neighbour,
    attention_on,
    gradient_times_state,
    messages_of,
    nearest_vocabulary,
    occluded,
    sender_tokens,
    stacked,
)
from latentwire.bridges.base import Bridge
from latentwire.config import ARTEFACT_FOLDER
from latentwire.data.budget import fit_rows
from latentwire.data.readers import read_one
from latentwire.data.task import Example, Task, load_task
from latentwire.errors import UsageError
from latentwire.evaluation.metrics import METRICS
from latentwire.evaluation.run import load_parts, saved_config
from latentwire.methods.base import Prediction
from latentwire.models.batching import parts as in_parts
from latentwire.models.receiver import Receiver
from latentwire.models.sender import Sender
from latentwire.models.soft_tokens import Prefix, SoftTokens

#: sources that are kept of each soft token
MOST_SOURCES = 3


@dataclass(frozen=True)
class SoftTokenStory:
    """All that is known of one soft token. ``sources`` are (sender token number, change 0–…), largest first.

    ``group`` is the range of sender tokens it was pooled from, where the bridge pools. Effects are in nats; ``changes_answer``
    says whether the predicted answer is another without it.
    """

    index: int
    neighbours: tuple[Neighbour, ...]
    sources: tuple[tuple[int, float], ...]
    gradient_sources: tuple[tuple[int, float], ...]
    group: tuple[int, int] | None
    attention: float
    gold_effect: float
    predicted_effect: float
    changes_answer: bool


@dataclass(frozen=True)
class Explanation:
    """One row, explained. Log-likelihoods in nats; ``attention_how`` is ``attention`` or ``gradient``.

    ``reads`` is the receiver's prompt with ⟨message⟩ in its hole, ``verbatim`` the text that rides beside the soft tokens (empty
    where none does). ``right``: as the task's first metric has it. ``sources`` [K][S] are all occlusion changes, for the figure.
    ``attention_elsewhere`` is what the answer tokens give to the prompt, and to the answer itself.
    """

    task: str
    split: str
    row: str
    bridge: str
    sender: str
    receiver: str
    sender_tokens: tuple[str, ...]
    question: str
    reads: str
    verbatim: str
    gold: str
    predicted: str
    right: bool
    gold_log_likelihood: float
    predicted_log_likelihood: float
    gold_without_message: float
    predicted_without_message: float
    gold_without_verbatim: float | None
    noise: float
    attention_how: str
    attention_on_verbatim: float
    attention_elsewhere: float
    soft_tokens: tuple[SoftTokenStory, ...]
    sources: tuple[tuple[float, ...], ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def explain_run(
    run_folder: Path,
    row: str,
    *,
    task: str | None = None,
    split: str = "test",
    data_dir: str | None = None,
    device: str | None = None,
) -> Explanation:
    """The message of one row of a trained run, explained. ``row`` is a number counted from 0, or a row's id.

    Raises:
        UsageError: no such row, or a run of several tasks and none named. ArtefactError: the folder holds no run.
    """
    config = saved_config(run_folder)
    if task is None and len(config.task) > 1:
        raise UsageError(
            f"{str(run_folder)!r} was trained on {len(config.task)} tasks; add --task with one of: {', '.join(config.task)}"
        )
    posed = load_task(task or config.task[0], config.variant)
    bridge = Bridge.from_pretrained(run_folder / ARTEFACT_FOLDER).with_finite_weights()
    rows = read_one(posed, row, split=split, data_dir=data_dir or config.data.data_dir)
    parts = load_parts(config, bridge, device=device, writer=False)
    (example,) = fit_rows(posed, rows, sender=parts.sender.prompter, receiver=parts.receiver.prompter).examples
    return explain(posed, example, split=split, sender=parts.sender, bridge=bridge, receiver=parts.receiver)


def explain(task: Task, row: Example, *, split: str, sender: Sender, bridge: Bridge, receiver: Receiver) -> Explanation:
    """Explains the message that ``bridge`` makes of one row."""
    read = sender.read([row.sender_prompt])
    soft = messages_of(bridge, sender, receiver, [row.sender_prompt])
    soft = _only(soft, soft.mask[0].nonzero()[:, 0].tolist())
    answers = _Answers(receiver, task, row, soft)
    occlusion = occluded(bridge, read)
    groups = _groups(bridge, len(soft.vectors[0]), int(read.mask.sum()))
    gradient = None if groups else gradient_times_state(bridge, read)
    neighbours, noise = nearest_vocabulary(receiver, soft.vectors[0])
    attention = attention_on(receiver, row.receiver_prompt, soft, answers.predicted_ids)
    without = answers.without_each()
    whole, nothing = answers.likelihoods(soft), answers.likelihoods(None)
    verbatim = "".join(soft.verbatim)
    textless = answers.likelihoods(replace(soft, verbatim=())) if verbatim else None
    stories = tuple(
        SoftTokenStory(
            index=index,
            neighbours=neighbours[index],
            sources=_largest(occlusion[index]),
            gradient_sources=() if gradient is None else _largest(gradient[index]),
            group=groups[index] if groups else None,
            attention=attention.soft_tokens[index],
            gold_effect=without[index].gold - whole.gold,
            predicted_effect=without[index].predicted - whole.predicted,
            changes_answer=not without[index].same_answer,
        )
        for index in range(len(soft.vectors[0]))
    )
    return Explanation(
        task=task.name,
        split=split,
        row=row.id,
        bridge=f"{bridge.config.name}, {bridge.config.describe_rate()}",
        sender=sender.source.name,
        receiver=receiver.source.name,
        sender_tokens=tuple(sender_tokens(sender, row.sender_prompt)),
        question=row.receiver_prompt.text.strip(),
        reads=row.receiver_prompt.with_text("⟨message⟩").text.strip(),
        verbatim=verbatim,
        gold=row.answer,
        predicted=answers.predicted,
        right=answers.right,
        gold_log_likelihood=whole.gold,
        predicted_log_likelihood=whole.predicted,
        gold_without_message=nothing.gold,
        predicted_without_message=nothing.predicted,
        gold_without_verbatim=None if textless is None else textless.gold,
        noise=noise,
        attention_how=attention.how,
        attention_on_verbatim=attention.verbatim,
        attention_elsewhere=attention.elsewhere,
        soft_tokens=stories,
        sources=tuple(tuple(round(value, 5) for value in own.tolist()) for own in occlusion),
    )


def _largest(values: Tensor) -> tuple[tuple[int, float], ...]:
    """The sender tokens of the greatest values, those that are practically nothing left out."""
    found = values.topk(min(MOST_SOURCES, len(values)))
    return tuple((int(place), float(value)) for value, place in zip(*found, strict=True) if value > 1e-3)


def _groups(bridge: Bridge, soft_tokens: int, sender_tokens: int) -> list[tuple[int, int]] | None:
    """First and last sender token of each soft token's own group, None where the bridge does not pool neighbours."""
    config, size = bridge.config, bridge.config.sender_tokens_per_soft_token
    if size is None or soft_tokens != config.soft_tokens_of(sender_tokens):
        return None
    return [(start, min(start + size, sender_tokens) - 1) for start in range(config.skipped(sender_tokens), sender_tokens, size)]


# ---------------------------------------------------------------------------------------------------------- effects


@dataclass(frozen=True)
class _Likelihoods:
    """Log-likelihoods in nats of the gold and the predicted answer, and whether the prediction is still the answer."""

    gold: float
    predicted: float
    same_answer: bool


class _Answers:
    """The gold answer of a row and the one that the receiver gives to its message, as tokens."""

    def __init__(self, receiver: Receiver, task: Task, row: Example, soft: SoftTokens) -> None:
        self.receiver, self.row, self.soft = receiver, row, soft
        prompt = row.receiver_prompt
        self.tries = receiver.tries([prompt], [row.options]) if row.options else None
        with torch.no_grad():
            prefix = receiver.prefix([prompt], soft)
            if self.tries:
                label = int(receiver.score_options(prefix, self.tries)[0].argmax())
                self.predicted, self.predicted_ids = row.options[label], self.tries[0].spelled(label)
                self.gold_ids = self.tries[0].spelled(row.label or 0)
                self.label = label
                self.right = label == row.label
            else:
                (ids,) = receiver.generate_ids(prefix, max_new_tokens=task.config.max_new_tokens)
                self.predicted = str(receiver.tokenizer.decode(ids, skip_special_tokens=True)).strip()
                self.predicted_ids = [*ids, *self._end(prefix, ids)] if len(ids) < task.config.max_new_tokens else ids
                self.gold_ids = receiver.answer_ids(prompt, row.answer)
                self.right = METRICS[task.config.metrics[0]](Prediction(self.predicted, None, None, 0, 0), row) == 1.0

    def _end(self, prefix: Prefix, ids: list[int]) -> list[int]:
        """The end token that greedy decoding came to: there may be several."""
        ends = [self.receiver.end_id, *sorted(self.receiver.end_ids - {self.receiver.end_id})]
        exact = self.receiver.predicted_exactly(prefix[[0] * len(ends)], [[*ids, end] for end in ends])
        return [ends[int(exact.int().argmax())]]

    def likelihoods(self, soft: SoftTokens | None) -> _Likelihoods:
        """With another message, or none, in the place of the row's own."""
        return self._measured([soft])[0]

    def without_each(self) -> list[_Likelihoods]:
        """With every soft token left out in turn."""
        count = self.soft.vectors.shape[1]
        left = [[place for place in range(count) if place != index] for index in range(count)]
        return self._measured([self.soft if count == 0 else _only(self.soft, places) for places in left])

    @torch.no_grad()
    def _measured(self, messages: Sequence[SoftTokens | None]) -> list[_Likelihoods]:
        found: dict[int, _Likelihoods] = {}
        message = self.soft.vectors.shape[1] * self.soft.read_per_token
        lengths = [self.receiver.count_tokens(self.row.receiver_prompt) + len(self.gold_ids) + message] * len(messages)
        for part in in_parts(lengths, self.receiver.device):
            for index, measured in zip(part, self._part([messages[index] for index in part]), strict=True):
                found[index] = measured
        return [found[index] for index in range(len(messages))]

    def _part(self, messages: Sequence[SoftTokens | None]) -> list[_Likelihoods]:
        receiver, count = self.receiver, len(messages)
        sent = [message for message in messages if message is not None]
        soft = stacked(sent) if sent else None
        prefix = receiver.prefix([self.row.receiver_prompt] * count, soft)
        gold, predicted = (
            receiver.answer_log_probs(prefix, [ids] * count)[0].sum(dim=1).tolist() for ids in (self.gold_ids, self.predicted_ids)
        )
        if self.tries:
            best = receiver.score_options(prefix, [self.tries[0]] * count)
            same = [int(scores.argmax()) == self.label for scores in best]
        else:
            same = receiver.predicted_exactly(prefix, [self.predicted_ids] * count).tolist()
        return [_Likelihoods(*values) for values in zip(gold, predicted, same, strict=True)]


def _only(soft: SoftTokens, places: Sequence[int]) -> SoftTokens:
    """The message with these soft tokens alone."""
    chosen = torch.tensor(list(places), dtype=torch.long, device=soft.mask.device)
    return replace(soft, vectors=soft.vectors[:, chosen], mask=soft.mask[:, chosen])
