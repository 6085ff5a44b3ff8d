"""What every method is: something that predicts the answers of examples with the loaded models.

Shapes: B rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from latentwire.bridges.base import Bridge
from latentwire.config import RunConfig
from latentwire.data.task import Example, Task
from latentwire.messages.settings import MessageSettings
from latentwire.methods.settings import MethodSettings
from latentwire.models.batching import first_of_equals
from latentwire.models.receiver import Receiver
from latentwire.models.sender import Sender
from latentwire.models.soft_tokens import Prefix, SoftTokens
from latentwire.models.trie import OptionTrie
from latentwire.prompts import Prompt

#: in ``Method.sender_sees`` and ``receiver_sees``: what the task gives this model when nothing is added
AS_THE_TASK_SAYS = "task"


@dataclass(frozen=True)
class Parts:
    """The loaded models a method may use.

    ``bridge_name``: how the bridge is called where it is still to be trained. ``message``: how messages cross; None takes what the
    bridge was trained with.
    """

    sender: Sender
    receiver: Receiver
    bridge: Bridge | None = None
    bridge_name: str = ""
    message: MessageSettings | None = None
    settings: MethodSettings = field(default_factory=MethodSettings)


@dataclass(frozen=True)
class FitData:
    """What a method may learn from: the same rows for all methods of a comparison.

    ``folder`` is the method's own; a fit that was killed goes on from what it finds there.
    """

    task: Task
    train: Sequence[Example]
    validation: Sequence[Example]
    seed: int
    config: RunConfig
    folder: Path
    device: str | None = None
    say: Callable[[str], None] = lambda line: None
    should_stop: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Prediction:
    """One answer. ``option`` and ``scores`` (nats, one per option) where the task has options.

    ``option_by_text`` is the best option by length-normalised log-likelihood of its text, where its letter is scored else.
    ``message_tokens`` and ``message_bytes`` are what crossed the channel for this row, measured.
    """

    text: str
    option: int | None
    scores: tuple[float, ...] | None
    message_tokens: int
    message_bytes: int
    option_by_text: int | None = None


@dataclass(frozen=True)
class Answer:
    """A prediction before its message is weighed."""

    text: str
    option: int | None = None
    scores: tuple[float, ...] | None = None
    option_by_text: int | None = None

    def sent(self, tokens: int, size_bytes: int) -> Prediction:
        return Prediction(self.text, self.option, self.scores, tokens, size_bytes, self.option_by_text)


#: the controls that destroy a message of soft tokens
SOFT_CONTROLS = ("zero", "shuffled", "noise")


@dataclass(frozen=True)
class Control:
    """A control as a method applies it: which texts the sender reads instead, and what is done to the soft tokens."""

    name: str
    replace_texts: Callable[[Sequence[Example]], list[str]] | None = None
    replace_vectors: Callable[[SoftTokens, Sequence[str]], SoftTokens] | None = None


class Method(ABC):
    """Base class of all methods; its docstring's first line is what ``latentwire methods`` prints.

    Class attributes:
        sender_sees, receiver_sees: in words, for every result row.
        controls: those of ``latentwire.evaluation.controls`` that make sense.
        fits: it learns from train rows. answers_untrained: but what answers is a model that has not.
        seeded: the seed changes the result; others run once whatever the number of seeds.
        writes: the sender must be able to write text, so the whole model is loaded.
        needs_options: only for tasks that have options.
        blind: nothing of a row arrives but its question, so one answer to all rows is no fault.
    """

    name: ClassVar[str]
    sender_sees: ClassVar[str] = "nothing"
    receiver_sees: ClassVar[str] = AS_THE_TASK_SAYS
    controls: tuple[str, ...] = ()
    fits: ClassVar[bool] = False
    answers_untrained: ClassVar[bool] = False
    seeded: ClassVar[bool] = False
    writes: ClassVar[bool] = False
    needs_options: ClassVar[bool] = False
    blind: ClassVar[bool] = False

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    @property
    def label(self) -> str:
        """The name in result rows; the bridge adds which one it is."""
        return self.name

    def unsuitable(self, task: Task) -> str | None:
        """Why this method cannot answer ``task``, or None."""
        return f"task {task.name!r} has no options" if self.needs_options and not task.has_options else None

    def fit(self, data: FitData) -> dict[str, Any]:
        """Learns from the train rows, choosing on validation; returns what is worth keeping beside the predictions."""
        return {}

    def expect(self, examples: Sequence[Example], *, control: Control | None = None) -> None:
        """These examples will be predicted soon, with this control: a method may begin what needs no answer of the last ones."""
        return

    @abstractmethod
    def predict(self, examples: Sequence[Example], *, max_new_tokens: int, control: Control | None = None) -> list[Prediction]:
        """Answers in the order of the examples. ``control`` destroys the information in the message."""

    def answers(
        self,
        examples: Sequence[Example],
        prompts: Sequence[Prompt],
        see: Callable[[Sequence[Prompt]], Prefix],
        *,
        max_new_tokens: int,
        reader: Receiver | None = None,
        aware: bool = False,
    ) -> list[Answer]:
        """One answer per row: options are scored in one pass, free answers decoded greedily. Equal rows are read once.

        Args:
            see: puts the message (text, soft tokens or nothing) into prompts.
            reader: the model that answers; by default the receiver.
            aware: ``prompts`` show the options already, so their texts are scored behind the same prompts.
        """
        import torch

        reader = reader or self.parts.receiver
        if not all(example.options for example in examples):
            return [Answer(text) for text in _generated(reader, see(prompts), max_new_tokens)]
        tries = reader.tries(prompts, [example.options for example in examples])
        with torch.no_grad():
            scores = _scored(reader, see(prompts), tries, contenders=self.parts.settings.option_scores == "contenders")
            by_text = _options_by_text(reader, examples, prompts, see, aware=aware)
        chosen = [int(score.argmax()) for score in scores]
        return [
            Answer(example.options[option], option, tuple(score.tolist()), text_option)
            for example, option, score, text_option in zip(examples, chosen, scores, by_text, strict=True)
        ]

    @property
    def writer(self) -> Receiver:
        """The whole sender, for methods with ``writes``."""
        writer = self.parts.sender.writer
        if writer is None:
            raise ValueError(f"{self.name} needs a sender loaded with load_sender(…, full=True)")
        return writer


def _options_by_text(
    reader: Receiver,
    examples: Sequence[Example],
    prompts: Sequence[Prompt],
    see: Callable[[Sequence[Prompt]], Prefix],
    *,
    aware: bool,
) -> Sequence[int | None]:
    """Best option by log-likelihood per UTF-8 byte of its text, where a task scores letters (else None).

    The length that normalises is in bytes, as in the Language Model Evaluation Harness, so that tokenizers compare.
    """
    shown = prompts if aware else [example.receiver_prompt_options for example in examples]
    asked = [prompt for prompt in shown if prompt is not None]
    if len(asked) < len(examples) or any(example.receiver_prompt_options is None for example in examples):
        return [None] * len(examples)
    scores = _scored(reader, see(asked), reader.tries(asked, [example.option_texts for example in examples]))
    return [
        max(range(len(texts)), key=lambda index: float(score[index]) / max(1, len(texts[index].encode())))
        for score, texts in zip(scores, (example.option_texts for example in examples), strict=True)
    ]


def _generated(reader: Receiver, prefix: Prefix, max_new_tokens: int) -> list[str]:
    """Greedy answers; equal rows (the same note, no message at all) are read once."""
    first = first_of_equals(prefix.embeddings, prefix.mask)
    distinct = sorted(set(first))
    texts = dict(zip(distinct, reader.generate(prefix[distinct], max_new_tokens=max_new_tokens), strict=True))
    return [texts[row] for row in first]


def _scored(
    reader: Receiver, prefix: Prefix, tries: Sequence[OptionTrie], *, contenders: bool = False
) -> list[Float[Tensor, " _"]]:
    """Option scores, on the CPU; equal rows with the same trie are read once."""
    import torch

    first = first_of_equals(prefix.embeddings, prefix.mask)
    # a row whose options differ from those of its equal is read by itself
    first = [row if tries[row] is not tries[other] else other for row, other in enumerate(first)]
    distinct = sorted(set(first))
    score = reader.score_contenders if contenders else reader.score_options
    found = score(prefix[distinct], [tries[row] for row in distinct])
    # the device is waited for once, not row by row
    here = torch.cat(found).cpu().split([len(own) for own in found])
    scores = dict(zip(distinct, here, strict=True))
    return [scores[row] for row in first]


def text_size(receiver: Receiver, text: str) -> tuple[int, int]:
    """(receiver tokens, UTF-8 bytes) of a message of plain text."""
    return len(receiver.tokenizer(text, add_special_tokens=False)["input_ids"]), len(text.encode())
