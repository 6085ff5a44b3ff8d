"""How far back a receiver's layers see, where one pass is told by an attention bias who sees whom.

A model that makes its own mask keeps its windows itself; one that is given a bias (for a tree of options behind a prefix) takes it
as it is, so the bias must keep them. Distances count tokens, a soft token as one whatever its stride, as the models do.

Shapes: B rows, T positions of one pass, `all` of them and those read before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

FULL, SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True)
class Windows:
    """``size`` positions, itself included, are what a position sees of those before it; in all layers, or in ``some``."""

    size: int | None = None
    some: bool = False

    @staticmethod
    def of(config: PreTrainedConfig) -> Windows:
        """Those of a model by its config."""
        size, kinds = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
        if not size or (kinds is not None and SLIDING not in kinds):
            return Windows()
        return Windows(size, some=kinds is not None and FULL in kinds)

    def end_before(self, total: int) -> bool:
        """Whether some layer does not see all of so many positions."""
        return self.size is not None and total > self.size

    def kept(
        self, bias: Float[Tensor, "B 1 T all"], positions: Int[Tensor, "B T"], nodes: int
    ) -> Float[Tensor, "B 1 T all"] | dict[str, Tensor]:
        """The bias with what lies too far back closed; for each kind of layer where only some have a window.

        Args:
            positions: of the pass, whose last ``nodes`` are those of a tree behind the prefix.
        """
        asked, total = bias.shape[-2:]
        if self.size is None or not self.end_before(total):
            return bias
        root = asked - nodes - 1
        depths = positions[:, root + 1 :] - positions[:, root : root + 1]
        before = torch.arange(total - nodes, device=bias.device).expand(len(positions), -1)
        places = torch.cat([before, before[:, -1:] + depths], dim=1)
        far = places[:, -asked:, None] - places[:, None, :] >= self.size
        near = bias.masked_fill(far[:, None], torch.finfo(bias.dtype).min)
        return {FULL: bias, SLIDING: near} if self.some else near
