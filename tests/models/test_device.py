"""Devices and number formats by name, and what the C library is asked to do with freed memory."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from latentwire.errors import UsageError
from latentwire.models import device
from latentwire.models.device import hardware_summary, keep_freed_memory, loading, pick_device, pick_dtype, placed
from latentwire.models.receiver import load_receiver

CPU = torch.device("cpu")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The calls of ``mallopt`` from here on, in an environment that sets nothing."""
    found: list[tuple[int, int]] = []
    for name in [name for name in os.environ if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"]:
        monkeypatch.delenv(name)
    library = SimpleNamespace(mallopt=lambda parameter, value: found.append((parameter, value)))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    keep_freed_memory.cache_clear()
    return found


@pytest.mark.skipif(os.name != "posix", reason="glibc is a posix library")
def test_a_model_on_a_cpu_has_freed_memory_kept_once(asked: list[tuple[int, int]]) -> None:
    for _ in range(2):
        placed(nn.Linear(2, 2), CPU)
    assert asked == list(device._MALLOPT)


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_an_allocator_that_was_set_is_left_alone(name: str, asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    placed(nn.Linear(2, 2), CPU)
    assert not asked


def test_another_c_library_is_left_alone(asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    placed(nn.Linear(2, 2), CPU)
    assert not asked


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "tpu!"])
def test_unusable_device_is_refused_by_name(name: str) -> None:
    with pytest.raises(UsageError, match=name):
        pick_device(name)


def test_environment_chooses_the_device_and_an_argument_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTWIRE_DEVICE", "nonsense")
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(UsageError, match="nonsense"):
        pick_device()


def test_unknown_dtype_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"^unknown dtype 'int2'; use float32, bfloat16, float16, int8, int4$"):
        pick_dtype("int2", pick_device("cpu"))


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_quantised_weights_need_a_gpu_and_bitsandbytes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=f"^dtype '{name}' needs a CUDA GPU and the device is 'cpu'; use float32 or"):
        load_receiver("nano-mistral", device="cpu", dtype=name)
    monkeypatch.setattr(device, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs bitsandbytes; in LatentWire's checkout, pip install -e '.\[quantised\]'"):
        loading(name, torch.device("cuda"))


def test_quantised_weights_are_asked_for_and_stay_where_they_were_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "find_spec", lambda name: object())
    arguments = loading("int8", torch.device("cuda:1"))
    assert arguments["dtype"] == torch.bfloat16
    assert arguments["device_map"] == {"": "cuda:1"}
    assert arguments["quantization_config"].load_in_8bit
    model = nn.Linear(2, 2)
    model.is_quantized = True  # type: ignore[assignment]
    assert placed(model, torch.device("meta")).weight.device.type == "cpu"


def test_results_name_the_processor_as_its_maker_does() -> None:
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    if not names:
        pytest.skip("this system does not say in /proc/cpuinfo what its processor is called")
    assert hardware_summary(CPU)["name"] == names[0]
