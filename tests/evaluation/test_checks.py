from __future__ import annotations

import pytest

from latentwire.evaluation.checks import check_predictions
from latentwire.evaluation.predictions import PredictionRecord
from tests.evaluation.making import free, header, record


def problems(records: list[PredictionRecord], *, blind: bool = False, **changes: object) -> list[str]:
    return check_predictions(header(records, **changes), records, blind=blind)


ONE_LABEL = [record(index, option=1, label=index % 2) for index in range(20)]
EMPTY = [free(index, "" if index % 2 else f"a{index}", f"{index}") for index in range(20)]
SAME = [free(index, "the same" if index < 18 else "other", f"{index}") for index in range(20)]
BAD = [record(index, option=index % 2, label=index % 2, scores=[None, -1.0] if index == 3 else [-2.0, -1.0]) for index in range(5)]


@pytest.mark.parametrize(
    ("records", "line"),
    [
        (ONE_LABEL, "one label ('yes', option 1) for all 20 rows; gold has 2"),
        (EMPTY, "the text is empty in 10 of 20 rows"),
        (SAME, "the same answer ('the same') in 18 of 20 rows"),
        (BAD, "scores of 1 of 5 rows are no finite numbers, the first in row test-3"),
    ],
)
def test_degenerate_output_is_flagged_in_one_line_but_not_in_a_control(records: list[PredictionRecord], line: str) -> None:
    assert problems(records, seed=7) == [f"questions, receiver_text (seed 7): {line}"]
    assert problems(records, control="shuffled") == []


def test_sound_output_is_not_flagged() -> None:
    assert problems([record(index, option=index % 2, label=0) for index in range(20)]) == []
    assert problems([free(index, f"{index}", "x") for index in range(20)]) == []


def test_few_rows_may_be_alike() -> None:
    for records in (ONE_LABEL, EMPTY, SAME):
        assert problems(records[:19]) == []


def test_one_answer_is_right_where_gold_has_one() -> None:
    assert problems([record(index, option=1, label=1) for index in range(20)]) == []
    assert problems([free(index, "x", "x" if index else "y") for index in range(20)]) == []


def test_a_method_to_which_nothing_arrives_can_only_give_one_answer() -> None:
    assert problems(ONE_LABEL, blind=True) == []
    assert len(problems(BAD, blind=True)) == 1


def test_a_method_that_learned_nothing_may_be_weak_but_not_silent() -> None:
    for records, count in ((ONE_LABEL, 0), (SAME, 0), (EMPTY, 1), (BAD, 1)):
        assert len(check_predictions(header(records), records, learned=False)) == count
