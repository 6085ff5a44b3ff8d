"""Perceiver: K learned queries read the sender states by cross-attention (Jaegle et al. 2021; the paper's bridge).

A message always has K soft tokens, whatever the length of the context.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from latentwire.bridges.base import Bridge, BridgeConfig, BridgeEnds


class PerceiverConfig(BridgeConfig):
    """Settings of the perceiver bridge."""

    name: Literal["perceiver"] = "perceiver"
    soft_tokens: int = Field(8, ge=1, le=4096)
    hidden_size: int = Field(192, ge=8)
    depth: int = Field(2, ge=1)
    heads: int = Field(6, ge=1)
    ffn_factor: int = Field(2, ge=1)

    def build(self, ends: BridgeEnds) -> Bridge:
        return PerceiverBridge(self, ends)

    def describe_rate(self) -> str:
        return f"{self.soft_tokens} soft tokens per message"


class _Block(nn.Module):
    """Queries attend to the states, then to each other, then pass a feed-forward layer; all pre-norm."""

    def __init__(self, size: int, heads: int, ffn_factor: int) -> None:
        super().__init__()
        self.heads = heads
        self.cross_norm, self.self_norm, self.ffn_norm = (nn.LayerNorm(size) for _ in range(3))
        self.cross_q, self.cross_out = nn.Linear(size, size, bias=False), nn.Linear(size, size, bias=False)
        self.cross_kv = nn.Linear(size, 2 * size, bias=False)
        self.self_qkv, self.self_out = nn.Linear(size, 3 * size, bias=False), nn.Linear(size, size, bias=False)
        self.ffn = nn.Sequential(nn.Linear(size, ffn_factor * size), nn.GELU(), nn.Linear(ffn_factor * size, size))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)

    def forward(self, queries: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        k, v = self.cross_kv(states).chunk(2, dim=-1)
        queries = queries + self.cross_out(self._attend(self.cross_q(self.cross_norm(queries)), k, v, mask))
        q, k, v = self.self_qkv(self.self_norm(queries)).chunk(3, dim=-1)
        queries = queries + self.self_out(self._attend(q, k, v, None))
        out: Tensor = queries + self.ffn(self.ffn_norm(queries))
        return out


class PerceiverBridge(Bridge):
    """K learned queries over the sender states."""

    config: PerceiverConfig

    def __init__(self, config: PerceiverConfig, ends: BridgeEnds) -> None:
        super().__init__(config, ends)
        size = config.hidden_size
        if size % config.heads:
            from latentwire.errors import ConfigError

            raise ConfigError(f"bridge 'perceiver': hidden_size = {size} is not a multiple of heads = {config.heads}")
        self.norm_in = nn.LayerNorm(ends.sender_width)
        self.project_in = nn.Linear(ends.sender_width, size)
        self.norm_states = nn.LayerNorm(size)
        self.queries = nn.Parameter(torch.randn(config.soft_tokens, size))
        self.blocks = nn.ModuleList(_Block(size, config.heads, config.ffn_factor) for _ in range(config.depth))
        self.norm_out = nn.LayerNorm(size)
        self.project_out = nn.Linear(size, ends.receiver_width)

    def vectors(
        self, states: Float[Tensor, "B S D_s"], mask: Bool[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B K D_r"], Bool[Tensor, "B K"]]:
        read = self.project_in(self.norm_in(states))
        read = self.norm_states(read + sinusoids(read.shape[1], read.shape[2], read.device))
        queries = self.queries.expand(len(states), -1, -1)
        for block in self.blocks:
            queries = block(queries, read, mask[:, None, None, :])
        vectors = self.project_out(self.norm_out(queries))
        return vectors, torch.ones(vectors.shape[:2], dtype=torch.bool, device=vectors.device)


def sinusoids(length: int, size: int, device: torch.device) -> Float[Tensor, "S size"]:
    """Fixed position codes (Vaswani et al. 2017) for any length."""
    half = size // 2
    rates = torch.exp(torch.arange(half, device=device) * (-math.log(10_000.0) / half))
    angles = torch.arange(length, device=device)[:, None] * rates
    return F.pad(torch.cat([angles.sin(), angles.cos()], dim=-1), (0, size - 2 * half))
