"""Attentive: one soft token for every R consecutive sender tokens, each a query that reads all of the context.

The message grows with the context as ``pooled``'s does, and what a soft token says need not stand at its own place: the bridge
may leave out what carries nothing and say the rest, which is what a message of fewer tokens than the text must do.
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from latentwire.bridges.base import Bridge, BridgeConfig, BridgeEnds
from latentwire.bridges.blocks import reading_blocks, sinusoids
from latentwire.bridges.pooled import grouped


class AttentiveConfig(BridgeConfig):
    """Settings of the attentive bridge."""

    name: Literal["attentive"] = "attentive"
    tokens_per_soft_token: int = Field(2, ge=1, le=256)
    hidden_size: int = Field(192, ge=8)
    depth: int = Field(2, ge=1)
    heads: int = Field(6, ge=1)
    ffn_factor: int = Field(2, ge=1)

    @property
    def sender_tokens_per_soft_token(self) -> int:
        return self.tokens_per_soft_token

    @property
    def sees_groups(self) -> None:
        return None

    def build(self, ends: BridgeEnds) -> Bridge:
        return AttentiveBridge(self, ends)

    def describe_rate(self) -> str:
        return f"one soft token per {self.tokens_per_soft_token} sender tokens"


class AttentiveBridge(Bridge):
    """Groups of R neighbouring states as queries over all states."""

    config: AttentiveConfig

    def __init__(self, config: AttentiveConfig, ends: BridgeEnds) -> None:
        super().__init__(config, ends)
        size = config.hidden_size
        self.norm_in = nn.LayerNorm(ends.sender_width)
        self.project_in = nn.Linear(ends.sender_width, size)
        self.norm_states = nn.LayerNorm(size)
        self.project_group = nn.Linear(ends.sender_width * config.tokens_per_soft_token, size)
        self.blocks = reading_blocks(config.name, depth=config.depth, size=size, heads=config.heads, ffn_factor=config.ffn_factor)
        self.norm_out = nn.LayerNorm(size)
        self.project_out = nn.Linear(size, ends.receiver_width)

    def vectors(
        self, states: Float[Tensor, "B S D_s"], mask: Bool[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B K D_r"], Bool[Tensor, "B K"]]:
        states = self.norm_in(states)
        groups, group_mask = grouped(states, mask, self.config.tokens_per_soft_token)
        queries = self.project_group(groups.flatten(2))
        queries = queries + sinusoids(queries.shape[1], queries.shape[2], queries.device)
        read = self.project_in(states)
        read = self.norm_states(read + sinusoids(read.shape[1], read.shape[2], read.device))
        for block in self.blocks:
            queries = block(queries, read, mask, group_mask)
        return self.project_out(self.norm_out(queries)), group_mask
