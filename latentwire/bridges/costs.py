"""What a bridge costs, worked out from shapes alone: parameters, soft tokens, FLOPs. Nothing is allocated.

Shapes: S sender tokens, D_s sender width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from latentwire.bridges.base import BridgeConfig, BridgeEnds
from latentwire.models.sender import SenderStates


@dataclass(frozen=True)
class BridgeCosts:
    """The costs of one message of a context of ``context_tokens`` sender tokens."""

    params: int
    context_tokens: int
    soft_tokens: int
    #: multiplications and additions of one forward pass
    flops: int


def bridge_costs(config: BridgeConfig, ends: BridgeEnds, *, context_tokens: int) -> BridgeCosts:
    """Counted on the meta device with torch's ``FlopCounterMode`` (matrix products and attention)."""
    with torch.device("meta"):
        bridge = config.build(ends).eval().requires_grad_(False)
        states = torch.empty(1, context_tokens, ends.sender_width)
        mask = torch.ones(1, context_tokens, dtype=torch.bool)
        with FlopCounterMode(display=False) as counter:
            soft = bridge(SenderStates(states, mask))
    return BridgeCosts(bridge.num_params, context_tokens, soft.vectors.shape[1], counter.get_total_flops())
