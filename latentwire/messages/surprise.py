"""Which words of a text surprise the receiver most: those it would not have guessed must be told.

The measure is the receiver's own negative log-likelihood of each word when it reads the text alone, cut by its own tokenizer
(self-information, as in Li et al. 2023, Selective Context). It takes one pass of the receiver over the text, on the sender's side:
where the two models run on different machines, the sender's needs a copy of the receiver.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from latentwire.errors import ModelError
from latentwire.messages.spans import joined
from latentwire.models.receiver import Receiver
from latentwire.models.soft_tokens import Prefix
from latentwire.models.tokens import leading_ids

#: a word with what makes it another one (sign, currency, unit) and without the punctuation around it
_WORD = re.compile(r"[-+−$€£¥#@]*\w+(?:[-'’.,:/@_&]\w+)*[%°]?")
#: tokens read at once: their logits fill memory where vocabularies are large; longer texts are read in windows of this length
MOST_TOKENS = 2048


@dataclass(frozen=True)
class Word:
    """A word at ``text[start:end]`` and its surprise in nats."""

    start: int
    end: int
    nats: float


@torch.no_grad()
def word_surprises(receiver: Receiver, texts: Sequence[str]) -> list[list[Word]]:
    """The words of each text, in order, with the receiver's surprise at them.

    Raises:
        ModelError: the receiver's tokenizer does not tell where its tokens stand.
    """
    if not receiver.tokenizer.is_fast:
        raise ModelError(
            f"the tokenizer of {receiver.source.name!r} does not tell where its tokens stand, which message.verbatim=budget needs; "
            "use message.verbatim=rules"
        )
    encoded = [receiver.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False) for text in texts]
    nats = _token_surprises(receiver, [list(part["input_ids"]) for part in encoded])
    return [_words(text, part["offset_mapping"], row_nats) for text, part, row_nats in zip(texts, encoded, nats, strict=True)]


def within_budget(text: str, words: Sequence[Word], most_bytes: int) -> list[str]:
    """The most surprising words whose joined UTF-8 bytes, separators included, fit; in the order of the text, each once.

    Words that do not fit are passed over for less surprising ones that do. Neighbours stay together as one span.
    """
    seen: dict[str, Word] = {}
    for word in words:
        seen.setdefault(text[word.start : word.end], word)
    chosen: list[Word] = []
    for word in sorted(seen.values(), key=lambda word: (-word.nats, word.start)):
        tried = sorted([*chosen, word], key=lambda word: word.start)
        if len(joined(_spans(text, tried)).encode()) <= most_bytes:
            chosen = tried
    return _spans(text, chosen)


def _spans(text: str, words: Sequence[Word]) -> list[str]:
    """The words, those with one space between them as one span."""
    spans: list[tuple[int, int]] = []
    for word in words:
        if spans and text[spans[-1][1] : word.start] == " ":
            spans[-1] = (spans[-1][0], word.end)
        else:
            spans.append((word.start, word.end))
    return [text[start:end] for start, end in spans]


def _words(text: str, places: Sequence[tuple[int, int]], nats: Sequence[float]) -> list[Word]:
    """Every token's surprise belongs to the words it shares characters with; white space and punctuation to none."""
    words, token = [], 0
    for match in _WORD.finditer(text):
        while token < len(places) and places[token][1] <= match.start():
            token += 1
        at, total = token, 0.0
        while at < len(places) and places[at][0] < match.end():
            total += nats[at]
            at += 1
        words.append(Word(*match.span(), total))
    return words


def _token_surprises(receiver: Receiver, rows: Sequence[list[int]]) -> list[list[float]]:
    """Negative log-likelihood in nats of every token of every row behind the begin-of-text token."""
    start = leading_ids(receiver.tokenizer) or [receiver.end_id]
    most = min(MOST_TOKENS, receiver.max_tokens - len(start))
    windows = [(row, ids[at : at + most]) for row, ids in enumerate(rows) for at in range(0, len(ids), most)]
    found: list[list[float]] = [[] for _ in windows]
    embedded = receiver.embed(torch.tensor(start, device=receiver.device))
    for part in _parts([len(ids) for _, ids in windows]):
        prefix = Prefix(
            embedded.expand(len(part), *embedded.shape),
            torch.ones(len(part), len(start), dtype=torch.bool, device=receiver.device),
        )
        log_probs, _ = receiver.answer_log_probs(prefix, [windows[index][1] for index in part])
        for index, row in zip(part, (-log_probs).tolist(), strict=True):
            found[index] = row[: len(windows[index][1])]
    nats: list[list[float]] = [[] for _ in rows]
    for (row, _), window in zip(windows, found, strict=True):
        nats[row] += window
    return nats


def _parts(lengths: Sequence[int]) -> list[list[int]]:
    """Windows of like length together, at most ``MOST_TOKENS`` (padded) tokens at a time."""
    found: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if found and (len(found[-1]) + 1) * lengths[index] <= MOST_TOKENS:
            found[-1].append(index)
        else:
            found.append([index])
    return found
