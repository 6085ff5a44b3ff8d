"""Metrics against verdicts worked out by hand."""

from __future__ import annotations

import dataclasses

import pytest

from latentwire.data.readers import read_task
from latentwire.data.task import Example, load_task
from latentwire.evaluation.answers import normalised, number_of
from latentwire.evaluation.metrics import METRICS
from latentwire.methods.base import Prediction


def example(*answers: str, label: int | None = None) -> Example:
    row = read_task(load_task("tinyworld_record1"), "test", max_rows=1).examples[0]
    return dataclasses.replace(row, answer=answers[0], answers=answers, label=label)


def value(metric: str, text: str, *answers: str) -> float:
    return METRICS[metric](Prediction(text, None, None, 0, 0), example(*answers))


@pytest.mark.parametrize(("option", "label", "expected"), [(1, 1, 1.0), (0, 1, 0.0), (None, 0, 0.0), (0, 0, 1.0)])
def test_accuracy_asks_for_the_gold_option(option: int | None, label: int, expected: float) -> None:
    assert METRICS["accuracy"](Prediction("yes", option, None, 0, 0), example("yes", label=label)) == expected


@pytest.mark.parametrize(
    ("text", "answers", "strict", "loose"),
    [
        ("23", ("23 years", "23"), 1, 1),
        (" 23\n years ", ("23 years",), 1, 1),
        ("The Thames.", ("thames",), 0, 1),
        ("an  U.S. ship", ("US ship",), 0, 1),
        ("the Thames and more", ("Thames",), 0, 0),
        ("a 4 k", ("4 k",), 0, 1),
        ("", ("Thames",), 0, 0),
    ],
)
def test_exact_match_is_strict_and_its_squad_form_forgives_form(
    text: str, answers: tuple[str, ...], strict: float, loose: float
) -> None:
    assert value("exact_match", text, *answers) == strict
    assert value("exact_match_normalised", text, *answers) == loose


@pytest.mark.parametrize(
    ("text", "answers", "expected"),
    [
        ("the river Thames", ("Thames",), 2 / 3),
        ("Thames", ("the river Thames", "Severn"), 2 / 3),
        ("Thames Thames", ("Thames",), 2 / 3),
        ("The Thames!", ("thames",), 1),
        ("Severn", ("Thames",), 0),
        ("", ("Thames",), 0),
        ("the", ("a",), 1),
    ],
)
def test_f1_is_the_best_overlap_of_words(text: str, answers: tuple[str, ...], expected: float) -> None:
    assert value("f1", text, *answers) == pytest.approx(expected)


def test_normalisation_goes_in_the_official_order() -> None:
    assert normalised("  The U.S.A.'s  a-b an\nanthem ") == "usas ab anthem"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("18", 18),
        ("1,000", 1000),
        ("1000.0", 1000),
        ("$1,575,000.50 in all", 1575000.5),
        ("16 - 3 - 4 = 9\n9 * 2 = $18\n#### 18", 18),
        ("#### 1,000\n\nQuestion: 5 more\n#### 7", 1000),
        ("5 - 8 = -3", -3),
        ("5 \N{MINUS SIGN} 8 = \N{MINUS SIGN}3", -3),
        ("10-3", 3),
        ("about .5", 0.5),
        ("it is 12.", 12),
        ("first 1, 2 and 3", 3),
        ("#### none, but 3 before", 3),
    ],
)
def test_a_worked_or_bare_answer_ends_in_its_number(text: str, number: float) -> None:
    assert number_of(text) == number
    assert value("number_match", text, f"all that.\n#### {number}") == 1


@pytest.mark.parametrize("text", ["", "no number", "####", "12 #### none", "١٢"])
def test_where_there_is_no_number_nothing_matches(text: str) -> None:
    assert number_of(text) is None
    assert value("number_match", text, "12") == 0


def test_another_number_does_not_match() -> None:
    assert value("number_match", "1,001", "1000") == 0


def test_every_metric_gives_a_number_from_nought_to_one() -> None:
    for name, metric in METRICS.items():
        for text in ("", "47", "Answer: 47 #### 47", "the"):
            found = metric(Prediction(text, 0, None, 0, 0, option_by_text=1), example("Answer: 47", label=0))
            assert isinstance(found, float), name
            assert 0 <= found <= 1, name


def test_options_whose_texts_were_not_scored_have_no_accuracy_by_text() -> None:
    assert METRICS["accuracy_by_text"](Prediction("A", 0, None, 0, 0), example("A", label=0)) is None
    assert METRICS["accuracy_by_text"](Prediction("A", 0, None, 0, 0, option_by_text=0), example("A", label=0)) == 1.0
