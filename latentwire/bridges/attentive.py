"""Attentive: one soft token for every R consecutive sender tokens, each a query that reads all of the context.

The message grows with the context as ``pooled``'s does, and what a soft token says need not stand at its own place: the bridge
may leave out what carries nothing and say the rest, which is what a message of fewer tokens than the text must do.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from latentwire.bridges.base import Bridge, BridgeConfig, BridgeEnds
from latentwire.bridges.blocks import reading_blocks, sinusoids
from latentwire.bridges.pooled import grouped

#: width in which a pointer compares what is asked for with what is there
POINTER_SIZE = 64


class AttentiveConfig(BridgeConfig):
    """Settings of the attentive bridge."""

    name: Literal["attentive"] = "attentive"
    tokens_per_soft_token: int = Field(2, ge=1, le=256, description="sender tokens for which one soft token stands")
    hidden_size: int = Field(192, ge=8, description="width inside the bridge")
    depth: int = Field(2, ge=1, description="blocks that read the sender states")
    heads: int = Field(6, ge=1, description="attention heads; hidden_size is a multiple")
    ffn_factor: int = Field(2, ge=1, description="width of the feed-forward part over hidden_size")
    pointers: int = Field(
        0, ge=0, description="heads by which a soft token points at sender tokens and takes what they say as it is"
    )

    @property
    def sender_tokens_per_soft_token(self) -> int:
        return self.tokens_per_soft_token

    @property
    def sees_groups(self) -> None:
        return None

    def build(self, ends: BridgeEnds) -> Bridge:
        return AttentiveBridge(self, ends)

    @property
    def rate(self) -> str:
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
        self.pointers = Pointers(config.pointers, ends, size) if config.pointers else None

    def vectors(
        self, states: Float[Tensor, "B S D_s"], mask: Bool[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B K D_r"], Bool[Tensor, "B K"]]:
        states = self.norm_in(states)
        groups, group_mask = grouped(states, mask, self.config.tokens_per_soft_token)
        queries = self.project_group(groups.flatten(2))
        # places of both in sender tokens, so that "as far from here" means the same everywhere
        places = sinusoids(queries.shape[1] * self.config.tokens_per_soft_token, queries.shape[2], queries.device)
        queries = queries + places[:: self.config.tokens_per_soft_token]
        read = self.project_in(states)
        read = self.norm_states(read + places[: read.shape[1]])
        for block in self.blocks:
            queries = block(queries, read, mask, group_mask)
        queries = self.norm_out(queries)
        said = self.project_out(queries)
        return (said if self.pointers is None else said + self.pointers(queries, read, states, mask)), group_mask


class Pointers(nn.Module):
    """Heads that say what single sender tokens say.

    A word never seen is said like any other: the queries find its place, what is said depends on the token and its neighbours
    alone, and each soft token has a gate of its own over that, since a word is said in several soft tokens in different ways.
    """

    def __init__(self, heads: int, ends: BridgeEnds, size: int) -> None:
        super().__init__()
        self.heads = heads
        self.ask, self.offer = nn.Linear(size, heads * POINTER_SIZE), nn.Linear(size, heads * POINTER_SIZE)
        self.read = nn.Sequential(nn.Linear(3 * ends.sender_width, 4 * size), nn.GELU(), nn.Linear(4 * size, 2 * size))
        self.gate = nn.Linear(size, heads * 2 * size)
        self.say = nn.Linear(heads * 2 * size, ends.receiver_width)

    def forward(
        self,
        queries: Float[Tensor, "B K size"],
        read: Float[Tensor, "B S size"],
        states: Float[Tensor, "B S D_s"],
        mask: Bool[Tensor, "B S"],
    ) -> Float[Tensor, "B K D_r"]:
        """``read`` are the ``states`` as the queries see them, with their places."""
        states = states * mask[..., None]
        near = torch.cat([F.pad(states, (0, 0, 1, 0))[:, :-1], states, F.pad(states, (0, 0, 0, 1))[:, 1:]], dim=-1)
        asked, offered = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.ask(queries), self.offer(read)))
        words = self.read(near)[:, None].expand(-1, self.heads, -1, -1)
        found = F.scaled_dot_product_attention(asked, offered, words, attn_mask=mask[:, None, None]).transpose(1, 2)
        said: Tensor = self.say(found.flatten(2) * (1 + self.gate(queries)))
        return said
