"""The bridge: sender states become soft tokens, the receiver answers from them without having seen the context."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from latentwire.data.task import Example
from latentwire.errors import UsageError
from latentwire.methods.base import Control, Method, Parts, Prediction, answers


class BridgeMethod(Method):
    """The trained bridge of ``Parts``."""

    name = "bridge"
    sender_sees = "context"
    receiver_sees = "question"
    seeded = True
    controls = ("zero", "shuffled", "noise")

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        if parts.bridge is None:
            raise UsageError("method 'bridge' needs a trained bridge; train one with `latentwire train` or run `make demo`")
        self.bridge = parts.bridge

    @property
    def label(self) -> str:
        return f"bridge:{self.bridge.config.name}"

    @torch.no_grad()
    def predict(self, examples: Sequence[Example], *, max_new_tokens: int, control: Control | None = None) -> list[Prediction]:
        receiver = self.parts.receiver
        texts = [example.sender_prompt for example in examples]
        if control is not None and control.replace_texts is not None:
            texts = control.replace_texts(examples)
        soft = self.bridge(self.parts.sender.read(texts))
        if control is not None and control.replace_vectors is not None:
            soft = control.replace_vectors(soft, [example.id for example in examples])
        prompts = [example.receiver_prompt for example in examples]
        found = answers(receiver, receiver.prefix(prompts, soft), prompts, examples, max_new_tokens=max_new_tokens)
        tokens, sizes = soft.tokens_per_row.tolist(), soft.bytes_per_row(receiver.dtype).tolist()
        return [Prediction(*answer, count, size) for answer, count, size in zip(found, tokens, sizes, strict=True)]
