"""AdamW, or Muon for the matrices with AdamW for the rest, under one warm-up and decay.

Muon scales its steps like AdamW's (Liu et al. 2025), so one learning rate serves both groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import nn

from latentwire.training.muon import Muon

OptimiserName = Literal["adamw", "muon"]
Schedule = Callable[[float], float]


def cosine(progress: float) -> float:
    """1 → 0 over the run."""
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, progress))


class Optimiser:
    """One or two torch optimisers that act as one.

    Args:
        named_parameters: what to train; matrices whose name contains ``embed`` or ``queries`` go to AdamW even with Muon.
        warmup_steps: linear warm-up in steps; ``schedule`` then maps progress (0-1) to a factor on the learning rate.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, nn.Parameter]],
        *,
        name: OptimiserName,
        lr: float,
        weight_decay: float,
        total_steps: int,
        warmup_steps: int,
        schedule: Schedule = cosine,
    ) -> None:
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for parameter_name, parameter in named_parameters:
            is_matrix = parameter.ndim == 2 and not any(word in parameter_name for word in ("embed", "queries"))
            (matrices if name == "muon" and is_matrix else others).append(parameter)
        self.parts: list[torch.optim.Optimizer] = []
        if matrices:
            self.parts.append(Muon(matrices, lr=lr, weight_decay=weight_decay))
        if others:
            decay = weight_decay if name == "adamw" else 0.0
            # one pass over all parameters; beside Muon they are few
            fused = name == "adamw"
            self.parts.append(torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=decay, fused=fused))
        self.parameters = matrices + others
        self.lr, self.total_steps, self.warmup_steps, self.schedule = lr, total_steps, warmup_steps, schedule

    def step(self, step: int, *, clip_norm: float = 1.0) -> float:
        """One update as step number ``step`` (from 0); returns the gradient norm before clipping.

        Where the norm is not finite the weights stay as they were, so that the caller can stop with sound ones.
        """
        factor = min(1.0, (step + 1) / max(1, self.warmup_steps)) * self.schedule(step / self.total_steps)
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, clip_norm))
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = self.lr * factor
            if math.isfinite(norm):
                part.step()
            part.zero_grad(set_to_none=True)
        return norm

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for part, saved in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(saved)
