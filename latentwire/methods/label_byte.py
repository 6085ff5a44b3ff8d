"""Label byte: the sender's own label, sent as text. On tasks of few bits, the floor that any richer message must beat.

The label is the sender's zero-shot answer or its linear probe's, whichever is better on validation: a bridge that learned
from the train rows must be held against a label that did so too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from latentwire.data.task import Example
from latentwire.methods.base import Control, FitData, Method, Parts, Prediction
from latentwire.methods.linear_probe import LinearProbe
from latentwire.methods.sender_text import SenderText
from latentwire.methods.text_relay import read_notes


class LabelByte(Method):
    """The label the sender predicts (zero-shot or by its probe, chosen on validation), read by the receiver as text."""

    name = "label_byte"
    sender_sees = "context + question"
    fits = True
    answers_untrained = True
    writes = True
    needs_options = True

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.sources: dict[str, Method] = {"sender_text": SenderText(parts), "linear_probe": LinearProbe(parts)}

    def fit(self, data: FitData) -> dict[str, Any]:
        probe = self.sources["linear_probe"].fit(data)
        scores = {}
        for name, source in self.sources.items():
            found = source.predict(data.validation, max_new_tokens=1)
            scores[name] = sum(a.option == row.label for a, row in zip(found, data.validation, strict=True)) / len(found)
        self.chosen = max(scores, key=lambda name: scores[name])
        return {"label_from": self.chosen, "validation": scores, "probe": probe}

    def predict(self, examples: Sequence[Example], *, max_new_tokens: int, control: Control | None = None) -> list[Prediction]:
        labels = self.sources[self.chosen].predict(examples, max_new_tokens=max_new_tokens)
        return read_notes(self, examples, [label.text for label in labels], max_new_tokens=max_new_tokens)
