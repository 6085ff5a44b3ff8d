"""Token plumbing shared by sender and receiver: special tokens, continuations, padding."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from latentwire.errors import DataError
from latentwire.prompts import not_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


#: characters of a text whose tokens are remembered
_REMEMBERED_LENGTH = 1024


@lru_cache(maxsize=16)
def _leading(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    return tuple(tokenizer("")["input_ids"])


def leading_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer puts before every text (its BOS, or nothing)."""
    return list(_leading(tokenizer))


def token_counts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    """How many tokens each text has, special tokens left out."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.truncation is not None or backend.padding is not None:
        return [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]] if texts else []
    # without the offsets and the copies of all ids that a whole encoding makes
    return [len(encoded) for encoded in backend.encode_batch_fast(list(texts), add_special_tokens=False)]


def encode_contexts(
    tokenizer: PreTrainedTokenizerBase, contexts: Sequence[str], max_tokens: int, model_name: str, head: str = "", tail: str = ""
) -> tuple[list[list[int]], int]:
    """Token ids of each context, and how many of them stand before it: its leading special tokens, or ``head``.

    ``head`` and ``tail`` are what a chat template puts around a context, special tokens included.

    Raises:
        DataError: a context is empty or has more than ``max_tokens`` tokens.
    """
    for index, text in enumerate(contexts):
        if not text.strip():
            raise DataError(f"context {index} is empty; every context needs text for the sender to read")
        if why := not_text(text):
            raise DataError(f"context {index} {why}; mend it")
    if head or tail:
        before = encode_plain(tokenizer, head)
        encoded = [[*before, *continuation_ids(tokenizer, head, text + tail)] for text in contexts]
    else:
        before = leading_ids(tokenizer)
        encoded = _encoded_with_specials(tokenizer, list(contexts))
    for index, ids in enumerate(encoded):
        if len(ids) > max_tokens:
            raise DataError(
                f"context {index} has {len(ids)} tokens, {model_name!r} reads at most {max_tokens}; "
                f"shorten it (it begins {contexts[index][:40]!r})"
            )
    return encoded, len(before)


def _encoded_with_specials(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """What ``tokenizer(texts)`` gives, without the offsets and masks that it makes beside the ids."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.padding is not None or backend.truncation is not None or not _calls_backend(type(tokenizer)):
        return [list(ids) for ids in tokenizer(texts, verbose=False)["input_ids"]]
    return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=True)]


def _calls_backend(kind: type) -> bool:
    """Whether such a tokenizer does nothing to a text but hand it to its backend."""
    from transformers import PreTrainedTokenizerFast

    own = ("__call__", "_encode_plus", "prepare_for_tokenization")
    base = PreTrainedTokenizerFast
    return issubclass(kind, base) and all(getattr(kind, name, None) is getattr(base, name, None) for name in own)


def encode_plain(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text that stands inside a prompt. The latest short ones are remembered: most prompts end alike."""
    if len(text) > _REMEMBERED_LENGTH:
        return _encoded(tokenizer, text)
    return list(_remembered(tokenizer, text))


@lru_cache(maxsize=256)
def _remembered(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    return tuple(_encoded(tokenizer, text))


def _encoded(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def continuation_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, continuation: str) -> list[int]:
    """The tokens that ``continuation`` adds behind ``prompt``, as one text would be cut.

    Encoding the continuation alone would let some tokenizers put a second space before it.
    """
    before = encode_plain(tokenizer, prompt)
    both = encode_plain(tokenizer, prompt + continuation)
    return both[len(before) :] if both[: len(before)] == before else encode_plain(tokenizer, continuation)


def first_tokens(tokenizer: PreTrainedTokenizerBase, text: str, count: int) -> str:
    """The beginning of ``text`` up to the border behind its first ``count`` tokens, never inside a character."""
    if count <= 0:
        return ""
    if not tokenizer.is_fast:
        return str(tokenizer.decode(encode_plain(tokenizer, text)[:count]))
    spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    return text if len(spans) <= count else text[: min(spans[count - 1][1], spans[count][0])]


def pad_right(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T"]]:
    """Ids [B, T] padded at the end, and the mask of real tokens."""
    if len(rows) == 1:
        ids = torch.tensor([list(rows[0])], dtype=torch.long, device=device)
        return ids, torch.ones_like(ids, dtype=torch.bool)
    length = max(len(row) for row in rows)
    # numpy reads lists of lists several times as fast as torch
    ids = torch.from_numpy(np.array([[*row, *[pad_id] * (length - len(row))] for row in rows], dtype=np.int64))
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(length)[None, :] < lengths[:, None]
    return ids.to(device), mask.to(device)
