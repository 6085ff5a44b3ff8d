from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentwire.data.readers import read_task
from latentwire.data.task import load_task
from latentwire.messages.spans import find_spans, joined

CASES: dict[str, list[str]] = {
    # names
    "Maria left 47 apples in Lisbon.": ["Maria", "47", "Lisbon"],
    "In Oakville, Tomas has 12 red boats.": ["Oakville", "Tomas", "12"],
    "The 33 toys in Berton belong to Karika. Then Karika sells 5.": ["33", "Berton", "Karika", "5"],
    "Researchers met. The researchers of the Bank of America left.": ["Bank of America"],
    "I think it's NASA's U.S. office; I'm sure.": ["NASA", "U.S."],
    "Émile Zola lebt in Köln.": ["Émile Zola", "Köln"],
    'It began. "Never mind," he said to Mr. Smith.': ["Never mind,", "Mr", "Smith"],
    # numbers
    "It fell to -3.5 °C, 40 % off $1,200.50 at 12 km/h.": ["-3.5 °C", "40 %", "$1,200.50", "12 km/h"],
    "He ran 3.5km from 10:30 and won 2nd place of 3-4 in half a day.": ["3.5km", "10:30", "2nd", "3-4", "half"],
    "He left 47 in the box and twenty-five outside.": ["47", "twenty-five"],
    # codes and addresses
    "The code is 4 f 2 k 9.": ["4 f 2 k 9"],
    "The part SKU-7781 in 12-AB-9 runs v1.2.3 of user_42.": ["SKU-7781", "12-AB-9", "v1.2.3", "user_42"],
    "mail to anna.b@mail.org or see https://x.org/a?b=1 now": ["anna.b@mail.org", "https://x.org/a?b=1"],
    # quoted text and dates
    "she said “blue whale” and 'grey seal' to the dogs' owner": ["blue whale", "grey seal"],
    "born on 12 March 2024, on March 12, 2024, or on 2024-03-12": ["12 March 2024", "March 12, 2024", "2024-03-12"],
    "As of December 6, 2015 all was well.": ["December 6, 2015"],
    # nothing
    "although the film was dull, the plot was moving.": [],
    "Why was I charged? Please help.": [],
    "": [],
}


@pytest.mark.parametrize("text", CASES, ids=[text[:30] or "empty" for text in CASES])
def test_what_must_arrive_exactly(text: str) -> None:
    assert find_spans(text) == CASES[text]


def test_a_word_that_also_stands_in_lower_case_is_no_name() -> None:
    assert find_spans("Candles burn. She lit the candles.") == []
    assert find_spans("Candles burn.") == ["Candles"]  # the price of never losing a name: its bytes


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=80))
def test_every_span_stands_in_the_text_and_is_sent_once(text: str) -> None:
    spans = find_spans(text)
    assert len(set(spans)) == len(spans)
    assert all(span in text and span == span.strip() != "" for span in spans)


@pytest.mark.parametrize("name", ["record1", "record3", "math2", "code8", "code24"])
def test_the_answers_of_the_tiny_world_ride_along(name: str) -> None:
    rows = read_task(load_task(f"tinyworld_{name}"), "validation", max_rows=60).examples
    wanted = [row for row in rows if row.field in ("who", "count", "place", "code")]
    for row in wanted:
        assert row.answer in find_spans(row.sender_prompt), row.sender_prompt
    if name.startswith("math"):
        for row in rows:
            numbers = {word.strip(".") for word in row.sender_prompt.split() if word.strip(".").isdigit()}
            assert numbers <= set(find_spans(row.sender_prompt))


def test_the_joined_text_is_what_the_docs_say() -> None:
    assert joined(find_spans("Maria left 47 apples in Lisbon.")) == "Maria; 47; Lisbon"


@pytest.mark.parametrize("part", ["a", "1-", "a-", "a1-", "a.", "A.", "a.b+", '"a', "Ab of ", "May 1 ", "http://a/", "a b "])
def test_four_times_the_text_takes_about_four_times_as_long(part: str) -> None:
    """And not sixteen times, as a pattern that goes back over the text for every character."""
    import time

    def shortest(characters: int) -> float:
        text, times = part * (characters // len(part)), []
        for _ in range(3):
            started = time.process_time()
            find_spans(text)
            times.append(time.process_time() - started)
        return min(times)

    # what takes next to no time has no ratio
    assert shortest(20_000) < 10 * shortest(5_000) + 0.02


def test_time_stamps_and_sums_stay_whole() -> None:
    assert find_spans("it was 2024-03-12T10:30 and 2024-03-12T10:30:15.25+01:00 there") == [
        "2024-03-12T10:30", "2024-03-12T10:30:15.25+01:00",
    ]  # fmt: skip
    assert find_spans("we paid 1.200,50 € for it") == ["1.200,50 €"]


def test_a_date_inside_an_address_is_sent_once() -> None:
    assert find_spans("it stands at https://example.com/2024-03-12/page now") == ["https://example.com/2024-03-12/page"]
