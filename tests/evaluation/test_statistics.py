from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentwire.evaluation.statistics import wilson_interval


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # checked against statsmodels.stats.proportion.proportion_confint(method="wilson")
    [(0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0), (50, 100, 0.40383, 0.59617), (1, 1000, 0.000177, 0.005642)],
)
def test_known_intervals(successes: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=1e-4)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_share_lies_inside_its_interval(pair: tuple[int, int]) -> None:
    successes, n = pair
    low, high = wilson_interval(successes, n)
    assert 0 <= low <= successes / n <= high <= 1


def test_no_rows_have_no_interval() -> None:
    with pytest.raises(ValueError, match="no share"):
        wilson_interval(0, 0)
