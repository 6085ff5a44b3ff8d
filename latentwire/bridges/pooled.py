"""Pooled: one soft token for every R consecutive sender tokens, so that the message grows with the context.

R states are laid side by side and pass a two-layer MLP. Fixed slots lose exact spans; contiguous pooling keeps them
(ARC-Encoder, Pilchen et al. 2025, pools in the same way inside its encoder). Each soft token also sees the group before its
own, and may see the group behind it: a word that is one token for the sender and two for the receiver can so be spelled over two
places. With ``apart`` the first layer reads each token for itself: what a soft token says is a sum over tokens, and what a token
adds does not depend on those beside it.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from latentwire.bridges.base import Bridge, BridgeConfig, BridgeEnds


class PooledConfig(BridgeConfig):
    """Settings of the pooled bridge."""

    name: Literal["pooled"] = "pooled"
    tokens_per_soft_token: int = Field(1, ge=1, le=256, description="sender tokens for which one soft token stands")
    hidden_size: int = Field(384, ge=8, description="width inside the bridge")
    look_back: int = Field(1, ge=0, le=8, description="groups before its own that a soft token also sees")
    look_ahead: int = Field(0, ge=0, le=8, description="groups behind its own that a soft token also sees")
    apart: bool = Field(False, description="each token is read for itself; a soft token is the sum")

    @property
    def sender_tokens_per_soft_token(self) -> int:
        return self.tokens_per_soft_token

    @property
    def sees_groups(self) -> tuple[int, int]:
        return self.look_back, self.look_ahead

    def build(self, ends: BridgeEnds) -> Bridge:
        return PooledBridge(self, ends)

    @property
    def rate(self) -> str:
        return f"one soft token per {self.tokens_per_soft_token} sender tokens"


class PooledBridge(Bridge):
    """A two-layer MLP over groups of R neighbouring states, or a sum of such over its tokens."""

    config: PooledConfig

    def __init__(self, config: PooledConfig, ends: BridgeEnds) -> None:
        super().__init__(config, ends)
        self.norm_in = nn.LayerNorm(ends.sender_width)
        seen = config.tokens_per_soft_token * (1 + config.look_back + config.look_ahead)
        together, apart = (1, seen) if config.apart else (seen, 1)
        self.mlp = nn.Sequential(
            nn.Linear(ends.sender_width * together, config.hidden_size),
            nn.GELU(),
            nn.Linear(config.hidden_size * apart, ends.receiver_width),
        )

    def vectors(
        self, states: Float[Tensor, "B S D_s"], mask: Bool[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B K D_r"], Bool[Tensor, "B K"]]:
        groups, group_mask = grouped(self.norm_in(states), mask, self.config.tokens_per_soft_token)
        if self.config.apart:
            return self.mlp[2](self._seen(self.mlp[:2](groups) * group_mask[..., None, None])), group_mask
        return self.mlp(self._seen(groups)), group_mask

    def _seen(self, groups: Float[Tensor, "B K R D"]) -> Float[Tensor, "B K D_seen"]:
        """Each group with those before and behind it."""
        own = groups.flatten(2)
        earlier = [F.pad(own, (0, 0, back, 0))[:, : own.shape[1]] for back in range(1, self.config.look_back + 1)]
        later = [F.pad(own, (0, 0, 0, ahead))[:, ahead:] for ahead in range(1, self.config.look_ahead + 1)]
        return torch.cat([own, *earlier, *later], dim=-1)


def grouped(
    states: Float[Tensor, "B S D"], mask: Bool[Tensor, "B S"], size: int
) -> tuple[Float[Tensor, "B K size D"], Bool[Tensor, "B K"]]:
    """Consecutive groups of ``size`` states, padding as zeros; a group is real if any of its states is."""
    short = -states.shape[1] % size
    states = F.pad(states * mask[..., None], (0, 0, 0, short))
    mask = F.pad(mask, (0, short))
    return states.unflatten(1, (-1, size)), mask.unflatten(1, (-1, size)).any(dim=-1)
