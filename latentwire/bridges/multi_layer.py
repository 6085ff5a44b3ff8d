"""Multi-layer: the pooled bridge over a learned mix of several hidden states of the sender.

Early layers carry exact words, late ones the gist; which share each has is learned (a softmax over the layers, as in ELMo, Peters
et al. 2018) and can be read from the trained bridge (``shares``).
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from latentwire.bridges.base import Bridge, BridgeEnds
from latentwire.bridges.pooled import PooledBridge, PooledConfig


class MultiLayerConfig(PooledConfig):
    """Settings of the multi-layer bridge: those of ``pooled``."""

    name: Literal["multi_layer"] = "multi_layer"  # type: ignore[assignment]

    @property
    def mixes_layers(self) -> bool:
        return True

    def build(self, ends: BridgeEnds) -> Bridge:
        return MultiLayerBridge(self, ends)


class MultiLayerBridge(PooledBridge):
    """Each layer normalised on its own, mixed by learned shares, then pooled."""

    config: MultiLayerConfig

    def __init__(self, config: MultiLayerConfig, ends: BridgeEnds) -> None:
        width = ends.sender_width // ends.sender_layers
        super().__init__(config, ends.model_copy(update={"sender_width": width, "sender_layers": 1}))
        self.ends = ends
        self.layer_norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(ends.sender_layers))
        self.layer_logits = nn.Parameter(torch.zeros(ends.sender_layers))

    @property
    def shares(self) -> Float[Tensor, " layers"]:
        """The share of each layer in the mix; they add up to 1."""
        return self.layer_logits.softmax(0)

    def vectors(
        self, states: Float[Tensor, "B S all"], mask: Bool[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B K D_r"], Bool[Tensor, "B K"]]:
        layers = states.unflatten(-1, (self.ends.sender_layers, -1)).unbind(-2)
        mixed = sum(share * norm(layer) for share, norm, layer in zip(self.shares, self.layer_norms, layers, strict=True))
        assert isinstance(mixed, Tensor)
        return super().vectors(mixed, mask)
