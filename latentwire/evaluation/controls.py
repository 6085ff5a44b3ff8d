"""Controls: the same method with the information destroyed. What survives a control was not communicated.

zero           every soft token is the zero vector
shuffled       every row gets the message of another row (a derangement over the whole evaluation set), its verbatim text included
noise          every soft token is a random direction of its own norm
verbatim_only  as zero, but the verbatim text stays: what a hybrid message says without its soft tokens

``zero`` and ``noise`` leave no verbatim text: with it a message would not be destroyed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import torch

from latentwire.data.task import Example
from latentwire.errors import UnknownNameError
from latentwire.methods.base import SOFT_CONTROLS, Control
from latentwire.models.soft_tokens import SoftTokens
from latentwire.seeding import stable_hash

CONTROLS = (*SOFT_CONTROLS, "verbatim_only")


def derangement(count: int, seed: int = 0) -> list[int]:
    """A permutation without fixed points: one random cycle through all rows."""
    order = list(range(count))
    Random(seed).shuffle(order)
    partner = [0] * count
    for position, row in enumerate(order):
        partner[row] = order[(position + 1) % count]
    return partner


def applicable(controls: Sequence[str], rows: int) -> tuple[str, ...]:
    """The controls that make sense over so many rows: a single row has no other row's message."""
    return tuple(control for control in controls if rows > 1 or control != "shuffled")


def build_control(name: str, examples: Sequence[Example], seed: int = 0) -> Control:
    """The control over a whole evaluation set. ``shuffled`` and ``noise`` depend on the rows, not on their batches.

    Raises ``UnknownNameError`` for a name that is none of ``CONTROLS``.
    """
    if name == "zero":
        return Control(name, replace_vectors=lambda soft, ids: replace(soft, vectors=torch.zeros_like(soft.vectors), verbatim=()))
    if name == "verbatim_only":
        return Control(name, replace_vectors=lambda soft, ids: replace(soft, vectors=torch.zeros_like(soft.vectors)))
    if name == "shuffled":
        partners = derangement(len(examples), seed)
        text_of = {example.id: examples[partners[index]].sender_prompt for index, example in enumerate(examples)}
        return Control(name, replace_texts=lambda batch: [text_of[example.id] for example in batch])
    if name == "noise":
        return Control(name, replace_vectors=lambda soft, ids: _noise(soft, ids, seed))
    raise UnknownNameError("control", name, CONTROLS)


def _noise(soft: SoftTokens, ids: Sequence[str], seed: int) -> SoftTokens:
    vectors = torch.zeros_like(soft.vectors)
    for row, row_id in enumerate(ids):
        generator = torch.Generator().manual_seed(stable_hash(f"noise:{seed}:{row_id}") >> 1)
        own = soft.vectors[row][soft.mask[row]]
        # drawn in the row's own shape: what is drawn in another shape differs in its last values
        noise = torch.randn(own.shape, generator=generator).to(own)
        vectors[row][soft.mask[row]] = noise * (own.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True))
    return replace(soft, vectors=vectors, verbatim=())
