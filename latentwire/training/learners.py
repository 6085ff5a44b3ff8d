"""What can be trained against a frozen language model: a bridge, a learned prompt, or adapters inside the model.

A learner says which parameters are trained, what the receiver reads for a row, and which soft tokens stand in it.
Everything else (order of rows, losses, validation, checkpoints, resuming) is the trainer's and the same for all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import nn

from latentwire.bridges.base import Bridge
from latentwire.data.task import Example
from latentwire.models.receiver import Receiver, SoftTokens
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

    def __init__(self, bridge: Bridge, receiver: Receiver, cache: FeatureCache) -> None:
        self.module: Bridge = bridge
        self.receiver, self.cache = receiver, cache

    def prompts(self, rows: Sequence[Example]) -> list[Prompt]:
        return [row.receiver_prompt for row in rows]

    def soft_tokens(self, rows: Sequence[Example]) -> SoftTokens:
        soft: SoftTokens = self.module(self.cache.states([row.sender_prompt for row in rows]))
        return soft
