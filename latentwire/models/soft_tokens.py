"""What a receiver is given: messages of soft tokens, and the prefixes in which they stand.

Shapes: B rows, K soft tokens, U unfolding vectors, P prefix positions, D_r receiver width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from latentwire.errors import MismatchError
from latentwire.models.past import Past


@dataclass(frozen=True)
class SoftTokens:
    """A batch of messages: ``vectors`` [B, K, D_r]; ``mask`` [B, K] is True at real soft tokens.

    ``verbatim``: the text of each row that stands directly behind its soft tokens, or nothing where no row has any.
    ``stride``: how many of the receiver's positions each soft token takes up, itself at the first of them.
    ``unfold``: what the receiver reads behind each soft token, the same in every message and never sent; with it they
    stand evenly over its stride.
    """

    vectors: Float[Tensor, "B K D_r"]
    mask: Bool[Tensor, "B K"]
    verbatim: tuple[str, ...] = ()
    stride: int = 1
    unfold: Float[Tensor, "U D_r"] | None = None

    def __getitem__(self, rows: Tensor | slice) -> SoftTokens:
        chosen = self.verbatim[rows] if isinstance(rows, slice) else [self.verbatim[row] for row in rows.tolist() if self.verbatim]
        return replace(self, vectors=self.vectors[rows], mask=self.mask[rows], verbatim=tuple(chosen))

    @staticmethod
    def joined(messages: Sequence[SoftTokens]) -> SoftTokens:
        """Messages of several senders as one, end to end in this order; their verbatim texts stand behind all soft tokens.

        Raises:
            MismatchError: they are for different numbers of rows, for receivers of different widths, of different strides or
                unfolded in different ways.
        """
        rows, widths = {len(item.mask) for item in messages}, {item.vectors.shape[-1] for item in messages}
        for what, sizes in (("rows", rows), ("width", widths), ("stride", {item.stride for item in messages})):
            if len(sizes) > 1:
                raise MismatchError(f"messages that differ in {what} ({', '.join(map(str, sorted(sizes)))}) cannot be joined")
        if not all(_equal(item.unfold, messages[0].unfold) for item in messages):
            raise MismatchError("messages whose bridges unfold them in different ways (bridge.unfold) cannot be joined")
        verbatim: tuple[str, ...] = ()
        if any(item.verbatim for item in messages):
            texts = [item.verbatim or ("",) * len(item.mask) for item in messages]
            verbatim = tuple(" ".join(filter(None, parts)) for parts in zip(*texts, strict=True))
        vectors, mask = torch.cat([item.vectors for item in messages], 1), torch.cat([item.mask for item in messages], 1)
        return replace(messages[0], vectors=vectors, mask=mask, verbatim=verbatim)

    @staticmethod
    def gathered(parts: Sequence[SoftTokens], rows: Sequence[Sequence[int]]) -> SoftTokens:
        """Messages of groups of rows as one batch: ``rows[i]`` are the places of those of ``parts[i]``; shorter ones are padded."""
        most = max(part.mask.shape[1] for part in parts)
        vectors = torch.cat([F.pad(part.vectors, (0, 0, 0, most - part.mask.shape[1])) for part in parts])
        mask = torch.cat([F.pad(part.mask, (0, most - part.mask.shape[1])) for part in parts])
        places = torch.tensor([row for group in rows for row in group], device=mask.device).argsort()
        return replace(parts[0], vectors=vectors[places], mask=mask[places], verbatim=())

    def shifted(self) -> SoftTokens:
        """Every row with the message of the row before it."""
        return self[torch.arange(len(self.vectors), device=self.mask.device).roll(1)]

    @property
    def has_no_gaps(self) -> bool:
        """Whether all messages are of one length and soft tokens alone."""
        return not self.verbatim and bool(self.mask.all())

    @property
    def read_per_token(self) -> int:
        """Vectors that the receiver reads for each soft token: itself and what unfolds it."""
        return 1 if self.unfold is None else 1 + len(self.unfold)

    @property
    def is_spread(self) -> bool:
        """Whether positions do not simply count what is read."""
        return self.stride > 1 or self.unfold is not None

    def as_read(self, vectors: Float[Tensor, "*B K D_r"]) -> Float[Tensor, "*B KU D_r"]:
        """Soft tokens as the receiver reads them: each with what unfolds it behind it."""
        if self.unfold is None:
            return vectors
        unfold = self.unfold.to(vectors.dtype).expand(*vectors.shape[:-1], -1, -1)
        return torch.cat([vectors[..., None, :], unfold], dim=-2).flatten(-3, -2)

    def positions(self, length: int, *, before: int, count: int) -> Int[Tensor, " length"]:
        """Positions in a row of so many vectors, of which those of ``count`` soft tokens stand behind the first ``before``."""
        places, each = torch.arange(length), self.read_per_token
        inside = (places - before).clamp(0, count * each)
        message = inside // each * self.stride + inside % each * self.stride // each
        return places.clamp(max=before) + message + (places - before - count * each).clamp(min=0)

    @property
    def tokens_per_row(self) -> Int[Tensor, " B"]:
        return self.mask.sum(dim=1)

    def bytes_per_row(self, dtype: torch.dtype) -> Int[Tensor, " B"]:
        """Bytes on the wire of the soft part of each message, sent in ``dtype``."""
        return self.tokens_per_row * self.vectors.shape[-1] * dtype.itemsize


@dataclass(frozen=True)
class Prefix:
    """What the receiver reads before it answers: ``embeddings`` [B, P, D_r], left-padded, and the ``mask`` [B, P].

    ``past``: what stands before and has been read, if anything. ``spread``: the position of each token, where soft tokens take up
    more than one each; else positions count real tokens.
    """

    embeddings: Float[Tensor, "B P D_r"]
    mask: Bool[Tensor, "B P"]
    past: Past | None = None
    spread: Int[Tensor, "B P"] | None = None

    def __getitem__(self, rows: Sequence[int]) -> Prefix:
        """Some of the rows, without the padding that only others needed."""
        # the longest row of a prefix has no padding, so there is none to take off where all rows stay
        if list(rows) == list(range(len(self.mask))):
            return self
        chosen = torch.tensor(rows, device=self.mask.device)
        mask = self.mask[chosen]
        start = int(mask.any(dim=0).int().argmax())
        past = None if self.past is None else self.past[rows]
        return self.part(chosen, slice(start, None), past=past)

    def part(
        self, rows: Tensor | slice, places: slice, *, past: Past | None = None, mask: Bool[Tensor, "B _"] | None = None
    ) -> Prefix:
        """Some rows and places, behind ``past``; ``mask``: where fewer places are left to read than were real."""
        spread = None if self.spread is None else self.spread[rows, places]
        return Prefix(self.embeddings[rows, places], self.mask[rows, places] if mask is None else mask, past, spread)

    @property
    def positions(self) -> Int[Tensor, "B P"]:
        """Where each token stands for the receiver; the last one is real in every row."""
        if self.spread is not None:
            return self.spread
        if self._is_one_whole_row:
            return torch.arange(self.mask.shape[1], device=self.mask.device)[None]
        return positions_of(self.whole_mask)[:, -self.mask.shape[1] :]

    @property
    def lengths(self) -> list[int]:
        """Real positions of each row, those of the past included."""
        return [self.mask.shape[1]] if self._is_one_whole_row else list(self.whole_mask.sum(dim=1).tolist())

    @property
    def _is_one_whole_row(self) -> bool:
        """A single row of which nothing was read has no padding, and no device is asked for it."""
        return len(self.mask) == 1 and self.past is None

    @property
    def has_no_gaps(self) -> bool:
        """Whether no position is padding."""
        return self._is_one_whole_row or bool(self.whole_mask.all())

    @property
    def whole_mask(self) -> Bool[Tensor, "B _"]:
        """The mask of the past and of what is still to be read."""
        return self.mask if self.past is None else torch.cat([self.past.mask_of(len(self.mask)), self.mask], dim=1)


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other or (one is not None and other is not None and torch.equal(one, other))


def positions_of(mask: Bool[Tensor, "B P"]) -> Int[Tensor, "B P"]:
    """0, 1, 2 … over the real tokens of each row; padding gets 0."""
    return (mask.long().cumsum(dim=1) - 1).clamp(min=0)
