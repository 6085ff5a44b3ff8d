"""Randomness that is the same in every process and on every machine."""

from __future__ import annotations

from hashlib import blake2b


def stable_hash(text: str) -> int:
    """64-bit hash of a text; Python's own ``hash`` differs from process to process."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
