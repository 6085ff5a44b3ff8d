"""The receiver alone: it sees the question and nothing else. What any channel must beat."""

from __future__ import annotations

from collections.abc import Sequence

from latentwire.data.task import Example
from latentwire.methods.base import Control, Method, Prediction, answers


class ReceiverOnly(Method):
    """No message at all."""

    name = "receiver_only"
    sender_sees = "nothing"
    receiver_sees = "question"
    blind = True

    def predict(self, examples: Sequence[Example], *, max_new_tokens: int, control: Control | None = None) -> list[Prediction]:
        receiver = self.parts.receiver
        prompts = [example.receiver_prompt for example in examples]
        found = answers(receiver, receiver.prefix(prompts), prompts, examples, max_new_tokens=max_new_tokens)
        return [Prediction(text, option, scores, 0, 0) for text, option, scores in found]
