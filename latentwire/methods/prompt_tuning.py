"""Prompt tuning: learned tokens before the text. The same for every row, so they say nothing about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from latentwire.data.task import Example
from latentwire.methods.base import Control, FitData, Method, Prediction, text_size
from latentwire.training.tuning import PromptLearner, fit_learner


class PromptTuning(Method):
    """Learned tokens (Lester et al. 2021) before context and question; the receiver reads the text."""

    name = "prompt_tuning"
    receiver_sees = "learned tokens + context + question"
    fits = True
    seeded = True
    aware: ClassVar[bool] = True

    def fit(self, data: FitData) -> dict[str, Any]:
        settings = self.parts.settings
        self.learner = PromptLearner(self.parts.receiver, tokens=settings.virtual_tokens, aware=self.aware, seed=data.seed)
        return {"virtual_tokens": settings.virtual_tokens} | fit_learner(
            self.learner, data.config, data.train, data.validation, seed=data.seed, lr=settings.prompt_lr,
            steps=settings.tuning_steps, folder=data.folder, should_stop=data.should_stop,
        )  # fmt: skip

    @torch.no_grad()
    def predict(self, examples: Sequence[Example], *, max_new_tokens: int, control: Control | None = None) -> list[Prediction]:
        reader, soft = self.parts.receiver, self.learner.soft_tokens(examples)
        found = self.answers(
            examples,
            self.learner.prompts(examples),
            lambda asked: reader.prefix(asked, soft),
            max_new_tokens=max_new_tokens,
            aware=self.aware,
        )
        # the learned tokens stay where they are; what crosses is the text, where the receiver reads it
        sizes = [text_size(reader, example.sender_prompt) if self.aware else (0, 0) for example in examples]
        return [answer.sent(*size) for answer, size in zip(found, sizes, strict=True)]
