"""LoRA: low-rank adapters in the receiver, which reads the text. What training the receiver itself would give."""

from __future__ import annotations

from typing import Any

from latentwire.methods.base import FitData
from latentwire.methods.receiver_text import ReceiverText
from latentwire.models.receiver import Receiver
from latentwire.training.tuning import AdapterLearner, fit_learner


class Lora(ReceiverText):
    """The receiver with LoRA adapters (Hu et al. 2021) trained on the task, reading the text."""

    name = "lora"
    fits = True
    seeded = True
    weight_decomposed = False

    def fit(self, data: FitData) -> dict[str, Any]:
        settings = self.parts.settings
        self.learner = AdapterLearner(
            data.config.receiver, rank=settings.rank, dora=self.weight_decomposed, seed=data.seed, device=data.device,
            prompt_style=data.config.prompt_style,
        )  # fmt: skip
        return {"rank": settings.rank} | fit_learner(
            self.learner, data.config, data.train, data.validation, seed=data.seed, lr=settings.adapter_lr,
            steps=settings.tuning_steps, folder=data.folder, should_stop=data.should_stop,
        )  # fmt: skip

    @property
    def reader(self) -> Receiver:
        return self.learner.receiver
