"""Ridge: a bridge in closed form, without a step of training: sender states to the receiver's embeddings of the same text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from latentwire.bridges.base import BridgeEnds
from latentwire.bridges.linear import LinearBridge, LinearConfig
from latentwire.data.task import Example
from latentwire.errors import UsageError
from latentwire.messages.channel import Channel
from latentwire.messages.settings import MessageSettings
from latentwire.methods.base import AS_THE_TASK_SAYS, SOFT_CONTROLS, Control, FitData, Method, Parts, Prediction
from latentwire.methods.bridge import controls_of, send_and_answer, soft_tokens_of
from latentwire.training.ridge import fit_ridge


class Ridge(Method):
    """Training-free bridge: ridge regression from sender states to the receiver's own embeddings of the same words."""

    name = "ridge"
    sender_sees = AS_THE_TASK_SAYS
    controls: tuple[str, ...] = SOFT_CONTROLS
    fits = True

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.controls = controls_of(self.message)

    @property
    def message(self) -> MessageSettings:
        """How its messages cross."""
        return self.parts.message or MessageSettings()

    @property
    def label(self) -> str:
        return f"{self.name}{self.message.suffix}"

    def fit(self, data: FitData) -> dict[str, Any]:
        texts = [[row.sender_prompt for row in rows] for rows in (data.train, data.validation)]
        sender, receiver = self.parts.sender, self.parts.receiver
        ends = BridgeEnds(sender_width=sender.width, receiver_width=receiver.width, receiver_rms=receiver.embedding_rms)
        self.bridge = LinearBridge(LinearConfig(), ends).to(receiver.device).eval()
        return fit_ridge(self.bridge, sender, receiver, train=texts[0], validation=texts[1])

    @torch.no_grad()
    def predict(self, examples: Sequence[Example], *, max_new_tokens: int, control: Control | None = None) -> list[Prediction]:
        if not hasattr(self, "bridge"):
            raise UsageError(
                "method 'ridge' is fitted by `latentwire compare` or telepathy/run_baselines.py, not loaded from a run"
            )
        channel = Channel(self.message, self.parts.receiver)
        make = partial(soft_tokens_of, self.parts.sender, self.bridge)
        return send_and_answer(make, channel, self, examples, max_new_tokens=max_new_tokens, control=control)
