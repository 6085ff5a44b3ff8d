"""Linear: one affine map per sender token, averaged over R neighbours. The floor every other bridge must beat."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from latentwire.bridges.base import Bridge, BridgeConfig, BridgeEnds
from latentwire.bridges.pooled import grouped


class LinearConfig(BridgeConfig):
    """Settings of the linear bridge."""

    name: Literal["linear"] = "linear"
    tokens_per_soft_token: int = Field(1, ge=1, le=256, description="sender tokens for which one soft token stands")
    start: Literal["drawn", "ridge"] = Field(
        "drawn",
        description="where its map begins: at random, or in closed form, from sender states to the receiver's embeddings of the "
        "same words; with training.steps=0 it stays there",
    )

    @property
    def knows_at_first(self) -> bool:
        return super().knows_at_first or self.start == "ridge"

    @property
    def sender_tokens_per_soft_token(self) -> int:
        return self.tokens_per_soft_token

    def build(self, ends: BridgeEnds) -> Bridge:
        return LinearBridge(self, ends)

    @property
    def rate(self) -> str:
        begun = ", begun by ridge" if self.start == "ridge" else ""
        return f"one soft token per {self.tokens_per_soft_token} sender tokens{begun}"


class LinearBridge(Bridge):
    """One affine map per sender token."""

    config: LinearConfig

    def __init__(self, config: LinearConfig, ends: BridgeEnds) -> None:
        super().__init__(config, ends)
        self.norm_in = nn.LayerNorm(ends.sender_width)
        self.project = nn.Linear(ends.sender_width, ends.receiver_width)

    def vectors(
        self, states: Float[Tensor, "B S D_s"], mask: Bool[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B K D_r"], Bool[Tensor, "B K"]]:
        groups, group_mask = grouped(self.norm_in(states), mask, self.config.tokens_per_soft_token)
        counts, _ = grouped(mask[..., None].float(), mask, self.config.tokens_per_soft_token)
        mean = groups.sum(dim=2) / counts.sum(dim=2).clamp(min=1)
        return self.project(mean), group_mask
