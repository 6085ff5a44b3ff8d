"""Text relay: the sender writes a note token by token, the receiver reads it. What soft tokens are meant to replace."""

from __future__ import annotations

from collections.abc import Sequence

from latentwire.data.task import Example
from latentwire.methods.base import AS_THE_TASK_SAYS, Control, Method, Prediction, text_size
from latentwire.prompts import Prompt


class TextRelay(Method):
    """The sender writes a note of at most n tokens, the receiver reads it and the question."""

    name = "text_relay"
    sender_sees = AS_THE_TASK_SAYS
    writes = True
    #: behind the context, what makes the sender write
    cue = "\nNote:"

    @property
    def most_tokens(self) -> int:
        """Length of a note at most, in sender tokens."""
        return self.parts.settings.relay_tokens

    def write_notes(self, examples: Sequence[Example]) -> list[str]:
        """Greedy notes of at most ``most_tokens`` sender tokens."""
        prompts = [Prompt(example.sender_prompt + self.cue, "") for example in examples]
        return self.writer.generate(self.writer.prefix(prompts), max_new_tokens=self.most_tokens)

    def predict(self, examples: Sequence[Example], *, max_new_tokens: int, control: Control | None = None) -> list[Prediction]:
        notes = self.write_notes(examples)
        return read_notes(self, examples, notes, max_new_tokens=max_new_tokens)


def read_notes(method: Method, examples: Sequence[Example], notes: Sequence[str], *, max_new_tokens: int) -> list[Prediction]:
    """What the receiver answers with a text of ``notes`` where the message stands."""
    reader = method.parts.receiver
    prompts = [example.receiver_prompt for example in examples]
    found = method.answers(
        examples,
        prompts,
        lambda asked: reader.prefix([prompt.with_text(note) for prompt, note in zip(asked, notes, strict=True)]),
        max_new_tokens=max_new_tokens,
    )
    return [answer.sent(*text_size(reader, note)) for answer, note in zip(found, notes, strict=True)]
