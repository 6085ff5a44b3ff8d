"""``torch.compile`` for the passes of a model."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from latentwire.errors import UsageError

Forward = Callable[..., Any]
_COMPILERS = ("g++", "c++", "clang++")


def compiled_forward(model: nn.Module, device: torch.device) -> Forward:
    """The model's forward pass, compiled for any shape at its first call; what it computes agrees to rounding.

    Raises:
        UsageError: on a CPU, where torch needs a C++ compiler and there is none.
    """
    if device.type == "cpu" and not any(map(shutil.which, _COMPILERS)):
        raise UsageError(f"torch.compile on a CPU needs a C++ compiler ({', '.join(_COMPILERS)}); install one or leave it out")
    compiled: Forward = torch.compile(model.forward, dynamic=True)
    return compiled


@contextmanager
def passing_through(model: nn.Module, forward: Forward | None) -> Iterator[None]:
    """The model with ``forward`` as its forward pass while the block runs; None leaves it as it is."""
    if forward is None:
        yield
        return
    before = model.forward
    model.forward = forward  # type: ignore[assignment]
    try:
        yield
    finally:
        model.forward = before  # type: ignore[method-assign]
