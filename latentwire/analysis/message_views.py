"""Looking into one message: vocabulary near a soft token, where it came from, who looks at it (``latentwire.analysis.explain``).

Shapes: S sender tokens, K soft tokens, D_s / D_r sender / receiver width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latentwire.bridges.base import Bridge
from latentwire.messages.channel import Channel
from latentwire.models.receiver import Receiver
from latentwire.models.sender import Sender, SenderStates
from latentwire.models.soft_tokens import SoftTokens
from latentwire.models.tokens import encode_plain
from latentwire.prompts import Prompt

#: neighbours that are kept of each soft token
MOST_NEIGHBOURS = 5
_RANDOM_DIRECTIONS = 200
#: bytes of copied sender states while tokens are hidden one by one
_COPIES_BYTES = 2**28


@dataclass(frozen=True)
class Neighbour:
    """A token of the receiver's vocabulary and its cosine with the soft token."""

    token: str
    cosine: float


@torch.no_grad()
def messages_of(bridge: Bridge, sender: Sender, receiver: Receiver, texts: Sequence[str]) -> SoftTokens:
    """What the receiver reads when the texts are sent, as in an evaluation."""
    channel = Channel(bridge.message, receiver)
    return channel.deliver(channel.written(bridge(sender.read(list(texts))), texts)).soft


def stacked(messages: Sequence[SoftTokens]) -> SoftTokens:
    """Several batches of messages of equal shape as one."""
    verbatim = tuple(text for item in messages for text in item.verbatim)
    vectors, mask = torch.cat([item.vectors for item in messages]), torch.cat([item.mask for item in messages])
    return replace(messages[0], vectors=vectors, mask=mask, verbatim=verbatim)


def sender_tokens(sender: Sender, text: str) -> list[str]:
    """The sender's tokens of a text whose states a bridge sees, as text."""
    (ids,), skip = sender.prompter.context_ids([text])
    return [shown_token(sender.tokenizer, token) for token in ids[skip:]]


def shown_token(tokenizer: Any, token: int) -> str:
    """A token for people: its text, or its name where it has no readable text."""
    text = str(tokenizer.decode([token])).strip()
    return text or str(tokenizer.convert_ids_to_tokens(token)).replace("▁", "␣").replace("Ġ", "␣").replace("\n", "⏎")


# ------------------------------------------------------------------------------------------------------- vocabulary


@torch.no_grad()
def nearest_vocabulary(receiver: Receiver, vectors: Float[Tensor, "K D_r"]) -> tuple[list[tuple[Neighbour, ...]], float]:
    """The readable tokens with the highest cosine to each soft token, and the noise: what one random direction in 20 exceeds."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(_RANDOM_DIRECTIONS, vectors.shape[-1], generator=generator).to(vectors)
    directions = torch.nn.functional.normalize(torch.cat([vectors.float(), drawn.float()]), dim=-1)
    best_values, best_ids = _nearest(receiver, directions, readable_ids(receiver), MOST_NEIGHBOURS)
    own = len(vectors)
    noise = float(best_values[own:, 0].quantile(0.95))
    found = [
        tuple(
            Neighbour(shown_token(receiver.tokenizer, token), round(value, 4))
            for token, value in zip(tokens, values, strict=True)
            if value > -2
        )
        for tokens, values in zip(best_ids[:own].tolist(), best_values[:own].tolist(), strict=True)
    ]
    return found, noise


@torch.no_grad()
def nearest_ids(receiver: Receiver, vectors: Float[Tensor, "K D_r"], ids: Int[Tensor, " V"]) -> Int[Tensor, " K"]:
    """Of the tokens ``ids`` (``readable_ids``) the one with the highest cosine to each soft token."""
    return _nearest(receiver, torch.nn.functional.normalize(vectors.float(), dim=-1), ids, 1)[1][:, 0]


def _nearest(
    receiver: Receiver, directions: Float[Tensor, "N D_r"], ids: Int[Tensor, " V"], count: int
) -> tuple[Float[Tensor, "N count"], Int[Tensor, "N count"]]:
    """The ``count`` highest cosines to each direction of length 1, and whose they are; -2 where there are not so many tokens."""
    best_values = directions.new_full((len(directions), count), -2.0)
    best_ids = torch.zeros(best_values.shape, dtype=torch.long, device=directions.device)
    for part in ids.split(8192):
        table = torch.nn.functional.normalize(receiver.embed(part).float(), dim=-1)
        values = torch.cat([best_values, directions @ table.T], dim=1)
        known = torch.cat([best_ids, part.expand(len(directions), -1)], dim=1)
        best_values, places = values.topk(count, dim=1)
        best_ids = known.gather(1, places)
    return best_values, best_ids


def readable_ids(receiver: Receiver) -> Int[Tensor, " V"]:
    """Ids of tokens that print as text: no special tokens, no single bytes, no mere white space."""
    tokenizer = receiver.tokenizer
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    # decoding all at once is what keeps this under a second for 130,000 tokens
    plain = [token for token in range(min(len(tokenizer), receiver.embed.weight.shape[0])) if token not in special]
    texts = tokenizer.batch_decode([[token] for token in plain])
    kept = [token for token, text in zip(plain, texts, strict=True) if text.strip() and text.isprintable() and "�" not in text]
    return torch.tensor(kept, device=receiver.device)


# ---------------------------------------------------------------------------------------------------------- sources


@torch.no_grad()
def occluded(bridge: Bridge, read: SenderStates) -> Float[Tensor, "K S"]:
    """How far each soft token moves, relative to its length, when one sender token's state gives way to the mean of all states.

    The place of the token stays: a bridge that makes one soft token of each would else lose the whole soft token with it.
    """
    whole = bridge(read)
    kept = whole.mask[0]
    vectors = whole.vectors[0, kept]
    length = read.states.shape[1]
    moved = vectors.new_zeros(len(vectors), length)
    if length == 1:  # the only state is the mean of all
        return moved.cpu() + 1
    mean = read.states.float().mean(dim=1, keepdim=True).to(read.states.dtype)
    size = max(1, _COPIES_BYTES // max(1, read.states.numel() * 4))
    for places in torch.arange(length, device=read.mask.device).split(size):
        hides = (torch.arange(length, device=places.device)[None, :] == places[:, None])[..., None]
        hidden = bridge(SenderStates(torch.where(hides, mean, read.states), read.mask.expand(len(places), -1)))
        shares = (hidden.vectors[:, kept] - vectors).norm(dim=-1) / vectors.norm(dim=-1).clamp(min=1e-9)
        moved[:, places.to(moved.device)] = shares.T
    return moved.cpu()


def gradient_times_state(bridge: Bridge, read: SenderStates) -> Float[Tensor, "K S"]:
    """Share of each sender token in gradient × state of a soft token's length along itself; each row sums to 1."""
    states = read.states.float().detach().requires_grad_()
    with torch.enable_grad():
        soft = bridge(SenderStates(states, read.mask))
        vectors = soft.vectors[0, soft.mask[0]]
        along = (vectors * torch.nn.functional.normalize(vectors.detach(), dim=-1)).sum(dim=-1)
        shares = []
        for value in along:
            (gradient,) = torch.autograd.grad(value, states, retain_graph=True)
            weights = (gradient * states).sum(dim=-1)[0].abs()
            shares.append((weights / weights.sum().clamp(min=1e-12)).detach())
    return torch.stack(shares).cpu()


