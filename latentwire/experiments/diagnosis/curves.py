"""How a training went, from its log.jsonl. Losses are in nats per token or per row, as the trainer writes them.

Standard library only, Python 3.9.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

#: a gradient norm below this is zero: rounding of the log aside, nothing was learned
ZERO_GRADIENT = 1e-5


@dataclass(frozen=True)
class Point:
    """A value at a step; ``index`` is its entry in log.jsonl."""

    index: int
    step: int
    value: float


@dataclass(frozen=True)
class Curve:
    """The logged values of a training."""

    entries: Sequence[dict[str, Any]]

    def points(self, key: str, *, stage: str | None = None) -> list[Point]:
        """All finite values of ``key``; with ``stage`` only those of that stage (validations belong to none)."""
        return [
            Point(index, int(entry.get("step", 0)), float(entry[key]))
            for index, entry in enumerate(self.entries)
            if isinstance(entry.get(key), (int, float)) and stage in (None, entry.get("stage"))
        ]

    @property
    def losses(self) -> list[Point]:
        """Losses of the last stage, the one that ends in the task."""
        return self.points("loss", stage="task") or self.points("loss")

    @property
    def last_step(self) -> int | None:
        steps = [int(entry["step"]) for entry in self.entries if isinstance(entry.get("step"), int)]
        return max(steps, default=None)

    @property
    def non_finite(self) -> tuple[int, dict[str, Any]] | None:
        """(index, entry) of the step at which a number stopped being finite."""
        for index, entry in enumerate(self.entries):
            if entry.get("non_finite"):
                return index, dict(entry)
        return None

    @property
    def is_gradient_zero(self) -> bool:
        """All logged gradient norms are zero, and there are at least two."""
        norms = self.points("gradient_norm")
        return len(norms) >= 2 and all(abs(point.value) < ZERO_GRADIENT for point in norms)

    def late(self, key: str) -> float | None:
        """Median over the last third of the values of ``key`` (of the task stage, where there are stages)."""
        points = self.points(key, stage="task") or self.points(key)
        return statistics.median(point.value for point in points[-max(1, len(points) // 3) :]) if points else None


def first_parting(left: Curve, right: Curve, *, share: float = 0.1) -> tuple[Point, Point] | None:
    """The first common step from which two loss curves stay apart by more than ``share`` of the larger value."""
    ours = {point.step: point for point in left.points("loss")}
    theirs = {point.step: point for point in right.points("loss")}
    common = sorted(set(ours) & set(theirs))
    parted: tuple[Point, Point] | None = None
    for step in common:
        a, b = ours[step].value, theirs[step].value
        apart = abs(a - b) > share * max(abs(a), abs(b))
        parted = (parted or (ours[step], theirs[step])) if apart else None
    return parted
