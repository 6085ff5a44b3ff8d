"""The receiver alone: it sees the question and nothing else. What any channel must beat."""

from __future__ import annotations

from collections.abc import Sequence

from latentwire.data.task import Example
from latentwire.methods.base import Control, Method, Prediction


class ReceiverOnly(Method):
    """The receiver answers without any message."""

    name = "receiver_only"
    blind = True

    def predict(self, examples: Sequence[Example], *, max_new_tokens: int, control: Control | None = None) -> list[Prediction]:
        prompts = [example.receiver_prompt for example in examples]
        found = self.answers(examples, prompts, self.parts.receiver.prefix, max_new_tokens=max_new_tokens)
        return [answer.sent(0, 0) for answer in found]
