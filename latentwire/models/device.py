"""Devices and number formats by name."""

from __future__ import annotations

import os
from typing import Literal

import torch

from latentwire.errors import UsageError

DTypeName = Literal["float32", "bfloat16", "float16"]
_DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(requested: str | None = None) -> torch.device:
    """``requested``, else ``LATENTWIRE_DEVICE``, else the best present: cuda > mps > cpu."""
    name = requested or os.environ.get("LATENTWIRE_DEVICE") or _best_device()
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"unknown device {name!r}; use cpu, mps, cuda or cuda:N (--device or LATENTWIRE_DEVICE)") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device {name!r} asked for, but this machine shows {torch.cuda.device_count()} CUDA devices; try --device cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError(f"device {name!r} asked for, but Metal is not available here; try --device cpu")
    return device


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def pick_dtype(name: str | None, device: torch.device) -> torch.dtype:
    """The format named, else bfloat16 on accelerators and float32 on a CPU."""
    if name is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in _DTYPES:
        raise UsageError(f"unknown dtype {name!r}; use {', '.join(_DTYPES)}")
    return _DTYPES[name]


def hardware_summary(device: torch.device) -> dict[str, object]:
    """What a result file says about the machine."""
    import platform

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {"device": str(device), "name": name, "threads": torch.get_num_threads(), "system": platform.system()}
