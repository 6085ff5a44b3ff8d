from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentwire.evaluation.statistics import (
    _bca_levels,
    holm,
    mcnemar_exact,
    mean_interval,
    paired_bootstrap,
    score_interval,
    seed_summary,
    wilson_interval,
)

shares = st.floats(0, 1, allow_nan=False).map(lambda value: round(value, 3))


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
    with pytest.raises(ValueError, match="no mean"):
        mean_interval([])
    with pytest.raises(ValueError, match="finite"):
        mean_interval([0.1, float("nan")])
    with pytest.raises(ValueError, match="no seeds"):
        seed_summary([])


@pytest.mark.parametrize(
    ("name", "draw"),
    {
        "skewed": lambda random: random.beta(0.3, 2.0, 150),
        "few distinct": lambda random: random.choice([-1.0, 0.0, 1.0], 300, p=[0.1, 0.6, 0.3]),
        "thirds": lambda random: random.choice([0, 1 / 3, 2 / 3, 1], 80, p=[0.02, 0.03, 0.15, 0.8]),
    }.items(),
)
def test_bca_agrees_with_scipy(name: str, draw: object) -> None:
    from scipy.stats import bootstrap

    values = draw(np.random.default_rng(7))  # type: ignore[operator]
    ours = mean_interval(values.tolist())
    theirs = bootstrap((values,), np.mean, n_resamples=9999, method="BCa", rng=np.random.default_rng(1)).confidence_interval
    width = theirs.high - theirs.low
    assert ours.how == "bca"
    assert ours.value == pytest.approx(values.mean())
    # two runs of 9,999 resamples differ by about 2 % of the width
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.05 * width), name


@settings(max_examples=25, deadline=None)
@given(st.lists(shares, min_size=1, max_size=40))
def test_the_mean_lies_inside_its_interval_and_the_interval_inside_the_values(values: list[float]) -> None:
    found = score_interval(values)
    assert found.value == pytest.approx(sum(values) / len(values))
    assert found.low <= found.value <= found.high
    if found.how != "wilson":
        assert min(values) - 1e-9 <= found.low
        assert found.high <= max(values) + 1e-9


def test_shares_get_wilson_and_everything_else_the_bootstrap() -> None:
    assert score_interval([0.0, 1.0, 1.0]).how == "wilson"
    assert score_interval([1.0, 1.0])[1:3] == wilson_interval(2, 2)
    assert score_interval([0.0, 0.5, 1.0]).how == "bca"
    assert mean_interval([0.25, 0.25, 0.25]) == (0.25, 0.25, 0.25, "constant")


def test_an_interval_is_the_same_every_time_and_narrows_with_rows() -> None:
    values = [0.0, 0.2, 0.9, 1.0] * 10
    assert mean_interval(values) == mean_interval(values)
    more = mean_interval(values * 25)
    width = mean_interval(values).high - mean_interval(values).low
    assert (more.high - more.low) == pytest.approx(width / 5, rel=0.1)


def test_where_bca_is_undefined_the_percentile_interval_is_given_and_said() -> None:
    # every resample on one side of the mean: the correction for bias would be infinite
    data = np.array([0.0, 1.0])
    assert _bca_levels(data, np.array([0.9, 0.8]), 0.5) == ([0.025, 0.975], "percentile")


def test_the_paired_difference() -> None:
    a, b = [1.0, 1.0, 0.0, 1.0] * 25, [1.0, 0.0, 0.0, 1.0] * 25
    found = paired_bootstrap(a, b, seed=3)
    assert found.value == 0.25
    # a quarter of 100 rows: 0.25 ± 1.96 · sqrt(0.25 · 0.75 / 100)
    assert (found.low, found.high) == pytest.approx((0.165, 0.335), abs=0.02)
    back = paired_bootstrap(b, a, seed=3)
    assert (-back.high, -back.low) == pytest.approx((found.low, found.high), abs=0.02)
    assert paired_bootstrap(a, a) == (0.0, 0.0, 0.0, "constant")
    with pytest.raises(ValueError):
        paired_bootstrap(a, b[1:])


def test_pairing_is_worth_having() -> None:
    random = np.random.default_rng(0)
    hard = random.random(400)
    a, b = (hard + 0.05).tolist(), hard.tolist()
    assert paired_bootstrap(a, b).low > 0.04
    assert mean_interval(a).low < mean_interval(b).high


@pytest.mark.parametrize(
    ("only_a", "only_b", "both", "p"),
    # two-sided binomial by hand: 2 · (1 + 10) / 2^10 for 1 and 9, 2 / 2^5 for 5 and 0
    [(1, 9, 3, 22 / 1024), (5, 0, 2, 2 / 32), (4, 4, 0, 1.0), (0, 0, 6, 1.0)],
)
def test_mcnemar_counts_the_rows_where_just_one_is_right(only_a: int, only_b: int, both: int, p: float) -> None:
    right_a = [True] * only_a + [False] * only_b + [True] * both + [False] * 5
    right_b = [False] * only_a + [True] * only_b + [True] * both + [False] * 5
    assert mcnemar_exact(right_a, right_b) == pytest.approx(p)
    assert mcnemar_exact(right_b, right_a) == pytest.approx(p)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_helps_and_never_exceeds_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for before, after in zip(p_values, adjusted, strict=True):
        assert before <= after <= min(1.0, len(p_values) * before) or after == pytest.approx(before)
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    assert [adjusted[index] for index in order] == sorted(adjusted)


def test_the_seeds_are_summed_up_and_all_kept() -> None:
    assert seed_summary([0.5, 0.7, 0.9]) == (pytest.approx(0.7), pytest.approx(0.2), (0.5, 0.7, 0.9))
    assert seed_summary([0.5]) == (0.5, None, (0.5,))
