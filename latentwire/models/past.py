"""What a receiver has read already, so that it is read once: the beginning that rows share, the prefix of options that take turns.

Shapes: B rows, P prefix positions, L positions read before, H key heads, D a head's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedConfig

#: a shared beginning is read apart if that saves so many tokens or more, since a pass has a price of its own
SHARED_TOKENS = 1024


@dataclass(frozen=True)
class Past:
    """Keys and values of the positions that stand before a prefix, layer by layer, and the ``mask`` of real ones.

    One row stands for all rows of the prefix.
    """

    layers: tuple[tuple[Float[Tensor, "B H L D"], Float[Tensor, "B H L D"]], ...]
    mask: Bool[Tensor, "B L"]

    def __getitem__(self, rows: Sequence[int]) -> Past:
        if len(self.mask) == 1:
            return self
        chosen = torch.tensor(rows, device=self.mask.device)
        return Past(tuple((keys[chosen], values[chosen]) for keys, values in self.layers), self.mask[chosen])

    def mask_of(self, rows: int) -> Bool[Tensor, "B L"]:
        return self.mask.expand(rows, -1)

    def cache(self, rows: int) -> DynamicCache:
        """A cache for one pass over so many rows; what the pass adds to it is not added here."""
        from transformers import DynamicCache

        cache = DynamicCache()
        for layer, (keys, values) in enumerate(self.layers):
            cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), layer)
        return cache

    @staticmethod
    def nothing(mask: Bool[Tensor, "B P"]) -> Past:
        """No position read yet."""
        return Past((), mask[:, :0])

    @staticmethod
    def of(cache: DynamicCache, mask: Bool[Tensor, "B L"]) -> Past:
        """The first positions of a cache, as many as the mask has."""
        length = mask.shape[1]
        return Past(tuple((layer.keys[:, :, :length], layer.values[:, :, :length]) for layer in cache.layers), mask)


def keeps_all_positions(config: PreTrainedConfig) -> bool:
    """Whether every layer can be given keys and values of all positions before (a recurrent layer can not)."""
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    return all(kind in ("full_attention", "sliding_attention") for kind in kinds)


def shared_start(embeddings: Float[Tensor, "B P W"], mask: Bool[Tensor, "B P"]) -> int:
    """How many positions all rows begin with alike, each row keeping its last for itself; 0 where sharing does not pay."""
    rows, length = mask.shape
    if (length - 1) * (rows - 1) < SHARED_TOKENS:
        return 0
    starts = (~mask).sum(dim=1).tolist()
    first = embeddings[0, starts[0] :]
    shared = length - max(starts) - 1
    for row, start in zip(embeddings[1:], starts[1:], strict=True):
        if shared * (len(starts) - 1) < SHARED_TOKENS:
            return 0
        alike = (row[start : start + shared] == first[:shared]).all(dim=-1)
        shared = int(alike.int().cumprod(dim=0).sum())
    return shared if shared * (len(starts) - 1) >= SHARED_TOKENS else 0
