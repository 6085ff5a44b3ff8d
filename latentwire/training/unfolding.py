"""Where unfolding begins: with vectors in whose places the receiver takes notice of soft tokens.

In the place of a vector drawn at random the receiver's first block often looks anywhere but at the soft token before it. Then no
gradient says what could be read there, and the place stays deaf all through a training: of four such vectors one still was after
1,500 steps, and the symbol that belonged there was the one most often wrong (``docs/capacity.md``). So the vectors are moved first,
without data and without a bridge, until the receiver's states in their places differ as much as they can from one random soft token
to another.

Shapes: G groups, N soft tokens that are compared, K soft tokens of a message, U unfolding vectors, D_r receiver width.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from latentwire.bridges.base import BridgeConfig
from latentwire.models.receiver import Receiver
from latentwire.models.sender import lower_blocks
from latentwire.models.soft_tokens import SoftTokens
from latentwire.prompts import Prompt

STEPS, LEARNING_RATE = 100, 0.05
GROUPS, COMPARED, SOFT_TOKENS = 4, 8, 3


def listening_vectors(receiver: Receiver, config: BridgeConfig, *, seed: int) -> Float[Tensor, "U D_r"]:
    """Vectors to begin ``bridge.unfold`` with, in units of the scale of the receiver's embeddings; the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    vectors = _scaled(torch.randn(config.unfold, receiver.width, generator=generator)).to(receiver.device).requires_grad_()
    optimiser = torch.optim.Adam([vectors], lr=LEARNING_RATE)
    for _ in range(STEPS):
        noticed = notice(receiver, config, vectors, generator=generator)
        # the logarithm, so that no place is given up for the sake of another
        vectors.grad = torch.autograd.grad(-noticed.log().sum(), vectors)[0]
        optimiser.step()
        with torch.no_grad():
            vectors.copy_(_scaled(vectors))
    return vectors.detach()


def notice(
    receiver: Receiver, config: BridgeConfig, vectors: Float[Tensor, "U D_r"], *, generator: torch.Generator
) -> Float[Tensor, " U"]:
    """How much the receiver's states behind its first block tell random soft tokens apart in each vector's place.

    Of messages that differ in the last soft token alone: variance of the states in its vectors' places over their mean square.
    """
    messages = torch.randn(GROUPS, 1, SOFT_TOKENS, receiver.width, generator=generator).repeat(1, COMPARED, 1, 1)
    messages[:, :, -1] = torch.randn(GROUPS, COMPARED, receiver.width, generator=generator)
    soft = SoftTokens(
        (_scaled(messages).flatten(0, 1) * (receiver.embedding_rms * config.gain)).to(receiver.device),
        torch.ones(GROUPS * COMPARED, SOFT_TOKENS, dtype=torch.bool, device=receiver.device),
        stride=config.stride,
        unfold=vectors * receiver.embedding_rms,
    )
    prefix = receiver.prefix([Prompt("", "")] * len(soft.mask), soft, open_end=True)
    output = lower_blocks(receiver.model.get_decoder(), 1)(
        inputs_embeds=prefix.embeddings, attention_mask=prefix.mask.long(), position_ids=prefix.positions, use_cache=False
    )
    states = output.last_hidden_state[:, -len(vectors) :].float().unflatten(0, (GROUPS, COMPARED))
    noticed: Tensor = states.var(dim=1).sum(-1).mean(0) / states.pow(2).sum(-1).mean((0, 1))
    return noticed


def _scaled(vectors: Float[Tensor, "*B D_r"]) -> Float[Tensor, "*B D_r"]:
    """Vectors whose root mean square is 1."""
    return vectors * torch.rsqrt(vectors.pow(2).mean(-1, keepdim=True))
