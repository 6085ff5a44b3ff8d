"""The floor: the bare forward passes that the bridge's path cannot do without, on tensors prepared beforehand.

Truncated sender over S tokens, the bridge module, the receiver over K soft tokens and the question, then either its decode steps
or the nodes of the option trie. Same modules, number format, threads, shapes and compilation as the path; no tokenizer, message,
mask building, sampling or bookkeeping. A mask is passed only where rows are padded, and the tree's, without which options
would see each other.

Shapes: B rows, S sender tokens, P prefix positions, T positions of one pass, D_r receiver width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from latentwire.benchmarks.pair import BenchPair
from latentwire.data.task import Example
from latentwire.messages.channel import Channel
from latentwire.models.receiver import Receiver
from latentwire.models.sender import SenderStates
from latentwire.models.soft_tokens import Prefix
from latentwire.models.tokens import pad_right


@dataclass(frozen=True)
class Pass:
    """One forward pass of the receiver: its arguments, ready."""

    arguments: dict[str, Any]

    def __call__(self, receiver: Receiver) -> Any:
        return receiver.model(**self.arguments)


@dataclass(frozen=True)
class Floor:
    """The passes of one batch. ``steps`` are the decode steps behind the first token, empty where options are scored."""

    pair: BenchPair
    sender_arguments: dict[str, Any]
    states: SenderStates
    first: Pass
    steps: list[dict[str, Any]] = field(default_factory=list)

    @torch.no_grad()
    def __call__(self) -> Any:
        self.sender()
        self.bridge()
        return self.receive()

    def sender(self) -> Any:
        """The truncated sender over the contexts."""
        return self.pair.parts.sender.model(**self.sender_arguments)

    def bridge(self) -> Any:
        """The bridge module over the states."""
        return self.pair.bridge(self.states)

    def receive(self) -> Any:
        """The receiver's passes; returns the last output."""
        receiver = self.pair.parts.receiver
        name = receiver.cache_name
        output = self.first(receiver)
        for step in self.steps:
            output = receiver.model(**step, **{name: getattr(output, name)})
        return output

    @property
    def sizes(self) -> dict[str, int]:
        """Tokens of each pass, padding included."""
        return {
            "sender_tokens": self.sender_arguments["input_ids"].shape[1],
            "receiver_tokens": self.first.arguments["inputs_embeds"].shape[1],
            "decode_steps": len(self.steps) + (0 if self.first.arguments["use_cache"] is False else 1),
        }


@torch.no_grad()
def prepare_floor(pair: BenchPair, rows: Sequence[Example]) -> Floor:
    """The floor of these rows: what the path computes is computed once and kept."""
    sender, receiver = pair.parts.sender, pair.parts.receiver
    texts = [row.sender_prompt for row in rows]
    encoded, _ = sender.prompter.context_ids(texts)
    ids, mask = pad_right(encoded, sender.tokenizer.pad_token_id or 0, sender.device)
    arguments: dict[str, Any] = {"input_ids": ids, "use_cache": False}
    if not isinstance(sender.layer, int):
        arguments["output_hidden_states"] = True
    if not mask.all():
        arguments["attention_mask"] = mask.long()
    states = sender.read(texts)
    channel = Channel(pair.bridge.message, receiver)
    sent = channel.deliver(channel.written(pair.bridge(states), texts))
    prefix = receiver.prefix([row.receiver_prompt for row in rows], sent.soft)
    if pair.answer_tokens:
        return Floor(pair, arguments, states, *_generation(receiver, prefix, pair.answer_tokens))
    tries = receiver.tries([row.receiver_prompt for row in rows], [row.options for row in rows])
    return Floor(pair, arguments, states, tree_pass(receiver, prefix, tries))


def tree_pass(receiver: Receiver, prefix: Prefix, tries: Sequence[Any]) -> Pass:
    """One pass over prefixes and trie nodes."""
    embeddings, bias, positions = receiver.tree_inputs(prefix, tries)
    kept = embeddings.shape[1] - prefix.mask.shape[1] + 1
    return Pass(
        {
            "inputs_embeds": embeddings,
            "attention_mask": bias,
            "position_ids": positions,
            "use_cache": False,
            "logits_to_keep": kept,
        }
    )


def _generation(receiver: Receiver, prefix: Prefix, tokens: int) -> tuple[Pass, list[dict[str, Any]]]:
    """The pass over the prefix, and a step for every token but the last, which is read by nobody."""
    written = torch.tensor(receiver.generate_ids(prefix, max_new_tokens=tokens), device=receiver.device)
    padded = not bool(prefix.mask.all())
    lengths = prefix.mask.sum(dim=1, keepdim=True)
    first: dict[str, Any] = {"inputs_embeds": prefix.embeddings, "use_cache": True, "logits_to_keep": 1}
    if padded:
        first |= {"attention_mask": prefix.mask.long(), "position_ids": (prefix.mask.long().cumsum(1) - 1).clamp(min=0)}
    steps = []
    for step in range(tokens - 1):
        arguments: dict[str, Any] = {"input_ids": written[:, step : step + 1], "use_cache": True}
        if padded:
            arguments["attention_mask"] = F.pad(prefix.mask.long(), (0, step + 1), value=1)
            arguments["position_ids"] = lengths + step
        steps.append(arguments)
    return Pass(first), steps


def causal_pass(receiver: Receiver, embeddings: Float[Tensor, "B T D_r"], kept: int) -> Callable[[], Any]:
    """One bare causal pass over prepared embeddings, the logits of the last ``kept`` positions."""
    arguments = {"inputs_embeds": embeddings, "use_cache": False, "logits_to_keep": kept}

    @torch.no_grad()
    def run() -> Any:
        return receiver.model(**arguments)

    return run


def embedded(receiver: Receiver, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T D_r"]:
    """Token embeddings of the receiver."""
    with torch.no_grad():
        return receiver.embed(ids)
