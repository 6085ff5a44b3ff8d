"""Intervals for shares."""

from __future__ import annotations

from math import sqrt

Z_95 = 1.959963984540054


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927): sound near 0 and 1, where the normal one is not.

    Raises:
        ValueError: ``n`` is 0 or ``successes`` is outside 0-n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"no share of {successes} in {n}")
    share = successes / n
    denominator = 1 + Z_95**2 / n
    centre = (share + Z_95**2 / (2 * n)) / denominator
    half = Z_95 * sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2)) / denominator
    # rounding must not push the ends past the share itself
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high
