"""What can be trained against a frozen language model: a bridge, a learned prompt, or adapters inside the model.

A learner says which parameters are trained, what the receiver reads for a row, and which soft tokens stand in it.
Everything else (order of rows, losses, validation, checkpoints, resuming) is the trainer's and the same for all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import nn

from latentwire.bridges.base import Bridge
from latentwire.data.task import Example
from latentwire.messages.channel import Channel
from latentwire.models.receiver import Receiver, SoftTokens
from latentwire.models.sender import SenderStates
from latentwire.prompts import Prompt
from latentwire.training.features import FeatureCache


class Learner(ABC):
    """One trainable thing in front of, or inside, ``receiver``. ``module`` holds exactly its trained parameters."""

    receiver: Receiver
    module: nn.Module
    #: whether ``soft_tokens`` carries something about the row, so that another row's can take its place
    sends_messages = False

    @abstractmethod
    def prompts(self, rows: Sequence[Example]) -> list[Prompt]:
        """What the receiver reads."""

    def soft_tokens(self, rows: Sequence[Example]) -> SoftTokens | None:
        """What stands in the holes of the prompts; nothing unless told otherwise."""
        return None


class BridgeLearner(Learner):
    """A bridge: cached sender states become soft tokens, the receiver sees only the question."""

    sends_messages = True

    def __init__(self, bridge: Bridge, receiver: Receiver, cache: FeatureCache, *, token_dropout: float = 0.0) -> None:
        self.module: Bridge = bridge
        self.receiver, self.cache, self.token_dropout = receiver, cache, token_dropout
        self.channel = Channel(bridge.message, receiver)

    def prompts(self, rows: Sequence[Example]) -> list[Prompt]:
        return [row.receiver_prompt for row in rows]

    def soft_tokens(self, rows: Sequence[Example]) -> SoftTokens:
        texts = [row.sender_prompt for row in rows]
        read = self.cache.states(texts)
        if self.token_dropout and self.module.training:
            read = without_some(read, self.token_dropout)
        return self.channel.taught(self.module(read), texts)


def without_some(read: SenderStates, share: float) -> SenderStates:
    """The states with a random ``share`` of the tokens hidden, never all of a row: a bridge that must do without any
    single word does not learn rows by heart.
    """
    chances = torch.rand(read.mask.shape, device=read.mask.device).masked_fill(~read.mask, -1.0)
    kept = (chances >= share) | (chances == chances.amax(dim=1, keepdim=True))
    return SenderStates(read.states, read.mask & kept)
