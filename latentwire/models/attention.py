"""Attention of models in half precision on a CPU, where gradients lead through it.

torch's fused kernel takes several times as long to lead gradients back through bfloat16 and float16 as through float32
(``docs/performance.md``), so queries, keys and values are widened before it and the result is narrowed after it. Passes without
gradients, and models whose attention is another, are as they were.

Shapes: B rows, H heads, G heads of keys and values, T positions of one pass, `all` of them and those read before, d of a head.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)
#: the name under which transformers knows it
WIDENED = "latentwire_widened_sdpa"
_HALF = (torch.bfloat16, torch.float16)


def with_widened_attention(model: Model) -> Model:
    """The model of transformers, in place, with attention in float32 wherever gradients lead through it in half precision.

    For models on a CPU whose attention is torch's ``scaled_dot_product_attention``; others are left alone.
    """
    whole: Any = model
    if whole.device.type == "cpu" and whole.dtype in _HALF and whole.config._attn_implementation == "sdpa":
        from transformers import AttentionInterface, AttentionMaskInterface
        from transformers.masking_utils import sdpa_mask

        AttentionInterface.register(WIDENED, _widened)
        AttentionMaskInterface.register(WIDENED, sdpa_mask)
        whole.set_attn_implementation(WIDENED)
    return model


def _widened(
    module: nn.Module,
    query: Float[Tensor, "B H T d"],
    key: Float[Tensor, "B G all d"],
    value: Float[Tensor, "B G all d"],
    attention_mask: Tensor | None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """What ``sdpa`` of transformers gives, [B, T, H, d]."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    dtype = query.dtype
    if torch.is_grad_enabled() and query.requires_grad and dtype in _HALF:
        query, key, value = query.float(), key.float(), value.float()
        if attention_mask is not None and attention_mask.is_floating_point():
            attention_mask = attention_mask.float()
    attended, weights = sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
    return attended.to(dtype), weights
