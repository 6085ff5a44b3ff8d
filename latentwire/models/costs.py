"""What a model costs before it is loaded: parameters counted on the meta device, bytes by part."""

from __future__ import annotations

import copy

import torch

from latentwire.models.source import ModelSource, explained


def causal_lm_params(source: ModelSource) -> int:
    """Parameters of the whole model, LM head counted once when tied."""
    from transformers import AutoModelForCausalLM

    with explained(source), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(source.config)
    return sum(parameter.numel() for parameter in model.parameters())


def sender_params(source: ModelSource, layer: int) -> int:
    """Parameters of the lower ``layer`` blocks with the embeddings: all that a sender loads."""
    from transformers import AutoModel

    config = copy.deepcopy(source.config)
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layer]
    config.num_hidden_layers = layer
    with explained(source), torch.device("meta"):
        model = AutoModel.from_config(config)
    return sum(parameter.numel() for name, parameter in model.named_parameters() if name != "norm.weight")


def kv_cache_bytes(source: ModelSource, tokens: int, dtype: torch.dtype) -> int:
    """Keys and values of ``tokens`` positions in one row."""
    config = source.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * int(config.num_hidden_layers) * int(config.num_key_value_heads) * int(head_dim) * tokens * dtype.itemsize
