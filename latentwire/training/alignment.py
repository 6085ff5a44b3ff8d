"""Alignment: each soft token is drawn towards the receiver's own embeddings of the words that it stands for.

The words are those of the sender's text, each near its own place, or those of its note, spread over the message from its
beginning. A plan puts every receiver token, in order, into one soft token at or near its place, so that soft tokens that must hold
several hold cheap ones (a full stop, an article) beside a dear one; a token is as dear as it is rare. The target of a soft token
is the mean embedding of its tokens, weighted by the square of how dear they are, at the scale with which soft tokens begin. No
pass of the receiver is needed, so a step costs a tenth of another.

Shapes: B rows, K soft tokens, T receiver tokens, D_r receiver width.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from latentwire.bridges.base import Bridge
from latentwire.config import RunConfig
from latentwire.data.task import Example
from latentwire.errors import DataError, UsageError
from latentwire.models.receiver import Receiver
from latentwire.models.sender import Sender
from latentwire.models.soft_tokens import SoftTokens
from latentwire.training.packing import Notes, Packing, find_packing, load_packing

#: nats for each place that a token is away from its own. A soft token cannot see whether words far before it have moved, so a long
#: row of moved words cannot be learned
SHIFT_COST, EMPTY_COST = 1.0, 0.01
#: the commonest tokens cost next to nothing, and none is free
FREE_NATS, LEAST_NATS = 1.5, 0.05
MOST_COUNTED_TEXTS = 2_000
#: soft tokens that a word of a note may be away from its place
NOTE_SHIFT = 2


@dataclass(frozen=True)
class Plan:
    """What the soft tokens of one text stand for: ``groups[k]`` are the receiver tokens (places in ``tokens``) of soft token k."""

    tokens: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]


class Alignment:
    """The alignment loss between one sender and one receiver.

    Args:
        rows: what the receiver's tokens are counted on.
        to: the words of the sender's ``text``, or those of the row's ``note``.
        packing: how notes are said in few soft tokens; instead of a plan.

    Raises:
        UsageError: the bridge sends a fixed number of soft tokens and is to be aligned to the text, or a tokenizer does not tell
            where its tokens stand.
    """

    def __init__(
        self,
        sender: Sender,
        receiver: Receiver,
        bridge: Bridge,
        rows: Sequence[Example],
        *,
        to: Literal["text", "note"] = "text",
        packing: Packing | None = None,
    ) -> None:
        if to == "text" and bridge.config.sender_tokens_per_soft_token is None:
            raise UsageError(
                f"bridge {bridge.config.name!r} sends {bridge.config.describe_rate()}, which stand for no words in particular; "
                "where the task has notes set training.align_to=note, else use the objective text, or bridge.name=pooled"
            )
        for end in (sender, receiver):
            if not end.tokenizer.is_fast:
                raise UsageError(f"the tokenizer of {end.source.name!r} does not tell where its tokens stand; leave out 'align'")
        self.sender, self.receiver, self.bridge, self.to = sender, receiver, bridge, to
        self.packing, self.notes = packing, Notes(bridge.config, sender, receiver)
        said = [self._words(row) for row in rows[:MOST_COUNTED_TEXTS]]
        encoded = receiver.tokenizer(said, add_special_tokens=False, verbose=False)["input_ids"]
        self._counts = Counter(token for ids in encoded for token in ids)
        self._total = max(1, self._counts.total())
        self._plans: dict[tuple[str, str], Plan] = {}

    def loss(self, rows: Sequence[Example], soft: SoftTokens) -> Float[Tensor, ""]:
        """Mean squared distance of the soft tokens from their targets over the mean square of a target.

        Raises:
            DataError: a row that is to be aligned to its note has none.
        """
        if self.packing is not None:
            return self._packed_loss(self.packing, rows, soft)
        table = self.receiver.embed.weight.detach()
        scale = self.receiver.embedding_rms * self.bridge.config.gain
        losses = []
        for place, (row, real) in enumerate(zip(rows, soft.mask.tolist(), strict=True)):
            plan = self.plan(row)
            # hidden sender tokens leave holes; another row's message, which the diagnostics compare with, may be shorter
            taken = [number for number, (group, here) in enumerate(zip(plan.groups, real, strict=False)) if group and here]
            if not taken:
                continue
            weights = torch.zeros(len(taken), len(plan.tokens))
            for line, number in enumerate(taken):
                for token in plan.groups[number]:
                    weights[line, token] = self.nats(plan.tokens[token]) ** 2
            words = table[torch.tensor(plan.tokens, device=table.device)].float()
            wanted = (weights / weights.sum(dim=1, keepdim=True)).to(table.device) @ words
            wanted = wanted * (scale * torch.rsqrt(wanted.pow(2).mean(dim=1, keepdim=True) + 1e-12))
            losses.append((soft.vectors[place, taken].float() - wanted).pow(2).mean())
        return torch.stack(losses).mean() / scale**2 if losses else 0.0 * soft.vectors.sum()

    def _packed_loss(self, packing: Packing, rows: Sequence[Example], soft: SoftTokens) -> Float[Tensor, ""]:
        with torch.no_grad():
            wanted = self.notes.packed(packing, rows)
        # another row's message, which the diagnostics compare with, may be longer or shorter
        count = min(soft.mask.shape[1], wanted.mask.shape[1])
        mask = (soft.mask[:, :count] & wanted.mask[:, :count])[..., None]
        squares = ((soft.vectors[:, :count].float() - wanted.vectors[:, :count]) * mask).pow(2).sum()
        return squares / (wanted.vectors[:, :count] * mask).pow(2).sum()

    def _words(self, row: Example) -> str:
        if self.to == "text":
            return row.sender_prompt
        if row.note is None:
            raise DataError(f"task {row.task!r} has no notes, so training.align_to=note does not fit; use align_to=text")
        return row.note

    def nats(self, token: int) -> float:
        """How dear a receiver token is: how rare it was among the counted texts."""
        rarity = -math.log((self._counts[token] + 0.5) / self._total)
        return max(LEAST_NATS, rarity - FREE_NATS)

    def plan(self, row: Example) -> Plan:
        """What the soft tokens of a row's own message stand for; made once."""
        words = self._words(row)
        key = (row.sender_prompt, words)
        if key not in self._plans:
            ours = self.receiver.tokenizer(words, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            theirs = self.sender.tokenizer(row.sender_prompt, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            config, tokens = self.bridge.config, tuple(ours["input_ids"])
            size, skipped = config.sender_tokens_per_soft_token or 1, config.skipped(len(theirs["input_ids"]))
            groups = self.notes.length(row)
            if self.to == "text":
                shared = overlap(theirs["offset_mapping"], ours["offset_mapping"])
                # a token that stands for no character (a lone space) is where the one before it is
                homes = [max(0, place - skipped) // size for place in shared.argmax(dim=0).cummax(dim=0).values.tolist()]
            else:
                homes = spread(len(tokens), groups)
            back, ahead = (self.to == "text" and config.sees_groups) or (NOTE_SHIFT, NOTE_SHIFT)
            placed = assign(homes, [self.nats(token) for token in tokens], groups=groups, back=back, ahead=ahead)
            self._plans[key] = Plan(tokens, placed)
        return self._plans[key]


def spread(tokens: int, groups: int) -> list[int]:
    """Homes of tokens that may stand anywhere: one to a group as far as they go, else evenly."""
    return list(range(tokens)) if tokens <= groups else [token * groups // tokens for token in range(tokens)]


def assign(homes: Sequence[int], nats: Sequence[float], *, groups: int, back: int, ahead: int) -> tuple[tuple[int, ...], ...]:
    """Tokens in order into groups at the least cost: what all but the dearest token of each group are worth, and small shifts.

    Args:
        homes: the group in which each token stands.
        back, ahead: how many groups behind (before) its home a token may be put: a soft token cannot tell what it does not see.
    """
    count = len(homes)
    #: tokens placed so far → least cost, and for each group where its tokens begin
    best: dict[int, float] = {0: 0.0}
    starts: list[dict[int, int]] = []
    for group in range(groups):
        found: dict[int, float] = {}
        start: dict[int, int] = {}
        for first, before in best.items():
            total = dearest = shifts = 0.0
            for end in range(first, count + 1):
                if end > first:
                    away = group - homes[end - 1]
                    if not -ahead <= away <= back:
                        break
                    total, dearest, shifts = total + nats[end - 1], max(dearest, nats[end - 1]), shifts + abs(away)
                cost = before + total - dearest + SHIFT_COST * shifts + (EMPTY_COST if end == first else 0.0)
                if cost < found.get(end, math.inf):
                    found[end], start[end] = cost, first
        best = found
        starts.append(start)
    placed: list[tuple[int, ...]] = []
    end = count
    for start in reversed(starts):
        placed.append(tuple(range(start[end], end)))
        end = start[end]
    return tuple(reversed(placed))


def overlap(ours: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]) -> Float[Tensor, "ours others"]:
    """Number of characters that each of our spans shares with each of the others."""
    first, second = (torch.tensor(list(spans), dtype=torch.double).reshape(-1, 2) for spans in (ours, others))
    begin = torch.maximum(first[:, None, 0], second[None, :, 0])
    end = torch.minimum(first[:, None, 1], second[None, :, 1])
    return (end - begin).clamp(min=0)


def alignment_for(
    config: RunConfig, sender: Sender, receiver: Receiver, bridge: Bridge, rows: Sequence[Example]
) -> Alignment | None:
    """The alignment that the config's training asks for, if any.

    A bridge that is drawn towards a packing begins with the vectors by which the receiver unfolds that.

    Raises:
        ArtefactError: it is to a packing, and there is none beside stage one. MismatchError: to one of other settings.
    """
    settings = config.training
    if not settings.aligns:
        return None
    if settings.align_to == "packing":
        packing = load_packing(find_packing(config), receiver)
        if bridge.unfold_embeddings is not None and packing.unfold_embeddings is not None:
            bridge.unfold_embeddings.data.copy_(packing.unfold_embeddings)
        return Alignment(sender, receiver, bridge, rows, packing=packing)
    return Alignment(sender, receiver, bridge, rows, to=settings.align_to)
