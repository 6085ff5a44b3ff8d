from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from itertools import combinations
from math import log2

import pytest

from latentwire.data.tinyworld.lexicon import COLOURS, HELD_OUT, ITEMS, SEEN, SYMBOLS, MadeUpFrom, is_held_out_pair, made_up_lexicon
from latentwire.data.tinyworld.rows import SPLITS, TinyWorldRow, generate_rows, split_of
from latentwire.data.tinyworld.scenes import GENERATED
from tests.data import reading

KINDS = tuple(GENERATED)
RECORDS = tuple(kind for kind in KINDS if kind.startswith("record"))
CODES = tuple(kind for kind in KINDS if kind.startswith("code"))
MATHS = tuple(kind for kind in KINDS if kind.startswith("math"))
#: kinds whose every scene holds a name, a place or a pair of symbols; a review or a request may hold none
OPEN_KINDS = (*RECORDS, *CODES, *MATHS, "topic")


@cache
def rows(kind: str, split: str, n: int = 400) -> tuple[TinyWorldRow, ...]:
    return tuple(generate_rows(kind, split, n))


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_gives_the_same_rows_and_another_seed_others(kind: str) -> None:
    few = list(generate_rows(kind, "test", 20, seed=3))
    assert few == list(generate_rows(kind, "test", 40, seed=3))[:20]
    assert [row["context"] for row in few] != [row["context"] for row in generate_rows(kind, "test", 20, seed=4)]
    assert len({row["id"] for row in few}) == 20


