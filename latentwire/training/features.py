"""The feature cache: a frozen sender reads each text once, ever.

Layout below the cache folder: ``<sender key>/segment-<digest>.bin`` holds the states of many texts end to end,
``…json`` beside it their places, lengths and checksums. Segments are written whole or not at all, mapped into memory
when read, and never changed. A segment that is cut or corrupt is set aside and its texts are read again.

Shapes: B rows, S sender tokens, D_s sender width.
"""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentwire.errors import ArtefactError, LatentWireError
from latentwire.files import digest, read_json, replacing, write_json
from latentwire.models.sender import Sender, SenderStates

DEFAULT_CAP_GIB = 50.0
SEGMENT_BYTES = 256 * 2**20
#: texts that the sender reads at once
READ_TOGETHER = 64

Notice = Callable[[str], None]


def cache_folder() -> Path:
    """``LATENTWIRE_CACHE``, else ``~/.cache/latentwire``."""
    return Path(os.environ.get("LATENTWIRE_CACHE") or Path.home() / ".cache" / "latentwire") / "features"


@dataclass(frozen=True)
class _Place:
    """Where the states of one text stand: segment, first row, number of rows, checksum."""

    segment: Path
    start: int
    tokens: int
    crc32: int


class FeatureCache:
    """Sender states of texts, computed on first request and mapped from disk afterwards.

    Args:
        folder: root of the cache, shared by all runs.
        cap_gib: when a new segment would exceed this, the least recently used segments of all senders go first.
        notice: called with a line when something is set aside or evicted.
    """

    def __init__(
        self, sender: Sender, *, folder: Path | None = None, cap_gib: float = DEFAULT_CAP_GIB, notice: Notice = lambda line: None
    ) -> None:
        self.sender, self.root, self.cap_bytes, self.notice = sender, folder or cache_folder(), int(cap_gib * 2**30), notice
        self.folder = self.root / sender.key
        self.texts_read = 0
        self._places: dict[str, _Place] = {}
        self._maps: dict[Path, Tensor] = {}
        self._checked: set[str] = set()
        for index in sorted(self.folder.glob("segment-*.json")):
            self._open(index)

    # ------------------------------------------------------------------------------------------------------ reading

    def states(self, texts: Sequence[str]) -> SenderStates:
        """States [B, S, D_s] of the texts on the sender's device; missing ones are computed first."""
        keys = [digest(text)[:32] for text in texts]
        self.add(texts)
        rows = [self._row(key) for key in keys]
        if any(row is None for row in rows):  # a damaged segment was set aside just now
            self.add(texts)
            rows = [self._row(key) for key in keys]
        found = [row for row in rows if row is not None]
        lengths = torch.tensor([len(row) for row in found])
        states = torch.zeros(len(found), int(lengths.max()), self.sender.width, dtype=self.sender.dtype)
        for index, row in enumerate(found):
            states[index, : len(row)] = row
        mask = torch.arange(states.shape[1])[None, :] < lengths[:, None]
        return SenderStates(states.to(self.sender.device), mask.to(self.sender.device))

    def _row(self, key: str) -> Tensor | None:
        place = self._places.get(key)
        if place is None:
            return None
        row = self._maps[place.segment][place.start : place.start + place.tokens]
        if key not in self._checked:
            if zlib.crc32(row.view(torch.uint8).numpy().tobytes()) != place.crc32:
                self._set_aside(place.segment, "a checksum does not match")
                return None
            self._checked.add(key)
        return row

    # ------------------------------------------------------------------------------------------------------ writing

    def add(self, texts: Sequence[str]) -> None:
        """Reads the texts that are not cached yet, in batches of similar length, and stores them."""
        missing = {key: text for text in texts if (key := digest(text)[:32]) not in self._places}
        ordered = sorted(missing.items(), key=lambda item: len(item[1]))
        pending: list[tuple[str, Tensor]] = []
        pending_bytes = 0
        for start in range(0, len(ordered), READ_TOGETHER):
            part = ordered[start : start + READ_TOGETHER]
            read = self.sender.read([text for _, text in part])
            for index, (key, _) in enumerate(part):
                row = read.states[index][read.mask[index]].to("cpu").contiguous()
                pending.append((key, row))
                pending_bytes += row.numel() * row.element_size()
            if pending_bytes >= SEGMENT_BYTES:
                self._write_segment(pending)
                pending, pending_bytes = [], 0
        if pending:
            self._write_segment(pending)
        self.texts_read += len(ordered)

    def _write_segment(self, rows: list[tuple[str, Tensor]]) -> None:
        name = f"segment-{digest(*(key for key, _ in rows))[:16]}"
        raw = [row.view(torch.uint8).numpy().tobytes() for _, row in rows]
        self._make_room(sum(len(part) for part in raw))
        entries, start = {}, 0
        for (key, row), part in zip(rows, raw, strict=True):
            entries[key] = [start, len(row), zlib.crc32(part)]
            start += len(row)
        with replacing(self.folder / f"{name}.bin") as temporary, temporary.open("wb") as file:
            for part in raw:
                file.write(part)
        index = self.folder / f"{name}.json"
        write_json(index, {"sender": self.sender.source.name, "layer": self.sender.layer, "rows": start, "texts": entries})
        self._open(index)

    def _open(self, index: Path) -> None:
        segment = index.with_suffix(".bin")
        try:
            content: dict[str, Any] = read_json(index, what="feature cache index")
            expected = content["rows"] * self.sender.width * self.sender.dtype.itemsize
            if not segment.is_file() or segment.stat().st_size != expected:
                raise ArtefactError("its size does not match")
        except (ArtefactError, KeyError, TypeError) as error:
            self._set_aside(segment, str(error))
            return
        raw = np.memmap(segment, dtype=np.uint8, mode="c")
        self._maps[segment] = torch.from_numpy(raw).view(self.sender.dtype).view(-1, self.sender.width)
        for key, (start, tokens, crc32) in content["texts"].items():
            self._places[key] = _Place(segment, start, tokens, crc32)
        os.utime(index)  # last use, for the cap

    def _set_aside(self, segment: Path, reason: str) -> None:
        self.notice(f"feature cache segment {segment.name} set aside ({reason}); its texts are read again")
        self._places = {key: place for key, place in self._places.items() if place.segment != segment}
        self._maps.pop(segment, None)
        for path in (segment, segment.with_suffix(".json")):
            if path.exists():
                path.replace(path.with_suffix(path.suffix + ".corrupt"))

    def _make_room(self, new_bytes: int) -> None:
        if new_bytes > self.cap_bytes:
            raise LatentWireError(
                f"the feature cache is capped at {self.cap_bytes / 2**30:.1f} GiB, this segment needs {new_bytes / 2**30:.1f} GiB; "
                "raise data.cache_cap_gib or use fewer rows"
            )
        segments = sorted(self.root.glob("*/segment-*.json"), key=lambda path: path.stat().st_mtime)
        used = sum(path.with_suffix(".bin").stat().st_size for path in segments if path.with_suffix(".bin").exists())
        for index in segments:
            if used + new_bytes <= self.cap_bytes:
                return
            segment = index.with_suffix(".bin")
            if segment in self._maps:  # in use by this run
                continue
            used -= segment.stat().st_size if segment.exists() else 0
            index.unlink(missing_ok=True)
            segment.unlink(missing_ok=True)
            self.notice(f"feature cache: {segment.name} evicted to stay under {self.cap_bytes / 2**30:.1f} GiB")


def cache_summary() -> list[dict[str, object]]:
    """One entry per sender and layer in the cache: name, layer, segments, texts, bytes."""
    entries = []
    for sender_folder in sorted(path for path in cache_folder().glob("*") if path.is_dir()):
        indexes = [read_json(path, what="feature cache index") for path in sorted(sender_folder.glob("segment-*.json"))]
        entries.append(
            {
                "key": sender_folder.name,
                "sender": indexes[0]["sender"] if indexes else "?",
                "layer": indexes[0]["layer"] if indexes else "?",
                "segments": len(indexes),
                "texts": sum(len(index["texts"]) for index in indexes),
                "bytes": sum(path.stat().st_size for path in sender_folder.iterdir()),
            }
        )
    return entries


def clear_cache() -> int:
    """Deletes every cached state; returns the bytes freed."""
    root = cache_folder()
    freed = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    shutil.rmtree(root, ignore_errors=True)
    return freed
