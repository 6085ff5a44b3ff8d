"""The short way: send a text, ask about it.

>>> wire = Telepathy.from_pretrained("runs/demo/bridge")
>>> message = wire.send(["Maria left 47 apples in Lisbon."])
>>> wire.ask(message, ["How many apples?"])
['47']
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from latentwire.bridges.base import Bridge
from latentwire.errors import DataError, MismatchError, UsageError
from latentwire.messages.channel import Channel, Delivery
from latentwire.messages.settings import Precision, as_precision
from latentwire.models.chat import style_name
from latentwire.models.receiver import Receiver, load_receiver
from latentwire.models.sender import Sender, load_sender
from latentwire.models.soft_tokens import SoftTokens
from latentwire.prompts import Prompt, not_text


@dataclass(frozen=True)
class Message:
    """Messages for a batch of contexts, ready to be asked about.

    ``soft`` is what the receiver reads; ``packed`` and ``verbatim`` are what crosses for each context, ``message_bytes`` what both
    weigh together.
    """

    soft: SoftTokens
    packed: list[bytes]
    verbatim: list[str]
    message_bytes: list[int]
    #: number format of the packed soft tokens
    precision: str

    @staticmethod
    def of(delivery: Delivery) -> Message:
        """The messages of a delivery."""
        return Message(delivery.soft, list(delivery.packed), list(delivery.verbatim), list(delivery.message_bytes), delivery.form)

    @staticmethod
    def joined(messages: Sequence[Message]) -> Message:
        """The messages of several senders to one receiver as one, in this order. They weigh what they weighed apart.

        Raises:
            UsageError: there is none. MismatchError: they are for different numbers of rows or receivers of different widths.
        """
        if not messages:
            raise UsageError("joined takes at least one message, for example Message.joined([wire.send(a), other.send(b)])")
        soft = SoftTokens.joined([message.soft for message in messages])
        return Message(
            soft,
            [b"".join(parts) for parts in zip(*(message.packed for message in messages), strict=True)],
            list(soft.verbatim) or [""] * len(soft.vectors),
            [sum(parts) for parts in zip(*(message.message_bytes for message in messages), strict=True)],
            "+".join(dict.fromkeys(message.precision for message in messages)),
        )

    def __len__(self) -> int:
        return len(self.soft.vectors)

    @property
    def soft_tokens(self) -> list[int]:
        """Number of soft tokens of each context."""
        counts: list[int] = self.soft.tokens_per_row.tolist()
        return counts


class Telepathy:
    """A sender, a bridge and a receiver, loaded and checked against each other.

    ``precision``: number format of the messages; None takes what the bridge was trained with.
    """

    def __init__(self, sender: Sender, bridge: Bridge, receiver: Receiver, *, precision: Precision | None = None) -> None:
        chosen = bridge.message.precision if precision is None else as_precision(precision)
        if bridge.pair is None:
            raise MismatchError("this bridge does not say which models it connects; save it from a training run")
        bridge.pair.check_models(sender, receiver)
        self.sender, self.bridge, self.receiver, self.pair = sender, bridge, receiver, bridge.pair
        self.channel = Channel(bridge.message.model_copy(update={"precision": chosen}), receiver)

    @classmethod
    def from_pretrained(
        cls,
        location: str | Path,
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        sender: str | None = None,
        receiver: str | None = None,
        precision: Precision | None = None,
    ) -> Telepathy:
        """Loads the bridge in a folder or Hub repository with the two models named in its config.

        ``sender`` and ``receiver`` may name the same models at another place (a local copy).

        Raises:
            ArtefactError: the artefact is missing, cut or corrupt. MismatchError: the models are not those it was
            trained for; the message names both.
        """
        bridge = Bridge.from_pretrained(location, revision=revision)
        if bridge.pair is None:
            raise MismatchError(
                f"the bridge at {str(location)!r} does not say which models it connects; save it from a training run"
            )
        pair = bridge.pair
        loaded_sender = load_sender(
            sender or pair.sender.name,
            layer=pair.sender_layer,
            revision=pair.sender.revision,
            device=device,
            dtype=dtype,
            prompt_style=style_name(pair.sender_style),
        )
        loaded_receiver = load_receiver(
            receiver or pair.receiver.name,
            revision=pair.receiver.revision,
            device=device,
            dtype=dtype,
            prompt_style=style_name(pair.receiver_style),
        )
        return cls(loaded_sender, bridge.to(loaded_receiver.device), loaded_receiver, precision=precision)

    @torch.no_grad()
    def send(self, contexts: Sequence[str]) -> Message:
        """One message per context.

        Raises ``DataError`` for an empty context or one longer than the sender reads, ``UsageError`` for what is no list of texts.
        """
        if isinstance(contexts, str) or not contexts:
            raise UsageError("send takes a non-empty list of texts, for example wire.send(['Maria left 47 apples in Lisbon.'])")
        texts = [self.pair.sender_prompt.replace("{context}", text) for text in contexts]
        soft = self.bridge(self.sender.read(texts))
        return Message.of(self.channel.deliver(self.channel.written(soft, texts)))

    def ask(self, message: Message, questions: Sequence[str], *, max_new_tokens: int = 64) -> list[str]:
        """One answer per context; give one question for each, or a single one for all.

        Raises ``UsageError`` for any other number, ``DataError`` for what is no text.
        """
        if isinstance(questions, str):
            questions = [questions]
        if len(questions) == 1:
            questions = list(questions) * len(message)
        if len(questions) != len(message):
            raise UsageError(f"{len(message)} contexts were sent, {len(questions)} questions asked; give one question per context")
        for number, question in enumerate(questions):
            if not question.strip():
                raise UsageError(f"question {number} is empty; ask something, for example 'How many apples?'")
            if why := not_text(question):
                raise DataError(f"question {number} {why}; mend it")
        before, _, after = self.pair.receiver_prompt.partition("{message}")
        prompts = [Prompt(before, after.replace("{question}", question)) for question in questions]
        return self.receiver.generate(self.receiver.prefix(prompts, message.soft), max_new_tokens=max_new_tokens)
