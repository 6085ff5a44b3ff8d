"""What a model costs before it is loaded: parameters counted on the meta device, bytes by part."""

from __future__ import annotations

import copy

import torch
from torch import nn

from latentwire.models.device import QUANTISED, pick_dtype
from latentwire.models.source import ModelSource, explained


def causal_lm_bytes(source: ModelSource, dtype: str | None, device: torch.device) -> int:
    """Bytes of the whole model loaded as ``dtype`` (``latentwire.models.device.loading``), a tied LM head counted once."""
    from transformers import AutoModelForCausalLM

    with explained(source), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(source.config)
    return _weight_bytes(model, dtype, device)


def sender_bytes(source: ModelSource, layer: int, dtype: str | None, device: torch.device) -> int:
    """Bytes of the weights of the lower ``layer`` blocks with the embeddings, loaded as ``dtype``: all that a sender loads."""
    from transformers import AutoModel

    config = copy.deepcopy(source.config)
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layer]
    config.num_hidden_layers = layer
    with explained(source), torch.device("meta"):
        model = AutoModel.from_config(config)
    model.norm = nn.Identity()
    return _weight_bytes(model, dtype, device)


def _weight_bytes(model: nn.Module, dtype: str | None, device: torch.device) -> int:
    """Linear layers but for the LM head may be quantised; all else is in the format of the activations."""
    count = sum(parameter.numel() for parameter in model.parameters())
    linear = sum(part.weight.numel() for name, part in model.named_modules() if isinstance(part, nn.Linear) and name != "lm_head")
    small = linear if dtype in QUANTISED else 0
    return int(small * QUANTISED.get(dtype or "", 0)) + (count - small) * pick_dtype(dtype, device).itemsize
