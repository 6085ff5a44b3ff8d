"""The receiver reads the context itself: the ceiling for what a perfect channel could bring, and its price."""

from __future__ import annotations

from collections.abc import Sequence

from latentwire.data.task import Example
from latentwire.methods.base import Control, Method, Prediction, text_size
from latentwire.models.receiver import Receiver
from latentwire.prompts import Prompt


class ReceiverText(Method):
    """The receiver reads context and question as text, zero-shot."""

    name = "receiver_text"
    receiver_sees = "context + question"

    @property
    def reader(self) -> Receiver:
        """The model that reads and answers."""
        return self.parts.receiver

    def prompts(self, examples: Sequence[Example]) -> list[Prompt]:
        """What it reads."""
        return [example.receiver_prompt_aware for example in examples]

    def predict(self, examples: Sequence[Example], *, max_new_tokens: int, control: Control | None = None) -> list[Prediction]:
        reader = self.reader
        found = self.answers(
            examples, self.prompts(examples), reader.prefix, max_new_tokens=max_new_tokens, reader=reader, aware=True
        )
        return [answer.sent(*self.message_size(example)) for answer, example in zip(found, examples, strict=True)]

    def message_size(self, example: Example) -> tuple[int, int]:
        """(receiver tokens, bytes) of what crosses to whoever answers: the text."""
        return text_size(self.reader, example.sender_prompt)
