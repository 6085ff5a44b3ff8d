"""What attentive bridges are made of: blocks of queries that read the sender's states, and position codes.

Shapes: B rows, S sender tokens, N real ones of all rows, Q queries.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from latentwire.errors import ConfigError


class ReadingBlock(nn.Module):
    """Queries attend to the states, then to each other, then pass a feed-forward layer; all pre-norm."""

    def __init__(self, size: int, heads: int, ffn_factor: int) -> None:
        super().__init__()
        self.heads = heads
        self.cross_norm, self.self_norm, self.ffn_norm = (nn.LayerNorm(size) for _ in range(3))
        self.cross_q, self.cross_out = nn.Linear(size, size, bias=False), nn.Linear(size, size, bias=False)
        self.cross_kv = nn.Linear(size, 2 * size, bias=False)
        self.self_qkv, self.self_out = nn.Linear(size, 3 * size, bias=False), nn.Linear(size, size, bias=False)
        self.ffn = nn.Sequential(nn.Linear(size, ffn_factor * size), nn.GELU(), nn.Linear(ffn_factor * size, size))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Bool[Tensor, "B K"] | None) -> Tensor:
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        seen = None if mask is None else mask[:, None, None, :]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).flatten(2)

    def forward(
        self,
        queries: Float[Tensor, "B Q size"],
        states: Float[Tensor, "B S size"] | Float[Tensor, "N size"],
        mask: Bool[Tensor, "B S"],
        query_mask: Bool[Tensor, "B Q"] | None = None,
        places: Int[Tensor, " N"] | None = None,
    ) -> Float[Tensor, "B Q size"]:
        """``mask`` and ``query_mask`` are True at what is real; without the second all queries are.

        ``states``: of all places, or of the N real ones alone; ``places`` are theirs in the rows of the mask, one behind the other.
        """
        read = self.cross_kv(states)
        if places is not None:
            read = read.new_zeros(mask.numel(), read.shape[-1]).index_copy_(0, places, read).unflatten(0, mask.shape)
        k, v = read.chunk(2, dim=-1)
        queries = queries + self.cross_out(self._attend(self.cross_q(self.cross_norm(queries)), k, v, mask))
        q, k, v = self.self_qkv(self.self_norm(queries)).chunk(3, dim=-1)
        queries = queries + self.self_out(self._attend(q, k, v, query_mask))
        out: Tensor = queries + self.ffn(self.ffn_norm(queries))
        return out


def reading_blocks(bridge: str, *, depth: int, size: int, heads: int, ffn_factor: int) -> nn.ModuleList:
    """``depth`` blocks for the named bridge. Raises ``ConfigError`` where the heads do not divide the size."""
    if size % heads:
        raise ConfigError(f"bridge {bridge!r}: hidden_size = {size} is not a multiple of heads = {heads}")
    return nn.ModuleList(ReadingBlock(size, heads, ffn_factor) for _ in range(depth))


def sinusoids(length: int, size: int, device: torch.device) -> Float[Tensor, "S size"]:
    """Fixed position codes (Vaswani et al. 2017) for any length."""
    # the table has a power of two of places, so that few are made and kept
    return _table(1 << (length - 1).bit_length() if length > 1 else 1, size, device)[:length]


@lru_cache(maxsize=16)
def _table(length: int, size: int, device: torch.device) -> Float[Tensor, "S size"]:
    half = size // 2
    rates = torch.exp(torch.arange(half, device=device) * (-math.log(10_000.0) / half))
    angles = torch.arange(length, device=device)[:, None] * rates
    return F.pad(torch.cat([angles.sin(), angles.cos()], dim=-1), (0, size - 2 * half))
