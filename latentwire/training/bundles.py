"""The rows of a training: which of them one message serves, and which a step sees."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from random import Random

from latentwire.data.task import Example


class Bundles(ABC):
    """Rows that one message serves, many times over; a bundle may be made when it is asked for."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sequence[Example]: ...

    @property
    @abstractmethod
    def rows(self) -> int:
        """How many rows all bundles hold."""


class RowBundles(Bundles):
    """Rows with a context in common, together where several ``questions`` are asked at a time; else each on its own."""

    def __init__(self, rows: Sequence[Example], questions: int = 1) -> None:
        found: dict[object, list[Example]] = {}
        for number, row in enumerate(rows):
            key = (row.task, row.sender_prompt, row.receiver_prompt.before) if questions > 1 else number
            found.setdefault(key, []).append(row)
        self._bundles, self._rows = list(found.values()), len(rows)

    def __len__(self) -> int:
        return len(self._bundles)

    def __getitem__(self, index: int) -> Sequence[Example]:
        return self._bundles[index]

    @property
    def rows(self) -> int:
        return self._rows


class RowOrder:
    """Indices of bundles for any step: shuffled epochs end to end, computed from (seed, epoch) alone.

    Args:
        buckets: so many batches at a time are put in order of ``length`` and cut anew, so that rows alike in length share a batch
            and little of it is padding; which of these batches comes first is drawn. Every bundle is seen as often as without.
    """

    def __init__(self, rows: int, seed: int, *, buckets: int = 1, length: Callable[[int], int] = lambda index: 0) -> None:
        self.rows, self.seed, self.buckets, self.length = rows, seed, buckets, length
        self._epoch: tuple[int, list[int]] = (-1, [])
        self._window: tuple[tuple[int, int], list[list[int]]] = ((-1, 0), [])

    def batch(self, step: int, size: int) -> list[int]:
        if self.buckets == 1:
            return self._shuffled(step, size)
        window, place = divmod(step, self.buckets)
        if self._window[0] != (window, size):
            self._window = ((window, size), self._alike(window, size))
        return self._window[1][place]

    def _shuffled(self, step: int, size: int) -> list[int]:
        return [self._at(position) for position in range(step * size, (step + 1) * size)]

    def _alike(self, window: int, size: int) -> list[list[int]]:
        """The batches of a window, rows alike in length together."""
        indices = sorted(self._shuffled(window, self.buckets * size), key=self.length)
        batches = [indices[start : start + size] for start in range(0, len(indices), size)]
        Random(f"buckets:{self.seed}:{window}").shuffle(batches)
        return batches

    def _at(self, position: int) -> int:
        epoch, offset = divmod(position, self.rows)
        if self._epoch[0] != epoch:
            order = list(range(self.rows))
            Random(f"order:{self.seed}:{epoch}").shuffle(order)
            self._epoch = (epoch, order)
        return self._epoch[1][offset]
