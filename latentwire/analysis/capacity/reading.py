"""What a frozen receiver gets of codes: from messages, from their text, from whatever stands in the hole of the prompt.

Bits delivered are a lower bound of the mutual information of code and message (Barber & Agakov 2003): the code's entropy minus the
receiver's cross-entropy. It holds whatever the receiver thinks of codes in general, because all codes are equally likely.

Shapes: B codes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from latentwire.analysis.capacity.codes import Alphabet, Wording
from latentwire.bridges.base import Bridge
from latentwire.data.task import Example
from latentwire.errors import DataError
from latentwire.methods.base import Control
from latentwire.models.receiver import Receiver
from latentwire.models.sender import Sender
from latentwire.models.soft_tokens import Prefix, SoftTokens
from latentwire.prompts import Prompt

NATS_PER_BIT = log(2)
Code = tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """One code as the receiver got it.

    ``bits`` are delivered: the code's own minus the cross-entropy of its tokens; below 0 where the receiver is surer of
    something else than a guess would be. ``end_bits`` is the cross-entropy of the end token behind it, kept apart: the end
    says how long a code is, and that is not counted in its bits. ``exact``: greedy decoding writes these tokens and then ends;
    ``exact_code``: it writes them, whatever follows (a bridge that was taught one length may not end at another).
    """

    bits: float
    end_bits: float
    exact: bool
    exact_code: bool
    soft_tokens: int = 0
    message_bytes: int = 0


def code_ids(receiver: Receiver, wording: Wording, codes: Sequence[Code]) -> list[list[int]]:
    """The receiver's tokens of each code, its end token included."""
    return [receiver.answer_ids(wording.asked, " ".join(code)) for code in codes]


def graded(
    receiver: Receiver, prefix: Prefix, answers: Sequence[Sequence[int]]
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"], Bool[Tensor, " B"], Bool[Tensor, " B"]]:
    """Cross-entropy in bits of each code's tokens and of its end token; whether it is greedy-exact, and whether but for its end.

    Differentiable.
    """
    log_probs, mask, right = receiver.graded_answers(prefix, answers)
    bits = -log_probs / NATS_PER_BIT
    last = mask.sum(dim=1, keepdim=True) - 1
    ends = bits.gather(1, last)[:, 0]
    return bits.sum(dim=1) - ends, ends, right.all(dim=1), right.scatter(1, last, True).all(dim=1)


@torch.no_grad()
def read_text(
    receiver: Receiver, wording: Wording, alphabet: Alphabet, codes: Sequence[Code], *, batch_size: int = 64
) -> list[Reading]:
    """The receiver reads the codes as text in place of messages."""

    def prefix(part: slice) -> tuple[Prefix, list[int], list[int]]:
        texts = [wording.told(code) for code in codes[part]]
        prompts = [wording.asked.with_text(text) for text in texts]
        return receiver.prefix(prompts), [0] * len(texts), [len(text.encode()) for text in texts]

    return _read(receiver, wording, alphabet, codes, prefix, batch_size)


@torch.no_grad()
def read_messages(
    sender: Sender,
    bridge: Bridge,
    receiver: Receiver,
    wording: Wording,
    alphabet: Alphabet,
    codes: Sequence[Code],
    *,
    control: Callable[[Sequence[Example]], Control] | None = None,
    batch_size: int = 64,
) -> list[Reading]:
    """The sender reads each code, the bridge makes a message of it, the receiver repeats the code from the message.

    ``control`` builds, from all rows, what destroys the message (``latentwire.evaluation.controls.build_control``).
    """
    rows = examples(wording, codes)
    applied = control(rows) if control else None

    def prefix(part: slice) -> tuple[Prefix, list[int], list[int]]:
        soft = send(sender, bridge, rows[part], applied)
        prompts = [row.receiver_prompt for row in rows[part]]
        return receiver.prefix(prompts, soft), soft.tokens_per_row.tolist(), soft.bytes_per_row(receiver.dtype).tolist()

    return _read(receiver, wording, alphabet, codes, prefix, batch_size)


def send(sender: Sender, bridge: Bridge, rows: Sequence[Example], control: Control | None = None) -> SoftTokens:
    """The messages of some rows, with the control applied where they are made."""
    texts = [row.sender_prompt for row in rows]
    if control is not None and control.replace_texts is not None:
        texts = control.replace_texts(rows)
    soft: SoftTokens = bridge(sender.read(texts))
    if control is not None and control.replace_vectors is not None:
        soft = control.replace_vectors(soft, [row.id for row in rows])  # type: ignore[assignment]
    return soft


def examples(wording: Wording, codes: Sequence[Code]) -> list[Example]:
    """The codes as rows of a task; equal codes are rows of their own."""
    asked = wording.asked
    return [
        Example(
            id=f"code{len(code)}-{index}",
            task="codes",
            sender_prompt=wording.context(code),
            receiver_prompt=asked,
            receiver_prompt_aware=Prompt(wording.context(code) + asked.before, asked.after),
            options=(),
            label=None,
            answer=" ".join(code),
        )
        for index, code in enumerate(codes)
    ]


def _read(
    receiver: Receiver,
    wording: Wording,
    alphabet: Alphabet,
    codes: Sequence[Code],
    prefix: Callable[[slice], tuple[Prefix, list[int], list[int]]],
    batch_size: int,
) -> list[Reading]:
    """``prefix`` gives for some codes what the receiver reads, the soft tokens in it, and the bytes of what was sent."""
    readings = []
    for start in range(0, len(codes), batch_size):
        part = slice(start, start + batch_size)
        batch = codes[part]
        made, tokens, sizes = prefix(part)
        found = graded(receiver, made, code_ids(receiver, wording, batch))
        readings += [
            Reading(len(code) * alphabet.bits_per_symbol - missing, end_bits, exact, exact_code, count, size)
            for code, missing, end_bits, exact, exact_code, count, size in zip(
                batch, *(part.tolist() for part in found), tokens, sizes, strict=True
            )
        ]
    return readings


@torch.no_grad()
def check_lengths(
    sender: Sender, bridge: Bridge, receiver: Receiver, wording: Wording, alphabet: Alphabet, lengths: Sequence[int]
) -> None:
    """Raises ``DataError`` where a code is longer than the models can read and write, before any work is done.

    The receiver must have room for its question, the code as a message or as text, and the code that it writes.
    """
    for length in sorted(lengths, reverse=True):
        code = alphabet.draw(length, 1)[0]
        needed = sender.prompter.count([Prompt(wording.context(code), "")])[0]
        if needed > sender.max_tokens:
            raise _too_long(length, needed, "sender", sender.source.name, sender.max_tokens)
        message = int(send(sender, bridge, examples(wording, [code])).tokens_per_row[0])
        bare, as_text = receiver.prompter.count([wording.asked, wording.asked.with_text(wording.told(code))])
        needed = max(bare + message, as_text) + len(code_ids(receiver, wording, [code])[0])
        if needed > receiver.max_tokens:
            raise _too_long(length, needed, "receiver", receiver.source.name, receiver.max_tokens)


def _too_long(length: int, needed: int, end: str, name: str, most: int) -> DataError:
    return DataError(
        f"codes of length {length} do not fit: the {end} {name!r} would need {needed} tokens and has {most}; give shorter --lengths"
    )
