from __future__ import annotations

import pytest
import torch

from latentwire.models.costs import causal_lm_bytes, sender_bytes
from latentwire.models.receiver import load_receiver
from latentwire.models.sender import load_sender
from latentwire.models.source import resolve
from tests.conftest import FAMILIES

CPU = torch.device("cpu")
NANO = ("nano-llama", "nano-mistral")


def _location(name: str, family_folder: dict[str, str]) -> str:
    return family_folder.get(name, name)


@pytest.mark.parametrize("name", [*FAMILIES, *NANO])
def test_counted_receiver_is_what_is_loaded(family_folder: dict[str, str], name: str) -> None:
    location = _location(name, family_folder)
    loaded = sum(parameter.numel() for parameter in load_receiver(location).model.parameters())
    assert causal_lm_bytes(resolve(location), None, CPU) == 4 * loaded


@pytest.mark.parametrize("layer", [0, 1, 4])
@pytest.mark.parametrize("name", [*FAMILIES, *NANO])
def test_counted_sender_is_what_is_loaded(family_folder: dict[str, str], name: str, layer: int) -> None:
    location = _location(name, family_folder)
    loaded = sum(parameter.numel() for parameter in load_sender(location, layer=layer).model.parameters())
    assert sender_bytes(resolve(location), layer, "bfloat16", CPU) == 2 * loaded


def test_quantised_linear_layers_take_a_byte_or_half_of_one() -> None:
    source = resolve("nano-mistral")
    model = load_receiver("nano-mistral").model
    linear = sum(part.weight.numel() for part in model.model.modules() if isinstance(part, torch.nn.Linear))
    rest = 2 * (sum(parameter.numel() for parameter in model.parameters()) - linear)
    assert causal_lm_bytes(source, "int8", CPU) == rest + linear
    assert causal_lm_bytes(source, "int4", CPU) == rest + linear // 2


def test_counting_leaves_the_config_alone(family_folder: dict[str, str]) -> None:
    source = resolve(family_folder["gemma3"])
    before = source.config.to_dict()
    sender_bytes(source, 1, None, CPU)
    assert source.config.to_dict() == before
