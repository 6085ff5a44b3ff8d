from __future__ import annotations

import pytest
import torch

from latentwire.models.costs import causal_lm_params, kv_cache_bytes, sender_params
from latentwire.models.receiver import load_receiver
from latentwire.models.sender import load_sender
from latentwire.models.source import resolve
from latentwire.prompts import Prompt
from tests.conftest import FAMILIES

NANO = ("nano-llama", "nano-mistral")


def _location(name: str, family_folder: dict[str, str]) -> str:
    return family_folder.get(name, name)


@pytest.mark.parametrize("name", [*FAMILIES, *NANO])
def test_counted_receiver_is_what_is_loaded(family_folder: dict[str, str], name: str) -> None:
    location = _location(name, family_folder)
    loaded = sum(parameter.numel() for parameter in load_receiver(location).model.parameters())
    assert causal_lm_params(resolve(location)) == loaded


@pytest.mark.parametrize("layer", [0, 1, 4])
@pytest.mark.parametrize("name", [*FAMILIES, *NANO])
def test_counted_sender_is_what_is_loaded(family_folder: dict[str, str], name: str, layer: int) -> None:
    location = _location(name, family_folder)
    loaded = sum(parameter.numel() for parameter in load_sender(location, layer=layer).model.parameters())
    assert sender_params(resolve(location), layer) == loaded


def test_counting_leaves_the_config_alone(family_folder: dict[str, str]) -> None:
    source = resolve(family_folder["gemma3"])
    before = source.config.to_dict()
    sender_params(source, 1)
    assert source.config.to_dict() == before


@pytest.mark.parametrize("name", [*FAMILIES, *NANO])
def test_counted_cache_is_what_a_pass_leaves_behind(family_folder: dict[str, str], name: str) -> None:
    receiver = load_receiver(_location(name, family_folder))
    prefix = receiver.prefix([Prompt("Maria left 47 apples", " in Lisbon.")])
    with torch.no_grad():
        cache = receiver.model(inputs_embeds=prefix.embeddings, use_cache=True).past_key_values
    held = sum(tensor.numel() * tensor.element_size() for layer in cache.layers for tensor in (layer.keys, layer.values))
    assert kv_cache_bytes(receiver.source, prefix.mask.shape[1], torch.float32) == held
