from __future__ import annotations

import pytest

from latentwire.evaluation.rows import chance_level, chance_of, result_rows
from latentwire.evaluation.statistics import wilson_interval
from tests.evaluation.making import answered, free, header, record


def test_every_metric_and_subset_has_its_row() -> None:
    records = [
        free(index, "a", "a", field=("who", "where")[index % 2], held_out=index < 3, values={}) | {"values": values}
        for index, values in enumerate([{"exact_match": 1.0, "f1": 1.0}, {"exact_match": 0.0, "f1": 0.4}] * 5)
    ]
    rows = {(row["metric"], row["subset"]): row for row in result_rows(header(records), records)}  # type: ignore[arg-type]
    assert {subset for _, subset in rows} == {"all", "who", "where", "held_out"}
    assert rows["exact_match", "all"]["value"] == 0.5
    assert (rows["exact_match", "all"]["ci_low"], rows["exact_match", "all"]["ci_high"]) == wilson_interval(5, 10)
    assert rows["f1", "all"]["value"] == pytest.approx(0.7)
    assert rows["f1", "all"]["interval"] == "bca"
    assert rows["f1", "held_out"]["n"] == 3
    assert rows["f1", "where"]["value"] == pytest.approx(0.4)


def test_chance_is_the_better_of_guessing_and_always_giving_one_option() -> None:
    assert answered([True] * 10).header["chance"] == 0.5
    assert chance_level([record(index, option=0, label=int(index > 7)) for index in range(10)]) == 0.8
    # in multiple choice every option reads differently, but one position may be the commonest
    positions = [record(index, option=0, label=0, target=f"text {index}") for index in range(10)]
    assert chance_level(positions) == 1.0
    assert chance_level([free(index, "", str(index), chance=0.0) for index in range(10)]) == 0.1


def test_problems_and_latency_are_carried_on() -> None:
    predictions = answered([True] * 4, problems=["questions: bad"], latency_ms_p50=2.5)
    (row,) = result_rows(*predictions)
    assert (row["problems"], row["latency_ms_p50"]) == (["questions: bad"], 2.5)


def test_the_commonest_answer_is_what_the_metric_compares() -> None:
    worked = [free(index, "", f"{index} + {7 - index % 2} = {index + 7}. Answer: {index % 5}", chance=0.0) for index in range(10)]
    assert chance_level(worked) == 0.1
    assert chance_level(worked, "final_answer") == chance_level(worked, "number_match") == 0.2
    assert chance_level(worked, "exact_match") == 0.1


def test_chance_compares_what_the_metric_compares() -> None:
    worked = [("2 + 5 = 7. Answer: 7", None, 0.1), ("3 + 4 = 7. Answer: 7", None, 0.1), ("1 + 1 = 2. Answer: 2", None, 0.1)]
    assert chance_of(worked, "final_answer") == pytest.approx(2 / 3)
    assert chance_of(worked, "exact_match") == pytest.approx(1 / 3)
    # the same option under other letters
    assert chance_of([("A", 0, 0.25), ("1", 0, 0.25), ("B", 1, 0.25)], "accuracy") == pytest.approx(2 / 3)
