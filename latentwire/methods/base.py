"""What every method is: something that predicts the answers of examples with the loaded models.

Shapes: B rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from latentwire.bridges.base import Bridge
from latentwire.data.task import Example
from latentwire.models.receiver import Prefix, Receiver
from latentwire.models.sender import Sender
from latentwire.prompts import Prompt


@dataclass(frozen=True)
class Parts:
    """The loaded models a method may use."""

    sender: Sender
    receiver: Receiver
    bridge: Bridge | None = None
    relay_tokens: int = 64


@dataclass(frozen=True)
class Prediction:
    """One answer. ``option`` and ``scores`` (nats, one per option) where the task has options.

    ``message_tokens`` and ``message_bytes`` are what crossed the channel for this row, measured.
    """

    text: str
    option: int | None
    scores: tuple[float, ...] | None
    message_tokens: int
    message_bytes: int


class Method(ABC):
    """Base class of all methods. ``sender_sees`` and ``receiver_sees`` go into every result row."""

    name: ClassVar[str]
    sender_sees: ClassVar[str]
    receiver_sees: ClassVar[str]
    #: it has trained parts, so another seed gives another result; all others run once whatever the number of seeds
    seeded: ClassVar[bool] = False
    #: nothing of a row arrives but its question, so one answer to all rows is no fault
    blind: ClassVar[bool] = False
    #: controls of ``latentwire.evaluation.controls`` that make sense for this method
    controls: ClassVar[tuple[str, ...]] = ()

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    @property
    def label(self) -> str:
        """The name in result rows; the bridge adds which one it is."""
        return self.name

    @abstractmethod
    def predict(self, examples: Sequence[Example], *, max_new_tokens: int, control: Control | None = None) -> list[Prediction]:
        """Answers in the order of the examples. ``control`` destroys the information in the message."""


@dataclass(frozen=True)
class Control:
    """A control as a method applies it: which texts the sender reads instead, and what is done to the soft tokens."""

    name: str
    replace_texts: Callable[[Sequence[Example]], list[str]] | None = None
    replace_vectors: Callable[..., object] | None = None


def answers(
    receiver: Receiver,
    prefix: Prefix,
    prompts: Sequence[Prompt],
    examples: Sequence[Example],
    *,
    max_new_tokens: int,
) -> list[tuple[str, int | None, tuple[float, ...] | None]]:
    """(text, option, scores) per row: options are scored in one pass, free answers decoded greedily."""
    import torch

    if all(example.options for example in examples):
        with torch.no_grad():
            scores = receiver.score_options(prefix, receiver.tries(prompts, [example.options for example in examples]))
        chosen = [int(score.argmax()) for score in scores]
        return [
            (example.options[option], option, tuple(score.tolist()))
            for example, option, score in zip(examples, chosen, scores, strict=True)
        ]
    return [(text, None, None) for text in receiver.generate(prefix, max_new_tokens=max_new_tokens)]


def text_size(receiver: Receiver, text: str) -> tuple[int, int]:
    """(receiver tokens, UTF-8 bytes) of a message of plain text."""
    return len(receiver.tokenizer(text, add_special_tokens=False)["input_ids"]), len(text.encode())
