"""Packing: how the words of a note share fewer soft tokens, learned through the receiver alone, before any sender.

A message of fewer soft tokens than words must say several words in one vector, and which sums of them a receiver can take apart
again is the receiver's own affair. So it is asked first: the words of the gold notes, as the receiver's own embeddings, pass one
matrix for each pair of a word's place in its record and a soft token of the record, and these matrices learn to get the task's
questions answered. A bridge is then drawn towards what they make of a note (``training.align_to=packing``), without a pass of the
receiver. Being linear in the tokens, a packing says a word that it never saw by its parts.

A note is one record, or several with semicolons between them. Each gets the soft tokens that begin in its own sentence of the
text, so that a bridge sees from near by what a soft token is to say; where sentences and records do not match, all get like shares.
Of more soft tokens than a record's note has use for, those behind all say the same. Where few records get few soft tokens, the
matrices for these learn little; so in a share of the train messages (``packing.redrawn``) each number is as likely as any other.

Shapes: B rows, K soft tokens, S soft tokens of one record, D_r receiver width.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from latentwire.bridges.base import BridgeConfig
from latentwire.config import RunConfig, differences
from latentwire.data.task import Example
from latentwire.errors import ArtefactError, DataError, MismatchError
from latentwire.files import read_json, write_bytes
from latentwire.models.receiver import Receiver
from latentwire.models.sender import Sender
from latentwire.models.soft_tokens import SoftTokens

WEIGHTS_FILE, CONFIG_FILE = "packing.safetensors", "config.json"
RECORDS_APART = ";"
SENTENCE_END = re.compile(r"[.!?](?=\s|$)")
#: places of a record: its words, the last of which has one of its own, and the tokens of a word; more share the last place
MOST_WORDS, MOST_PIECES = 6, 4
PLACES = MOST_WORDS * MOST_PIECES
MOST_COUNTED_ROWS = 3000

#: (place, receiver token) of all words of a record
Record = tuple[tuple[int, int], ...]


def read_note(text: str, receiver: Receiver) -> tuple[Record, ...]:
    """The records of a note; the marks between them are left out."""
    encoded = receiver.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    tokens = [(token, *span) for token, span in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)]
    records, at = [], 0
    for record in text.split(RECORDS_APART):
        words, found = record.split(), []
        for number, word in enumerate(words):
            start = text.index(word, at)
            at = start + len(word)
            row = MOST_WORDS - 1 if number == len(words) - 1 else min(number, MOST_WORDS - 2)
            pieces = [token for token, begin, end in tokens if end > start and begin < at and end > begin]
            found += [(row * MOST_PIECES + min(piece, MOST_PIECES - 1), token) for piece, token in enumerate(pieces)]
        if found:
            records.append(tuple(found))
    return tuple(records)


def even_shares(soft_tokens: int, records: int) -> tuple[int, ...]:
    """How many of the soft tokens each record gets: as many as the others, or one more."""
    return tuple(soft_tokens * (number + 1) // records - soft_tokens * number // records for number in range(records))


def drawn_shares(sizes: Sequence[int], records: int) -> tuple[int, ...]:
    """For each record one of ``sizes``, drawn evenly."""
    return tuple(sizes[int(drawn)] for drawn in torch.randint(len(sizes), (records,)))


def soft_token_starts(config: BridgeConfig, sender: Sender, text: str) -> list[int] | None:
    """The character at which each soft token's sender tokens begin; nothing for a bridge that sends a fixed number of them."""
    if config.fixed_soft_tokens:
        return None
    encoded = sender.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    starts = [start for start, _ in encoded["offset_mapping"]]
    return starts[config.skipped(len(starts)) :: config.sender_tokens_per_soft_token or 1]


def sentence_shares(text: str, starts: Sequence[int], records: int) -> tuple[int, ...] | None:
    """How many soft tokens begin in each record's sentence; nothing where the text has not one sentence for each record."""
    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    if len(ends) != records:
        return None
    found = Counter(min(bisect_right(ends, start), records - 1) for start in starts)
    return tuple(found[number] for number in range(records))


