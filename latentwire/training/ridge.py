"""A linear bridge in closed form: ridge regression from sender states to the receiver's embeddings of the same characters.

Both tokenizers cut the same text; each sender token is to become the mean of the receiver's embeddings that share characters
with it, weighted by how many. The penalty is chosen on validation texts. Shapes: N tokens, D_s / D_r widths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from latentwire.bridges.base import Bridge
from latentwire.bridges.linear import LinearBridge
from latentwire.data.task import Example
from latentwire.models.receiver import Receiver
from latentwire.models.sender import Sender
from latentwire.training.alignment import overlap

#: penalties relative to the mean variance of the states, chosen from on validation
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
MOST_TEXTS = 2_000


def begin_with_ridge(
    bridge: Bridge,
    sender: Sender,
    receiver: Receiver,
    train: Sequence[Example],
    validation: Sequence[Example],
    say: Callable[[str], None],
) -> None:
    """Puts a bridge of ``start: ridge`` there, by contexts from all over the rows."""
    # one that goes on from trained weights keeps them
    if isinstance(bridge, LinearBridge) and bridge.config.start == "ridge" and bridge.config.init is None:
        own, held_out = ([row.sender_prompt for row in rows] for rows in (train, validation))
        found = fit_ridge(bridge, sender, receiver, train=own, validation=held_out)
        say(f"ridge: {found['validation_r2']:.1%} of the variance of validation texts' embeddings, from {found['tokens']:,} tokens")


def spread_texts(texts: Sequence[str]) -> list[str]:
    """At most ``MOST_TEXTS`` different ones, evenly from all of them: rows stand task by task, and files may be sorted by label."""
    different = list(dict.fromkeys(texts))
    return different[:: -(-len(different) // MOST_TEXTS) or 1]


@torch.no_grad()
def fit_ridge(
    bridge: LinearBridge, sender: Sender, receiver: Receiver, *, train: Sequence[str], validation: Sequence[str]
) -> dict[str, Any]:
    """Gives the bridge the map with the lowest validation error; returns ``{"penalty", "validation_r2", "tokens"}``."""
    states, wanted = aligned(sender, receiver, bridge, spread_texts(train))
    held_states, held_wanted = aligned(sender, receiver, bridge, spread_texts(validation))
    mean, target_mean = states.mean(0), wanted.mean(0)
    centred = states - mean
    gram, cross = centred.T @ centred, centred.T @ (wanted - target_mean)
    scale = gram.diagonal().mean()
    total = (held_wanted - target_mean).pow(2).sum()
    found: dict[float, tuple[float, Tensor]] = {}
    for penalty in PENALTIES:
        weight = torch.linalg.solve(gram + penalty * scale * torch.eye(len(gram), dtype=gram.dtype), cross)
        left = (held_wanted - target_mean - (held_states - mean) @ weight).pow(2).sum()
        found[penalty] = (float(1 - left / total), weight)
    best = max(found, key=lambda penalty: found[penalty][0])
    r2, weight = found[best]
    bridge.project.weight.copy_(weight.T)
    bridge.project.bias.copy_(target_mean - mean @ weight)
    return {"penalty": best, "validation_r2": round(r2, 5), "tokens": len(states)}


def aligned(
    sender: Sender, receiver: Receiver, bridge: LinearBridge, texts: Sequence[str], *, batch_size: int = 64
) -> tuple[Float[Tensor, "N D_s"], Float[Tensor, "N D_r"]]:
    """Normalised states of all sender tokens that share characters with a receiver token, and what they should become."""
    table = receiver.embed.weight.detach().cpu().double()
    sources, targets = [], []
    for start in range(0, len(texts), batch_size):
        part = list(texts[start : start + batch_size])
        read = sender.read(part)
        normal = bridge.norm_in(read.states.to(bridge.gain.device).float()).cpu().double()
        theirs = sender.tokenizer(part, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        mine = receiver.tokenizer(part, add_special_tokens=False, return_offsets_mapping=True)
        for row in range(len(part)):
            shares = overlap(theirs[row], mine["offset_mapping"][row])
            known = shares.sum(1) > 0
            weights = shares[known] / shares[known].sum(1, keepdim=True)
            sources.append(normal[row][: len(shares)][known])
            targets.append(weights @ table[torch.tensor(mine["input_ids"][row])])
    return torch.cat(sources), torch.cat(targets)
