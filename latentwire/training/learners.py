"""What can be trained against a frozen language model: a bridge, a packing, a learned prompt, or adapters inside the model.

A learner says which parameters are trained, what the receiver reads for a row, and which soft tokens stand in it.
Everything else (order of rows, losses, validation, checkpoints, resuming) is the trainer's and the same for all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from latentwire.bridges.base import Bridge
from latentwire.data.task import Example
from latentwire.errors import UsageError
from latentwire.messages.channel import Channel
from latentwire.models.receiver import Receiver
from latentwire.models.sender import SenderStates
from latentwire.models.soft_tokens import SoftTokens
from latentwire.prompts import Prompt
from latentwire.training.alignment import Alignment
from latentwire.training.packing import Notes, Packing

#: texts → the sender's states of them: ``FeatureCache.states``, or ``Sender.read`` where every text is read once
StatesReader = Callable[[Sequence[str]], SenderStates]


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

    def files_beside(self) -> dict[str, bytes]:
        """Files for the artefact's folder: what was learned beside the bridge and is worth keeping. Nothing by default."""
        return {}

    def align_loss(self, rows: Sequence[Example], soft: SoftTokens) -> Tensor:
        """How far soft tokens are from the receiver's embeddings of the same words. Raises ``UsageError`` where they have none."""
        raise UsageError("the objective 'align' is for bridges; leave it out")


class BridgeLearner(Learner):
    """A bridge: cached sender states become soft tokens, the receiver sees only the question."""

    sends_messages = True

    def __init__(
        self,
        bridge: Bridge,
        receiver: Receiver,
        states: StatesReader,
        *,
        token_dropout: float = 0.0,
        alignment: Alignment | None = None,
    ) -> None:
        self.module: nn.Module = bridge
        self.bridge, self.receiver, self.states = bridge, receiver, states
        self.token_dropout, self.alignment = token_dropout, alignment
        self.channel = Channel(bridge.message, receiver)

    def prompts(self, rows: Sequence[Example]) -> list[Prompt]:
        return [row.receiver_prompt for row in rows]

    def soft_tokens(self, rows: Sequence[Example]) -> SoftTokens:
        texts = [row.sender_prompt for row in rows]
        read = self.states(texts)
        if self.token_dropout and self.module.training:
            read = without_some(read, self.token_dropout)
        return self.channel.taught(self.bridge(read), texts)

    def align_loss(self, rows: Sequence[Example], soft: SoftTokens) -> Tensor:
        if self.alignment is None:
            return super().align_loss(rows, soft)
        return self.alignment.loss(rows, soft)


class PackingLearner(Learner):
    """A packing in the place of a bridge: the receiver is asked about packed notes.

    Args:
        redrawn: share of the messages, in training, in which each record's number of soft tokens is drawn.
    """

    sends_messages = True

    def __init__(self, packing: Packing, notes: Notes, *, redrawn: float = 0.0) -> None:
        self.module, self.packing, self.notes, self.receiver = packing, packing, notes, notes.receiver
        self.redrawn = redrawn

    def prompts(self, rows: Sequence[Example]) -> list[Prompt]:
        return [row.receiver_prompt for row in rows]

    def soft_tokens(self, rows: Sequence[Example]) -> SoftTokens:
        return self.notes.packed(self.packing, rows, redrawn=self.redrawn if self.packing.training else 0.0)


def without_some(read: SenderStates, share: float) -> SenderStates:
    """The states with a random ``share`` of the tokens hidden, never all of a row: a bridge that must do without any
    single word does not learn rows by heart.
    """
    chances = torch.rand(read.mask.shape, device=read.mask.device).masked_fill(~read.mask, -1.0)
    kept = (chances >= share) | (chances == chances.amax(dim=1, keepdim=True))
    return SenderStates(read.states, read.mask & kept)
