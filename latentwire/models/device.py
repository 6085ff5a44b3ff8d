"""Devices and number formats by name."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from importlib.util import find_spec
from typing import Any, TypeVar

import torch
from torch import nn

from latentwire.errors import MissingPackageError, UsageError
from latentwire.provenance import processor_name

Model = TypeVar("Model", bound=nn.Module)
#: formats of the weights of linear layers alone (bytes of one weight); all else is in bfloat16
QUANTISED = {"int8": 1.0, "int4": 0.5}
_DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(requested: str | None = None) -> torch.device:
    """``requested``, else ``LATENTWIRE_DEVICE``, else the best present: cuda > mps > cpu.

    Raises ``UsageError`` for one that is not here.
    """
    name = requested or os.environ.get("LATENTWIRE_DEVICE") or _best_device()
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "mps", "cuda"):
        raise UsageError(f"unknown device {name!r}; use cpu, mps, cuda or cuda:N (--device or LATENTWIRE_DEVICE)")
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
    """The format of activations: the one named, else bfloat16 on accelerators and float32 on a CPU.

    Raises ``UsageError`` for a name that is none.
    """
    if name is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name in QUANTISED:
        return torch.bfloat16
    if name not in _DTYPES:
        raise UsageError(f"unknown dtype {name!r}; use {', '.join((*_DTYPES, *QUANTISED))}")
    return _DTYPES[name]


def loading(name: str | None, device: torch.device) -> dict[str, Any]:
    """Arguments with which ``from_pretrained`` loads weights in this format onto this device.

    ``int8`` is LLM.int8 (Dettmers et al. 2022), ``int4`` NF4 (Dettmers et al. 2023), both by bitsandbytes.

    Raises:
        UsageError: ``int8`` or ``int4`` without a CUDA GPU or without bitsandbytes.
    """
    dtype = pick_dtype(name, device)
    if name not in QUANTISED:
        return {"dtype": dtype}
    if device.type != "cuda":
        raise UsageError(f"dtype {name!r} needs a CUDA GPU and the device is {str(device)!r}; use float32 or bfloat16 here")
    if find_spec("bitsandbytes") is None:
        raise MissingPackageError(f"dtype {name!r}", "bitsandbytes", "quantised")
    from transformers import BitsAndBytesConfig

    config = (
        BitsAndBytesConfig(load_in_8bit=True)
        if name == "int8"
        else BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    )
    return {"dtype": dtype, "quantization_config": config, "device_map": {"": str(device)}}


#: parameters of glibc's ``mallopt`` (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD) and what they become: tensors of up to 32 MiB, the most it
#: takes, come from memory that is kept, of which a gibibyte may lie free
_MALLOPT = ((-3, 32 << 20), (-1, 1 << 30))


@cache
def keep_freed_memory() -> None:
    """Has the C library keep the memory of tensors on a CPU for the next ones.

    By default it gives larger pieces back to the system, which clears and maps them anew, up to a quarter of a pass's time. Whoever
    has set the allocator (``MALLOC_...``, ``GLIBC_TUNABLES``) or runs another C library than glibc keeps what there is.
    """
    if os.name != "posix" or any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in _MALLOPT:
            mallopt(parameter, value)


def placed(model: Model, device: torch.device) -> Model:
    """The model on the device; a quantised one was loaded onto it and must not be moved."""
    if device.type == "cpu":
        keep_freed_memory()
    return model if getattr(model, "is_quantized", False) else model.to(device)


def hardware_summary(device: torch.device) -> dict[str, object]:
    """What a result file says about the machine."""
    import platform

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name() or platform.machine()
    return {"device": str(device), "name": name, "threads": torch.get_num_threads(), "system": platform.system()}


def synchronise(device: torch.device) -> None:
    """Waits until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
