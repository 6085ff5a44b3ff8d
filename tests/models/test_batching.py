from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from latentwire.models.batching import PART_TOKENS, first_of_equals, parts

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
