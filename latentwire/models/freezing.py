"""Freezing: no parameter of a language model ever takes a gradient or drops out."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

Model = TypeVar("Model", bound=nn.Module)


def freeze(model: Model) -> Model:
    """Switches gradients and dropout off, in place, and returns the model."""
    return model.requires_grad_(False).eval()
