"""Ensemble: both models read the text, their beliefs about the options are averaged. Two full reads, no message."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from latentwire.data.task import Example
from latentwire.methods.base import Control, Method, Parts, Prediction, text_size
from latentwire.methods.receiver_text import ReceiverText
from latentwire.methods.sender_text import SenderText


class Ensemble(Method):
    """Sender and receiver both read the text; their probabilities of the options are averaged."""

    name = "ensemble"
    sender_sees = "context + question"
    receiver_sees = "context + question"
    writes = True
    needs_options = True

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        # probabilities are averaged, so every score must be exact
        exact = replace(parts, settings=parts.settings.model_copy(update={"option_scores": "all"}))
        self.readers = (SenderText(exact), ReceiverText(exact))

    def predict(self, examples: Sequence[Example], *, max_new_tokens: int, control: Control | None = None) -> list[Prediction]:
        import torch

        both = [reader.predict(examples, max_new_tokens=max_new_tokens) for reader in self.readers]
        result = []
        for example, *pair in zip(examples, *both, strict=True):
            beliefs = torch.stack([torch.tensor(prediction.scores).log_softmax(-1) for prediction in pair])
            # logarithms throughout: of 77 options most beliefs are too small for a float32
            average = beliefs.logsumexp(dim=0) - math.log(len(pair))
            option = int(average.argmax())
            # the sender's beliefs, as float32, and the text that the receiver reads
            tokens, size = text_size(self.parts.receiver, example.sender_prompt)
            size += len(example.options) * 4
            result.append(Prediction(example.options[option], option, tuple(average.tolist()), tokens, size))
        return result
