from __future__ import annotations

import pytest
import torch

from latentwire.benchmarks.timing import loglog_slope, measure, paired_ratio

CPU = torch.device("cpu")


def test_candidates_take_turns_on_the_same_repetition() -> None:
    heard: list[tuple[str, int]] = []
    candidates = {name: (lambda turn, name=name: heard.append((name, turn))) for name in "abc"}
    times = measure(candidates, device=CPU, repetitions=20, warmup=2)
    rounds = [heard[start : start + 3] for start in range(0, len(heard), 3)]
    assert [{turn for _, turn in own} for own in rounds] == [{turn} for turn in range(22)]
    assert all({name for name, _ in own} == set("abc") for own in rounds)
    # nobody always comes first
    assert {own[0][0] for own in rounds} == set("abc")
    assert {len(values) for values in times.wall_ms.values()} == {20}


def test_a_ratio_is_not_moved_by_load_that_hits_both() -> None:
    load = [1.0, 1.0, 5.0, 1.0, 9.0, 1.0, 1.0, 30.0]
    ratio = paired_ratio([2 * slow for slow in load], load)
    assert (ratio.low, ratio.value, ratio.high) == (2.0, 2.0, 2.0)


def test_the_interval_holds_the_ratio_and_widens_with_spread() -> None:
    narrow = paired_ratio([1.0, 1.01, 0.99, 1.0, 1.02, 0.98] * 5, [1.0] * 30)
    wide = paired_ratio([1.0, 2.0, 0.5, 1.0, 3.0, 0.4] * 5, [1.0] * 30)
    for ratio in (narrow, wide):
        assert ratio.low <= ratio.value <= ratio.high
    assert wide.high - wide.low > narrow.high - narrow.low


def test_spread_is_in_order_and_says_how_many() -> None:
    spread = measure({"a": lambda turn: sum(range(1000 * turn))}, device=CPU, repetitions=30).spread("a")
    assert spread["n"] == 30
    assert spread["p25_ms"] <= spread["median_ms"] == spread["p50_ms"] <= spread["p75_ms"] <= spread["p95_ms"] <= spread["p99_ms"]
    assert spread["device_ms"] is None


@pytest.mark.parametrize("power", [0, 1, 2])
def test_slopes(power: int) -> None:
    sizes = [2, 4, 8, 16]
    assert loglog_slope(sizes, [3.0 * size**power for size in sizes]) == pytest.approx(power)
