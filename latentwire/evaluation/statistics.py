"""Intervals, paired tests and their correction.

A share has a Wilson interval; the mean of values that are not all 0 or 1 has a bootstrap one (BCa, Efron 1987). Two methods are
compared on the same rows: paired bootstrap for the size of the difference, exact McNemar for whether there is one.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from math import sqrt
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

Z_95 = 1.959963984540054
RESAMPLES = 9999
#: draws held in memory at once
_CHUNK = 2_000_000


class Estimate(NamedTuple):
    """A mean with its 95 % interval.

    ``how`` the interval was found: ``wilson``, ``bca``, ``percentile`` (where BCa is undefined: no resample lies on one side of the
    mean) or ``constant`` (all values are equal, so a bootstrap says nothing and the interval is the value).
    """

    value: float
    low: float
    high: float
    how: str


class SeedSummary(NamedTuple):
    """Mean, sample standard deviation (None for one seed) and every single value."""

    mean: float
    deviation: float | None
    values: tuple[float, ...]


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


def score_interval(values: Sequence[float]) -> Estimate:
    """The mean of per-row scores: Wilson where all are 0 or 1, else BCa. Raises ``ValueError`` for no values."""
    if values and all(value in (0.0, 1.0) for value in values):
        successes = round(sum(values))
        return Estimate(successes / len(values), *wilson_interval(successes, len(values)), "wilson")
    return mean_interval(values)


def mean_interval(values: Sequence[float], seed: int = 0) -> Estimate:
    """95 % bootstrap interval (BCa) of a mean; percentile where BCa is undefined. Equals ``scipy.stats.bootstrap``.

    The mean of a resample depends only on how often each distinct value is drawn, so multinomial counts are drawn instead of rows:
    the same distribution in a hundredth of the time for the few distinct values that scores have.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    import numpy as np

    data = np.asarray(values, dtype=np.float64)
    if data.size == 0 or not np.isfinite(data).all():
        raise ValueError(f"no mean of {data.size} values" if data.size == 0 else "values must be finite")
    # rounded, so that equal differences of thirds count as equal
    distinct, counts = np.unique(data.round(12), return_counts=True)
    if len(distinct) == 1:
        return Estimate(float(distinct[0]), float(distinct[0]), float(distinct[0]), "constant")
    mean = float(data.mean())
    means = _resampled_means(distinct, counts, seed)
    levels, how = _bca_levels(data, means, mean)
    low, high = (float(end) for end in np.quantile(means, levels))
    return Estimate(mean, min(low, mean), max(high, mean), how)


def _resampled_means(distinct: np.ndarray, counts: np.ndarray, seed: int) -> np.ndarray:
    """Means of ``RESAMPLES`` bootstrap samples, [R], of values given by their distinct ones [U] and how often each stands."""
    import numpy as np

    generator, total = np.random.default_rng(seed), int(counts.sum())
    step = max(1, _CHUNK // len(distinct))
    parts = [
        generator.multinomial(total, counts / total, size=min(step, RESAMPLES - start)) @ distinct / total
        for start in range(0, RESAMPLES, step)
    ]
    return np.concatenate(parts)


def _bca_levels(data: np.ndarray, means: np.ndarray, mean: float) -> tuple[list[float], str]:
    """The two quantiles of the resampled means [R] that make the interval, and which kind it is."""
    normal, plain = statistics.NormalDist(), [0.025, 0.975]
    rounding = 1e-12 * max(1.0, abs(mean))
    below = float(((means < mean - rounding).mean() + (means <= mean + rounding).mean()) / 2)
    if not 0 < below < 1:
        return plain, "percentile"
    centred = data - mean
    # the jackknife of a mean has a closed form
    acceleration = float((centred**3).sum() / (6 * (centred**2).sum() ** 1.5))
    bias = normal.inv_cdf(below)
    levels = []
    for z in (-Z_95, Z_95):
        shrink = 1 - acceleration * (bias + z)
        if shrink <= 0:
            return plain, "percentile"
        levels.append(normal.cdf(bias + (bias + z) / shrink))
    return levels, "bca"


def paired_bootstrap(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Estimate:
    """How much better ``a`` is than ``b`` on the same rows: mean of the differences with its BCa interval.

    Raises:
        ValueError: no rows, or not the same number of them.
    """
    return mean_interval([one - other for one, other in zip(a, b, strict=True)], seed)


def mcnemar_exact(right_a: Sequence[bool], right_b: Sequence[bool]) -> float:
    """Two-sided exact p that two methods are right equally often, from the rows where just one of them is (McNemar 1947)."""
    from scipy.stats import binomtest

    only_a = sum(one and not other for one, other in zip(right_a, right_b, strict=True))
    only_b = sum(other and not one for one, other in zip(right_a, right_b, strict=True))
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for their number (Holm 1979), in the order given: uniformly better than Bonferroni, no assumption."""
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        running = max(running, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, running)
    return adjusted


def seed_summary(values: Sequence[float]) -> SeedSummary:
    """What the seeds gave. Raises ``ValueError`` for no values."""
    if not values:
        raise ValueError("no seeds")
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return SeedSummary(statistics.fmean(values), deviation, tuple(values))