def test_rows_and_lessons_are_the_same_in_every_process() -> None:
    script = (
        "from random import Random\n"
        "from latentwire.data.tinyworld.rows import generate_rows\n"
        "from latentwire.data.tinyworld.scenes import GENERATED\n"
        "from latentwire.data.tinyworld.lessons import draw_lesson\n"
        "from latentwire.training.nano.recipe import RECIPES\n"
        "rng = Random(1)\n"
        "shares = RECIPES['nano-llama'].phases[-1].shares\n"
        "print([list(generate_rows(kind, 'test', 5)) for kind in GENERATED], [draw_lesson(rng, shares) for _ in range(50)])"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1
    assert printed.pop().count(b"'context'") == 5 * len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_no_scene_stands_in_two_splits(kind: str) -> None:
    keys = {split: {reading.scene_key(kind, row["context"]) for row in rows(kind, split)} for split in SPLITS}
    for split, owned in keys.items():
        assert {split_of(key) for key in owned} == {split}
    assert not any(keys[one] & keys[other] for one, other in combinations(SPLITS, 2))


def test_splits_are_cut_eight_one_one() -> None:
    shares = Counter(split_of(f"scene {number}") for number in range(20_000))
    assert shares["train"] / 20_000 == pytest.approx(0.8, abs=0.01)
    assert shares["validation"] / 20_000 == pytest.approx(0.1, abs=0.01)
    assert shares["test"] / 20_000 == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_follows_from_its_context(kind: str, split: str) -> None:
    for row in rows(kind, split):
        assert row["answer"] == reading.answer(kind, row), row


@pytest.mark.parametrize("kind", RECORDS)
def test_every_record_answer_is_a_word_of_its_context(kind: str) -> None:
    for row in rows(kind, "test"):
        assert re.search(rf"\b{row['answer']}\b", row["context"])
    assert {row["field"] for row in rows(kind, "test")} == {"who", "item", "count", "place", "colour"}


@pytest.mark.parametrize("kind", [*RECORDS, *MATHS, *CODES])
def test_note_restates_the_facts(kind: str) -> None:
    for row in rows(kind, "test"):
        assert "|".join(sorted(row["note"].split("; "))) == reading.scene_key(kind, row["context"])


@pytest.mark.parametrize("kind", MATHS)
def test_word_problems_stay_among_small_whole_numbers(kind: str) -> None:
    results = [int(number) for row in rows(kind, "train") for number in re.findall(r"= (\d+)", row["answer"])]
    assert min(results) >= 1
    assert max(results) <= 60
    assert all(row["answer"].count("=") == int(kind[-1]) for row in rows(kind, "train"))


@pytest.mark.parametrize("kind", KINDS)
def test_train_rows_hold_no_held_out_word_or_pair(kind: str) -> None:
    for row in rows(kind, "train"):
        assert not row["held_out"]
        assert not reading.held_out_words(row["context"] + row["question"] + row["answer"])
        assert kind not in CODES or not reading.held_out_pairs(row["answer"])


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_fifth_of_the_rows_is_held_out_and_says_so(kind: str, split: str) -> None:
    drawn = rows(kind, split)
    # many reviews and requests name nobody and no place, whatever words they were drawn from
    share = 0.2 if kind in OPEN_KINDS else 0.075
    assert sum(row["held_out"] for row in drawn) / len(drawn) == pytest.approx(share, abs=0.05)
    for row in drawn:
        new = reading.held_out_pairs(row["answer"]) if kind in CODES else reading.held_out_words(row["context"])
        if not row["held_out"]:
            assert not new
        elif kind in OPEN_KINDS:
            assert new


@pytest.mark.parametrize("kind", RECORDS)
def test_no_name_or_place_of_a_held_out_record_was_seen(kind: str) -> None:
    known = {*SEEN.names, *SEEN.places}
    held_out = [fact for row in rows(kind, "test") if row["held_out"] for fact in reading.facts(row["context"])]
    assert not {word for fact in held_out for word in (fact["name"], fact["place"])} & known


def test_a_tenth_of_the_open_words_is_held_out() -> None:
    for seen, held_out in ((SEEN.names, HELD_OUT.names), (SEEN.places, HELD_OUT.places)):
        assert not set(seen) & set(held_out)
        assert len(held_out) / (len(seen) + len(held_out)) == pytest.approx(0.1, abs=0.03)
    pairs = [is_held_out_pair(first, second) for first in SYMBOLS for second in SYMBOLS]
    assert sum(pairs) / len(pairs) == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize(
    ("kind", "least", "most"),
    [
        ("sentiment", 1, 1),
        ("topic", 2, 2),
        ("intent", 4, 4),
        ("code8", 38, 40),
        ("code24", 115, 120),
        ("math1", 20, 26),
        ("math2", 25, 31),
    ],
)
def test_bits_are_the_choices_the_generator_had(kind: str, least: float, most: float) -> None:
    assert all(least <= row["bits"] <= most for row in rows(kind, "train"))


@pytest.mark.parametrize("kind", RECORDS)
def test_bits_of_records_add_up(kind: str) -> None:
    common = log2(len(SEEN.names)) + log2(len(SEEN.places)) + log2(90) + log2(len(ITEMS))
    for row in rows(kind, "train")[:100]:
        colours = [log2(len(COLOURS) / 0.8) if fact["colour"] else log2(1 / 0.2) for fact in reading.facts(row["context"])]
        assert row["bits"] == pytest.approx(common * len(colours) + sum(colours), abs=0.01)


@pytest.mark.parametrize(
    ("kind", "field", "choices"),
    [
        ("sentiment", "sentiment", 2),
        ("topic", "topic", 4),
        ("intent", "intent", 16),
        ("record1", "count", 90),
        ("record2", "item", len(ITEMS)),
        ("record3", "colour", len(COLOURS)),
        ("record1", "who", len(SEEN.names)),
        ("record1", "place", len(SEEN.places)),
        ("math1", "math", 60),
    ],
)
def test_chance_is_a_blind_guess_among_the_choices(kind: str, field: str, choices: int) -> None:
    chances = {row["chance"] for row in rows(kind, "train") if row["field"] == field}
    assert chances == {1 / choices}


@pytest.mark.parametrize("kind", CODES)
def test_codes_cannot_be_guessed(kind: str) -> None:
    # a symbol has 26 successors or more
    assert all(0 < row["chance"] <= 2 / 26 ** len(row["answer"].split()) for row in rows(kind, "test"))


def test_codes_have_every_length_from_a_pair_on() -> None:
    lengths = Counter(len(row["answer"].split()) for row in rows("codes", "train", 2000))
    assert set(lengths) == set(range(2, 25))
    assert max(lengths.values()) < 3 * min(lengths.values())


@pytest.mark.parametrize("kind", ["sentiment", "topic", "intent"])
def test_labels_are_balanced(kind: str) -> None:
    counts = Counter(row["answer"] for row in rows(kind, "train"))
    even = 400 / len(counts)
    assert all(0.5 * even < count < 1.5 * even for count in counts.values())


@pytest.mark.parametrize("kind", ["record2", "topic"])
def test_every_question_of_the_same_contexts(kind: str) -> None:
    one = list(generate_rows(kind, "train", 30, seed=5))
    every = list(generate_rows(kind, "train", 30, seed=5, every_question=True))
    by_context: dict[str, list[TinyWorldRow]] = {}
    for row in every:
        by_context.setdefault(row["context"], []).append(row)
    assert list(by_context) == [row["context"] for row in one]
    for row in one:
        asked = [(other["question"], other["answer"]) for other in by_context[row["context"]]]
        assert (row["question"], row["answer"]) in asked
    assert len({row["id"] for row in every}) == len(every)
    assert len(every) == 30 if kind == "topic" else len(every) > 200


@pytest.mark.parametrize(("made_from", "count"), [("letters", 6000), ("parts", 1024)])
def test_made_up_words_are_no_names_and_no_places(made_from: MadeUpFrom, count: int) -> None:
    known = {*SEEN.names, *SEEN.places, *HELD_OUT.names, *HELD_OUT.places}
    made_up = made_up_lexicon(made_from)
    assert known.isdisjoint(made_up.names)
    assert known.isdisjoint(made_up.places)
    assert len({*made_up.names, *made_up.places}) == count


def test_made_up_words_stand_in_their_share_of_train_contexts_alone() -> None:
    plain, mixed = (list(generate_rows("record1", "train", 200, seed=2, made_up_words=share)) for share in (0.0, 0.5))
    changed = [index for index in range(200) if plain[index] != mixed[index]]
    assert 70 < len(changed) < 130
    made_up = {*made_up_lexicon().names, *made_up_lexicon().places}
    assert all(not made_up.isdisjoint(mixed[index]["note"].split()) for index in changed)
    assert list(generate_rows("record1", "test", 50, made_up_words=1.0)) == list(generate_rows("record1", "test", 50))
    crossed = {*made_up_lexicon("parts").names, *made_up_lexicon("parts").places}
    rows = list(generate_rows("record1", "train", 50, made_up_words=1.0, made_up_from="parts"))
    assert all(not crossed.isdisjoint(row["note"].split()) for row in rows)
