"""Perceiver: K learned queries read the sender states by cross-attention (Jaegle et al. 2021; the paper's bridge).

A message always has K soft tokens, whatever the length of the context.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from latentwire.bridges.base import Bridge, BridgeConfig, BridgeEnds
from latentwire.bridges.blocks import reading_blocks, sinusoids


class PerceiverConfig(BridgeConfig):
    """Settings of the perceiver bridge."""

    name: Literal["perceiver"] = "perceiver"
    soft_tokens: int = Field(8, ge=1, le=4096, description="of every message, however long its context")
    hidden_size: int = Field(192, ge=8, description="width inside the bridge")
    depth: int = Field(2, ge=1, description="blocks that read the sender states")
    heads: int = Field(6, ge=1, description="attention heads; hidden_size is a multiple")
    ffn_factor: int = Field(2, ge=1, description="width of the feed-forward part over hidden_size")

    @property
    def fixed_soft_tokens(self) -> int:
        return self.soft_tokens

    def build(self, ends: BridgeEnds) -> Bridge:
        return PerceiverBridge(self, ends)

    @property
    def rate(self) -> str:
        return f"{self.soft_tokens} soft tokens per message"


class PerceiverBridge(Bridge):
    """K learned queries over the sender states."""

    config: PerceiverConfig

    def __init__(self, config: PerceiverConfig, ends: BridgeEnds) -> None:
        super().__init__(config, ends)
        size = config.hidden_size
        self.norm_in = nn.LayerNorm(ends.sender_width)
        self.project_in = nn.Linear(ends.sender_width, size)
        self.norm_states = nn.LayerNorm(size)
        self.queries = nn.Parameter(torch.randn(config.soft_tokens, size))
        self.blocks = reading_blocks(config.name, depth=config.depth, size=size, heads=config.heads, ffn_factor=config.ffn_factor)
        self.norm_out = nn.LayerNorm(size)
        self.project_out = nn.Linear(size, ends.receiver_width)

    def vectors(
        self, states: Float[Tensor, "B S D_s"], mask: Bool[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B K D_r"], Bool[Tensor, "B K"]]:
        codes = sinusoids(mask.shape[1], self.config.hidden_size, mask.device)
        places = None
        if mask.device.type == "cpu" and not mask.all():
            # nothing is computed of padding; an accelerator would first have to be asked where it is
            places = mask.flatten().nonzero()[:, 0]
            states, codes = states.flatten(0, 1)[places], codes[places % mask.shape[1]]
        read = self.norm_states(self.project_in(self.norm_in(states)) + codes)
        queries = self.queries.expand(len(mask), -1, -1)
        for block in self.blocks:
            queries = block(queries, read, mask, places=places)
        vectors = self.project_out(self.norm_out(queries))
        return vectors, torch.ones(vectors.shape[:2], dtype=torch.bool, device=vectors.device)
