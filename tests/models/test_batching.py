from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from latentwire.models.batching import ALIKE_ROWS, ALIKE_SHARE, PART_TOKENS, alike, first_of_equals, parts

CPU = torch.device("cpu")


@given(lengths=st.lists(st.integers(1, 6000), max_size=60))
def test_every_row_is_in_one_part_and_no_part_of_several_rows_is_too_large(lengths: list[int]) -> None:
    found = parts(lengths, CPU)
    assert sorted(row for part in found for row in part) == list(range(len(lengths)))
    for part in found:
        assert len(part) == 1 or len(part) * max(lengths[row] for row in part) <= PART_TOKENS["cpu"]


def test_rows_of_like_length_stand_together() -> None:
    found = parts([3000, 10, 3000, 10], CPU)
    assert found == [[1, 3], [0], [2]]


def test_equal_rows_are_found_and_rows_with_equal_sums_are_not_taken_for_equal() -> None:
    a, b = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 1.0]])
    embeddings = torch.stack([a, b, a, a])
    mask = torch.tensor([[True], [True], [True], [False]])
    assert first_of_equals(embeddings, mask) == [0, 1, 0, 3]


@given(lengths=st.lists(st.integers(1, 600), min_size=1, max_size=80))
def test_groups_alike_hold_every_row_once_and_are_worth_a_pass(lengths: list[int]) -> None:
    groups = alike(lengths)
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    assert len(groups) == 1 or min(map(len, groups)) >= ALIKE_ROWS
    for group in groups:
        ordered = sorted((lengths[row] for row in group), reverse=True)
        # short rows stand in a group of long ones only where they are too few for one of their own
        short = sum(length < ALIKE_SHARE * ordered[0] for length in ordered)
        assert short < 2 * ALIKE_ROWS


def test_long_and_short_rows_are_apart() -> None:
    assert alike([10, 90] * 16) == [list(range(1, 32, 2)), list(range(0, 32, 2))]
    assert alike([10, 90]) == [[1, 0]]
