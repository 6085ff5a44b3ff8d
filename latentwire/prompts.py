"""A prompt with a hole for the message."""

from __future__ import annotations

from typing import NamedTuple


class Prompt(NamedTuple):
    """What the receiver reads: ``before``, then the message (soft tokens, text or nothing), then ``after``."""

    before: str
    after: str

    def with_text(self, message: str) -> Prompt:
        """The same prompt with a message of plain text in its place."""
        return Prompt(self.before + message, self.after)

    @property
    def text(self) -> str:
        """The prompt without any message."""
        return self.before + self.after


def not_text(text: str) -> str | None:
    """Why no tokenizer reads ``text``; None where all do."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"holds {text[error.start : error.end]!r}, which is no character of Unicode text"
    return None