class Packing(nn.Module):
    """One matrix [places · D_r, S · D_r] for records of S soft tokens, for each S of ``sizes``, and a vector that says nothing.

    Args:
        gain: scale of soft tokens at first, in units of that of the receiver's embeddings.
        unfold: vectors that the receiver reads behind each soft token, learned as a bridge's are.
    """

    def __init__(self, receiver: Receiver, sizes: Iterable[int], *, gain: float = 1.0, unfold: int = 0) -> None:
        super().__init__()
        self.width, self.rms = receiver.width, receiver.embedding_rms
        self.table = receiver.embed.weight.detach()
        self.gain = nn.Parameter(torch.tensor(gain, device=receiver.device))
        #: a bridge's soft tokens all have the same length, so nothing cannot be said by a vector of zeros
        self.nothing = nn.Parameter(torch.zeros(self.width, device=receiver.device))
        self.maps = nn.ParameterDict({str(size): self._first_map(size).to(receiver.device) for size in sorted(set(sizes))})
        first = torch.randn(unfold, self.width).to(receiver.device) if unfold else None
        self.unfold_embeddings = None if first is None else nn.Parameter(first)

    @property
    def sizes(self) -> list[int]:
        """The numbers of soft tokens that there are matrices for."""
        return sorted(map(int, self.maps))

    def _first_map(self, size: int) -> Float[Tensor, "from to"]:
        """Every token as it is in one soft token: two soft tokens for each of the first two words, one for others, in a ring."""
        # a soft token that no place begins in must have a direction too
        first = 0.002 * torch.randn(MOST_WORDS, MOST_PIECES, self.width, size, self.width)
        at = 0
        for word in range(MOST_WORDS):
            for piece in range(MOST_PIECES):
                first[word, piece, :, (at + min(piece, 1)) % size] += torch.eye(self.width)
            at += 2 if word < 2 else 1
        return first.flatten(3).flatten(0, 2)

    def forward(self, notes: Sequence[Sequence[Record]], shares: Sequence[Sequence[int]]) -> SoftTokens:
        """Each record in as many soft tokens as ``shares`` says, one behind another, at the scale of ``gain``."""
        device = self.gain.device
        places: dict[int, list[tuple[int, int, Record]]] = {}
        lengths = [sum(sizes) for sizes in shares]
        for row, (records, sizes) in enumerate(zip(notes, shares, strict=True)):
            at = 0
            for record, size in zip(records, sizes, strict=True):
                if size:
                    places.setdefault(size, []).append((row, at, record))
                at += size
        most = max(lengths)
        vectors = torch.zeros(len(notes) * most, self.width, device=device)
        for size, found in places.items():
            known = min(self.sizes, key=lambda other: (abs(other - size), other))
            said = (self._placed([record for _, _, record in found]) @ self.maps[str(known)]).unflatten(1, (known, self.width))
            kept = min(size, known)
            where = torch.tensor([[row * most + at + number for number in range(size)] for row, at, _ in found], device=device)
            nothing = self.nothing.expand(len(found), size - kept, -1)
            vectors = vectors.index_put((where,), torch.cat([said[:, :kept], nothing], dim=1))
        vectors = vectors * torch.rsqrt(vectors.pow(2).mean(-1, keepdim=True) + 1e-6)
        mask = torch.arange(most, device=device)[None] < torch.tensor(lengths, device=device)[:, None]
        vectors = vectors.view(len(notes), most, self.width) * (self.rms * self.gain) * mask[..., None]
        return SoftTokens(vectors, mask, unfold=None if self.unfold_embeddings is None else self.unfold_embeddings * self.rms)

    def _placed(self, records: Sequence[Record]) -> Float[Tensor, "records from"]:
        """The embeddings of each record's tokens at their places; tokens of one place are added up."""
        device = self.gain.device
        items = [(line, place, token) for line, record in enumerate(records) for place, token in record]
        lines, places, tokens = torch.tensor(items, device=device).unbind(-1)
        placed = torch.zeros(len(records), PLACES, self.width, device=device)
        return placed.index_put((lines, places), self.table[tokens].float(), accumulate=True).flatten(1)