# -------------------------------------------------------------------------------------------------------- attention


class Attended(NamedTuple):
    """Shares of the attention of an answer's tokens: on each soft token with what unfolds it, on verbatim text, on all else.

    ``how``: ``attention``, or ``gradient`` for a model that shows none (then the soft tokens alone share).
    """

    soft_tokens: list[float]
    how: str
    verbatim: float
    elsewhere: float


@torch.no_grad()
def attention_on(receiver: Receiver, prompt: Prompt, soft: SoftTokens, answer: Sequence[int]) -> Attended:
    """What the answer's tokens look at, in the one row of ``soft``, all of whose soft tokens are real."""
    prefix = receiver.prefix([prompt], soft)
    ids = torch.tensor([list(answer[:-1])], device=receiver.device, dtype=torch.long)
    embeddings = torch.cat([prefix.embeddings, receiver.embed(ids)], dim=1) if len(answer) > 1 else prefix.embeddings
    written = torch.arange(1, len(answer), device=receiver.device)[None]
    positions = torch.cat([prefix.positions, prefix.positions[:, -1:] + written], dim=1)
    first = len(receiver.prompter.prefix_ids(prompt)[0])
    message = slice(first, first + soft.vectors.shape[1] * soft.read_per_token)
    weights = None
    with _eager(receiver.model) as is_eager:
        if is_eager:
            mask = torch.ones(embeddings.shape[:2], dtype=torch.long, device=receiver.device)
            output = receiver.model(
                inputs_embeds=embeddings,
                attention_mask=mask,
                position_ids=positions,
                use_cache=False,
                output_attentions=True,
                logits_to_keep=1,
            )
            weights = getattr(output, "attentions", None)
    layers = [layer for layer in weights or () if layer is not None]
    if not layers:
        return Attended(_gradient_shares(receiver, prompt, soft, answer), "gradient", 0.0, 0.0)
    # the rows that predict the answer's tokens: the end of the prompt, then all answer tokens but the last
    rows = torch.stack([layer[0, :, prefix.embeddings.shape[1] - 1 :].float().mean(dim=(0, 1)) for layer in layers]).mean(dim=0)
    found = rows[message].unflatten(0, (-1, soft.read_per_token)).sum(dim=-1).tolist()
    text = len(encode_plain(receiver.tokenizer, soft.verbatim[0])) if soft.verbatim else 0
    verbatim = float(rows[message.stop : message.stop + text].sum())
    return Attended(found, "attention", verbatim, float(rows.sum()) - sum(found) - verbatim)


@contextmanager
def _eager(model: Any) -> Iterator[bool]:
    """The model with attention that can be looked at; False where it cannot be switched. Put back as it was."""
    before = getattr(model.config, "_attn_implementation", None)
    try:
        model.set_attn_implementation("eager")
    except (AttributeError, ValueError, KeyError):
        yield False
        return
    try:
        yield True
    finally:
        if before is not None:
            model.set_attn_implementation(before)


def _gradient_shares(receiver: Receiver, prompt: Prompt, soft: SoftTokens, answer: Sequence[int]) -> list[float]:
    """Share of each soft token in |gradient × vector| of the answer's log-likelihood."""
    with torch.enable_grad():
        vectors = soft.vectors.detach().clone().requires_grad_()
        log_probs, _ = receiver.answer_log_probs(receiver.prefix([prompt], replace(soft, vectors=vectors)), [list(answer)])
        (gradient,) = torch.autograd.grad(log_probs.sum(), vectors)
    weights = (gradient * vectors).sum(dim=-1)[0].abs().detach()
    return (weights / weights.sum().clamp(min=1e-12)).tolist()
