"""Chain-of-thought relay: the sender thinks aloud in text, the receiver reads the thoughts."""

from __future__ import annotations

from latentwire.methods.text_relay import TextRelay


class CotRelay(TextRelay):
    """The sender reasons step by step in text (Wei et al. 2022), the receiver reads that and the question."""

    name = "cot_relay"
    cue = "\nLet's think step by step."

    @property
    def most_tokens(self) -> int:
        return self.parts.settings.reasoning_tokens
