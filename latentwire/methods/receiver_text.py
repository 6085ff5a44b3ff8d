"""The receiver reads the context itself: the ceiling for what a perfect channel could bring, and its price."""

from __future__ import annotations

from collections.abc import Sequence

from latentwire.data.task import Example
from latentwire.methods.base import Control, Method, Prediction, answers, text_size


class ReceiverText(Method):
    """The context as text, read by the receiver."""

    name = "receiver_text"
    sender_sees = "nothing"
    receiver_sees = "context + question"

    def predict(self, examples: Sequence[Example], *, max_new_tokens: int, control: Control | None = None) -> list[Prediction]:
        receiver = self.parts.receiver
        prompts = [example.receiver_prompt_aware for example in examples]
        found = answers(receiver, receiver.prefix(prompts), prompts, examples, max_new_tokens=max_new_tokens)
        sizes = [text_size(receiver, example.sender_prompt) for example in examples]
        return [Prediction(*answer, *size) for answer, size in zip(found, sizes, strict=True)]