class Notes:
    """The notes of rows as a packing reads them, and how many soft tokens the bridge makes of their texts; each read once."""

    def __init__(self, bridge: BridgeConfig, sender: Sender, receiver: Receiver) -> None:
        self.bridge, self.sender, self.receiver = bridge, sender, receiver
        self._read: dict[str, tuple[Record, ...]] = {}
        self._starts: dict[str, list[int] | None] = {}

    def of(self, row: Example) -> tuple[Record, ...]:
        """Raises ``DataError`` where the row has no note."""
        if row.note is None:
            raise DataError(f"task {row.task!r} has no notes, so there is nothing to pack; use training.align_to=text")
        if row.note not in self._read:
            self._read[row.note] = read_note(row.note, self.receiver)
        if not self._read[row.note]:
            raise DataError(f"task {row.task!r}: the note of row {row.id!r} is empty, so there is nothing to pack")
        return self._read[row.note]

    def length(self, row: Example) -> int:
        """How many soft tokens the bridge makes of the row's text."""
        starts = self._soft_token_starts(row.sender_prompt)
        return self.bridge.fixed_soft_tokens or 0 if starts is None else len(starts)

    def shares(self, row: Example) -> tuple[int, ...]:
        """How many of them each record of the row's note gets."""
        records, starts = len(self.of(row)), self._soft_token_starts(row.sender_prompt)
        found = None if starts is None else sentence_shares(row.sender_prompt, starts, records)
        return found or even_shares(self.length(row), records)

    def _soft_token_starts(self, text: str) -> list[int] | None:
        if text not in self._starts:
            self._starts[text] = soft_token_starts(self.bridge, self.sender, text)
        return self._starts[text]

    def packed(self, packing: Packing, rows: Sequence[Example], *, redrawn: float = 0.0) -> SoftTokens:
        """What the packing makes of the rows' notes; a share ``redrawn`` of them with shares as :func:`drawn_shares` gives them."""
        shares = [self.shares(row) for row in rows]
        if redrawn:
            chosen = torch.rand(len(rows)) < redrawn
            shares = [drawn_shares(packing.sizes, len(own)) if new else own for own, new in zip(shares, chosen, strict=True)]
        return replace(packing([self.of(row) for row in rows], shares), stride=self.bridge.stride)

    def sizes(self, rows: Sequence[Example], *, most: int) -> set[int]:
        """All numbers of soft tokens, up to ``most``, that records of these rows get."""
        # rows stand by task
        counted = rows[:: max(1, len(rows) // MOST_COUNTED_ROWS)]
        return {min(size, most) for row in counted for size in self.shares(row) if size}


def save_packing(packing: Packing, folder: Path) -> None:
    """Writes its file into the folder, whole."""
    tensors: dict[str, Any] = {name: tensor.detach().cpu().contiguous() for name, tensor in packing.state_dict().items()}
    write_bytes(folder / WEIGHTS_FILE, save(tensors))


def find_packing(config: RunConfig) -> Path:
    """The file of the learned packing that the config's bridge is drawn towards.

    Raises:
        ArtefactError: there is none. MismatchError: it was learned with other settings.
    """
    folder, run = config.packing_folder, config.packing_run
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise ArtefactError(
            f"{str(path)!r} does not exist; learn it with `latentwire pretrain-bridge CONFIG`, or use `train CONFIG --pretrain`"
        )
    if (folder / CONFIG_FILE).is_file():
        saved = read_json(folder / CONFIG_FILE, what="packing config").get("config", {})
        # what came later stands in no older file
        there, here = dict(saved.get("packing", {})), config.packing.model_dump(mode="json")
        other = differences(there, {key: here[key] for key in here if key in there}, "packing")
        other += differences(saved.get("bridge", {}), run.bridge, "bridge")
        if other:
            raise MismatchError(
                f"the packing in {str(folder)!r} was learned with other settings ({'; '.join(other[:3])}); give this run the same, "
                "or learn another with `latentwire pretrain-bridge` into another folder"
            )
    return path


def load_packing(path: Path, receiver: Receiver) -> Packing:
    """The learned packing in a file (``find_packing``), frozen. Raises ``ArtefactError`` where it is cut or of another receiver."""
    try:
        tensors = load_file(path)
        sizes = [int(name.removeprefix("maps.")) for name in tensors if name.startswith("maps.")]
        packing = Packing(receiver, sizes, unfold=len(tensors.get("unfold_embeddings", ())))
        packing.load_state_dict(tensors)
    except (SafetensorError, ValueError, RuntimeError):
        raise ArtefactError(f"packing {str(path)!r} is cut, corrupt or of another receiver; remove it and learn it again") from None
    return packing.requires_grad_(False)
