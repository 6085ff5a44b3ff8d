"""The ceiling: soft tokens optimised for single codes through the same frozen receiver, without sender or bridge.

K free vectors per code are fitted by Adam until the receiver writes the code (Kuratov et al. 2025, "Cramming 1568 tokens into a
single vector and back again", arXiv:2502.13063, who fit texts; codes cannot be guessed, so all that comes out was in the vectors).
It is what this receiver can be made to read from K soft tokens with so many steps; a bridge must do it for every code at once.

Shapes: B codes, K soft tokens, D_r receiver width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from latentwire.analysis.capacity.codes import Alphabet, Wording
from latentwire.analysis.capacity.reading import Code, Reading, code_ids, graded
from latentwire.models.receiver import Receiver
from latentwire.models.soft_tokens import SoftTokens
from latentwire.schema import Schema
from latentwire.seeding import stable_hash

#: a code is done when it is greedy-exact and at most this share of its bits is missing
MISSING_SHARE = 0.05
#: the growing lengths, about a third more each time
GROWTH = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)


class CeilingSettings(Schema):
    """How hard the ceiling is looked for. ``norm``: ``free``, or ``kept`` at that of a bridge's soft tokens."""

    soft_tokens: tuple[int, ...] = (1, 2, 4, 8)
    codes: int = Field(16, ge=1)
    steps: int = Field(500, ge=1)
    lr: float = Field(0.3, gt=0, description="Adam, in units of the root mean square of the receiver's embeddings")
    norm: Literal["free", "kept"] = "free"
    seed: int = 0


@dataclass(frozen=True)
class Fitted:
    """A code's best soft tokens: how the receiver reads them, the steps they took, and their scale over the embeddings'."""

    reading: Reading
    steps: int
    rms_ratio: float


def fit_codes(
    receiver: Receiver,
    wording: Wording,
    alphabet: Alphabet,
    codes: Sequence[Code],
    soft_tokens: int,
    settings: CeilingSettings,
    *,
    scale: float | None = None,
    tick: Callable[[int], None] = lambda steps: None,
) -> list[Fitted]:
    """Fits ``soft_tokens`` vectors to each code; all codes at once, each leaving as soon as it is done.

    Args:
        scale: root mean square of a soft token, where it starts and, with ``norm: kept``, stays; default: that of the
            receiver's embedding table.
        tick: called after every step with its number.
    """
    unit = scale or receiver.embedding_rms
    answers = code_ids(receiver, wording, codes)
    vectors = _start(receiver, codes, soft_tokens, settings.seed)
    # one parameter per code: Adam leaves those alone that got no gradient
    optimiser = torch.optim.Adam(vectors, lr=settings.lr)
    best: list[Fitted | None] = [None] * len(codes)
    running = list(range(len(codes)))
    for step in range(settings.steps + 1):
        free = torch.stack([vectors[row] for row in running])
        soft = scaled(free, unit, kept=settings.norm == "kept")
        mask = torch.ones(soft.shape[:2], dtype=torch.bool, device=soft.device)
        prefix = receiver.prefix([wording.asked] * len(running), SoftTokens(soft, mask))
        missing, ends, *right = graded(receiver, prefix, [answers[row] for row in running])
        now = _fitted(receiver, alphabet, [codes[row] for row in running], soft, [missing, ends, *right], step)
        for row, found in zip(running, now, strict=True):
            if _better(found, best[row]):
                best[row] = found
        still = [place for place, row in enumerate(running) if not _is_done(best[row], codes[row], alphabet)]
        if not still or step == settings.steps:
            break
        chosen = torch.tensor(still, device=missing.device)
        # the end token is fitted too, or the code would not be exact
        loss = (missing + ends)[chosen] / torch.tensor([len(answers[running[place]]) for place in still], device=missing.device)
        optimiser.zero_grad()
        loss.sum().backward()
        # towards the end small steps: the last bits need them
        for group in optimiser.param_groups:
            group["lr"] = settings.lr * min(1.0, 2 * (1 - step / settings.steps))
        optimiser.step()
        running = [running[place] for place in still]
        tick(step + 1)
    return [found for found in best if found is not None]


def scaled(free: Float[Tensor, "B K D_r"], unit: float, *, kept: bool) -> Float[Tensor, "B K D_r"]:
    """Vectors in units of ``unit``; ``kept``: each brought to exactly that root mean square, as a bridge's are."""
    if kept:
        free = free * torch.rsqrt(free.pow(2).mean(-1, keepdim=True) + 1e-6)
    return free * unit


def _start(receiver: Receiver, codes: Sequence[Code], soft_tokens: int, seed: int) -> list[nn.Parameter]:
    """Random directions at unit scale; a code's start depends on the code, K and the seed, not on the other codes."""
    starts = []
    for index, code in enumerate(codes):
        generator = torch.Generator().manual_seed(stable_hash(f"ceiling:{seed}:{soft_tokens}:{index}:{' '.join(code)}") >> 1)
        drawn = torch.randn(soft_tokens, receiver.width, generator=generator)
        starts.append(nn.Parameter(drawn.to(receiver.device)))
    return starts


def _fitted(
    receiver: Receiver, alphabet: Alphabet, codes: Sequence[Code], soft: Tensor, graded_now: Sequence[Tensor], step: int
) -> Iterator[Fitted]:
    """The codes as they are read from their vectors of this step."""
    ratios = (soft.detach().float().pow(2).mean(dim=(1, 2)).sqrt() / receiver.embedding_rms).tolist()
    size = soft.shape[1] * soft.shape[2] * receiver.dtype.itemsize
    values = zip(codes, ratios, *(part.tolist() for part in graded_now), strict=True)
    for code, ratio, missing, end_bits, exact, exact_code in values:
        bits = len(code) * alphabet.bits_per_symbol - missing
        yield Fitted(Reading(bits, end_bits, exact, exact_code, soft.shape[1], size), step, ratio)


def _better(found: Fitted, best: Fitted | None) -> bool:
    """Exact beats not exact, then more bits."""
    return best is None or (found.reading.exact, found.reading.bits) > (best.reading.exact, best.reading.bits)


def _is_done(best: Fitted | None, code: Code, alphabet: Alphabet) -> bool:
    enough = (1 - MISSING_SHARE) * len(code) * alphabet.bits_per_symbol
    return best is not None and best.reading.exact and best.reading.bits >= enough
