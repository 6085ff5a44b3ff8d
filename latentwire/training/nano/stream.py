"""The pretraining stream of the embedded models: tiny-world documents and plain text, as batches of tokens.

Chunk c of the stream depends on (seed, c) alone, so a resumed run reads what the uninterrupted one would have read.
Shapes: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import torch

from latentwire.data.plain_text import PlainText
from latentwire.data.tinyworld.lessons import END, Document, draw_lesson
from latentwire.models.nano.specs import BOS_ID, EOS_ID, PAD_ID

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORE = -100
#: tokens of one micro-batch
MICRO_BATCH_TOKENS = 2048
#: the lengths that batches are padded to: few, so that a compiled model has few shapes
LENGTHS = (32, 48, 64, 96, 128, 192, 256)
MAX_DOCUMENT_TOKENS = LENGTHS[-1]


@dataclass(frozen=True)
class MicroBatch:
    """``ids`` [B, T] and the ``targets`` [B, T] to predict at each position (``IGNORE`` where nothing is asked)."""

    ids: torch.Tensor
    targets: torch.Tensor


def encode_documents(tokenizer: PreTrainedTokenizerBase, documents: list[Document]) -> list[tuple[list[int], list[int]]]:
    """(ids, targets) of each document; segments are encoded apart, as prompts and answers are when the model is used."""
    flat = [text.removesuffix(END) for document in documents for text, _ in document]
    encoded = iter(tokenizer(flat, add_special_tokens=False)["input_ids"])
    result = []
    for document in documents:
        ids, wanted = [BOS_ID], [False]
        for text, is_target in document:
            piece = next(encoded) + ([EOS_ID] if text.endswith(END) else [])
            ids += piece
            wanted += [is_target] * len(piece)
        targets = [token if want else IGNORE for token, want in zip(ids[1:], wanted[1:], strict=True)] + [IGNORE]
        result.append((ids[:MAX_DOCUMENT_TOKENS], targets[:MAX_DOCUMENT_TOKENS]))
    return result


def batched(rows: list[tuple[list[int], list[int]]], rng: Random) -> list[MicroBatch]:
    """Rows of similar length together, about ``MICRO_BATCH_TOKENS`` each, in random order; the last rows may be empty."""
    rows = sorted(rows, key=lambda row: len(row[0]))
    batches = []
    while rows:
        length = next(length for length in LENGTHS if length >= len(rows[-1][0]))
        count = MICRO_BATCH_TOKENS // length
        taken, rows = rows[-count:], rows[:-count]
        ids = torch.full((count, length), PAD_ID)
        targets = torch.full((count, length), IGNORE)
        for index, (row_ids, row_targets) in enumerate(taken):
            ids[index, : len(row_ids)] = torch.tensor(row_ids)
            targets[index, : len(row_targets)] = torch.tensor(row_targets)
        batches.append(MicroBatch(ids, targets))
    rng.shuffle(batches)
    return batches


def lesson_chunk(
    tokenizer: PreTrainedTokenizerBase, shares: Mapping[str, int | float], *, seed: int, chunk: int, documents: int
) -> list[MicroBatch]:
    """One chunk of tiny-world documents, mixed by ``shares``."""
    rng = Random(f"lessons:{seed}:{chunk}")
    return batched(encode_documents(tokenizer, [draw_lesson(rng, shares) for _ in range(documents)]), rng)


def text_chunk(tokenizer: PreTrainedTokenizerBase, text: PlainText, *, seed: int, chunk: int, rows: int) -> list[MicroBatch]:
    """One chunk of plain text: ``rows`` rows of exactly ``MAX_DOCUMENT_TOKENS``, every token a target."""
    rng = Random(f"text:{seed}:{chunk}")
    return batched(list(text_rows(tokenizer, text, rng, rows, held_out=False)), rng)


def text_rows(
    tokenizer: PreTrainedTokenizerBase, text: PlainText, rng: Random, rows: int, *, held_out: bool
) -> Iterator[tuple[list[int], list[int]]]:
    """``rows`` excerpts as (ids, targets)."""
    excerpts = [text.excerpt(rng, MAX_DOCUMENT_TOKENS * 5, held_out=held_out) for _ in range(rows)]
    for encoded in tokenizer(excerpts, add_special_tokens=False)["input_ids"]:
        ids = [BOS_ID, *encoded][: MAX_DOCUMENT_TOKENS + 1]
        yield ids[:-1], ids[1:]
