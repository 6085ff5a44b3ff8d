"""The sender's own answer, sent as text: the honest floor where the sender can answer by itself."""

from __future__ import annotations

from collections.abc import Sequence

from latentwire.data.task import Example, Task
from latentwire.methods.base import Control, Method, Prediction
from latentwire.methods.text_relay import read_notes


class AnswerText(Method):
    """The sender answers the question itself; the receiver reads that answer as text."""

    name = "answer_text"
    sender_sees = "context + question"
    writes = True

    def unsuitable(self, task: Task) -> str | None:
        if task.has_options:
            return f"task {task.name!r} has options; label_byte is the same for those"
        if task.hides_question:
            return f"the sender of task {task.name!r} does not see the question; use --set variant.sender_sees=all"
        return None

    def predict(self, examples: Sequence[Example], *, max_new_tokens: int, control: Control | None = None) -> list[Prediction]:
        prompts = [example.receiver_prompt_aware for example in examples]
        said = self.writer.generate(self.writer.prefix(prompts), max_new_tokens=max_new_tokens)
        return read_notes(self, examples, said, max_new_tokens=max_new_tokens)
