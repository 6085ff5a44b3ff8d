"""Messages made ahead: while the receiver answers one batch on its device, the sender reads the next on another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from latentwire.models.soft_tokens import SoftTokens


class MessagesAhead:
    """``make`` (texts → messages) in a thread of its own, one batch after the other, in the order in which they were begun.

    Results are those of calling ``make`` in place: which thread asks a device for its work changes no number.
    """

    def __init__(self, make: Callable[[Sequence[str]], SoftTokens]) -> None:
        self._make = torch.no_grad()(make)
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sender")
        self._begun: dict[tuple[str, ...], Future[SoftTokens]] = {}

    def begin(self, texts: Sequence[str]) -> None:
        """Starts on these texts, unless they are begun already."""
        key = tuple(texts)
        if key not in self._begun:
            self._begun[key] = self._pool.submit(self._make, list(texts))

    def take(self, texts: Sequence[str]) -> SoftTokens:
        """Their messages, waited for where they were begun and made now where not; raises what making them raised."""
        begun = self._begun.pop(tuple(texts), None)
        return self._make(list(texts)) if begun is None else begun.result()
