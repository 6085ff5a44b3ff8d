"""DoRA: weight-decomposed adapters in the receiver, which reads the text."""

from __future__ import annotations

from latentwire.methods.lora import Lora


class Dora(Lora):
    """The receiver with DoRA adapters (Liu et al. 2024) trained on the task, reading the text."""

    name = "dora"
    weight_decomposed = True
