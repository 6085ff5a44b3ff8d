"""Text relay: the sender writes a note token by token, the receiver reads it. What soft tokens are meant to replace."""

from __future__ import annotations

from collections.abc import Sequence

from latentwire.data.task import Example
from latentwire.errors import UsageError
from latentwire.methods.base import Control, Method, Prediction, answers, text_size
from latentwire.prompts import Prompt

NOTE_CUE = "\nNote:"


class TextRelay(Method):
    """A note written by the sender, read by the receiver."""

    name = "text_relay"
    sender_sees = "context"
    receiver_sees = "question"

    def write_notes(self, examples: Sequence[Example]) -> list[str]:
        """Greedy notes of at most ``relay_tokens`` sender tokens."""
        writer = self.parts.sender.writer
        if writer is None:
            raise UsageError("text_relay needs a sender that can write; load it with load_sender(…, full=True)")
        prompts = [Prompt(example.sender_prompt + NOTE_CUE, "") for example in examples]
        return writer.generate(writer.prefix(prompts), max_new_tokens=self.parts.relay_tokens)

    def predict(self, examples: Sequence[Example], *, max_new_tokens: int, control: Control | None = None) -> list[Prediction]:
        receiver = self.parts.receiver
        notes = self.write_notes(examples)
        prompts = [example.receiver_prompt.with_text(note) for example, note in zip(examples, notes, strict=True)]
        found = answers(receiver, receiver.prefix(prompts), prompts, examples, max_new_tokens=max_new_tokens)
        return [Prediction(*answer, *text_size(receiver, note)) for answer, note in zip(found, notes, strict=True)]
