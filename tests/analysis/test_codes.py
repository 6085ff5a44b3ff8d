from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from latentwire.analysis.capacity.codes import ALPHABETS, Alphabet, Wording, load_alphabet
from latentwire.data.tinyworld.rows import generate_rows, split_of
from latentwire.errors import DataError, UnknownNameError, UsageError


def test_codes_are_the_same_ones_again_whatever_else_is_drawn() -> None:
    alphabet = load_alphabet("tinyworld")
    assert alphabet.draw(8, 5) == alphabet.draw(8, 50)[:5]
    assert alphabet.draw(8, 5) != alphabet.draw(8, 5, seed=1)
    assert alphabet.bits_per_symbol == 5


def test_no_code_stands_in_the_train_split() -> None:
    drawn = {" ".join(code) for code in load_alphabet("tinyworld").draw(8, 500)}
    assert not any(split_of(code) == "train" for code in drawn)
    assert drawn.isdisjoint(row["answer"] for row in generate_rows("code8", "train", 2_000))


def test_symbols_are_uniform_at_every_place_and_pairs_are_not_favoured() -> None:
    codes = load_alphabet("tinyworld").draw(4, 3_000)
    for place in range(4):
        counts = Counter(code[place] for code in codes)
        assert len(counts) == 32
        assert 55 < min(counts.values()) <= max(counts.values()) < 135  # 94 expected, standard deviation 9.5
    pairs = Counter(pair for code in codes for pair in pairwise(code))
    assert max(pairs.values()) < 32  # 9 expected


def test_other_alphabets(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("lamp\nchair \n\nriver\nstone\n", encoding="utf-8")
    words = load_alphabet(str(path))
    assert words.symbols == ("lamp", "chair", "river", "stone")
    assert words.bits_per_symbol == 2
    assert words.name == "words.txt"
    assert {len(code) for code in words.draw(6, 20)} == {6}
    assert load_alphabet("letters").bits_per_symbol == pytest.approx(4.7004, abs=1e-4)
    # vowels are no symbols of the tiny world, digits are
    assert [load_alphabet(name).shared_with_the_tiny_world for name in ALPHABETS] == [True, True, False]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("lamp\nlamp\nriver\n", "'lamp' stands there twice"),
        ("lamp\nold river\n", "'old river' is more than one word"),
        ("lamp\n", "has 1 symbols"),
        ("", "has 0 symbols"),
    ],
)
def test_files_that_are_no_alphabet(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "words.txt"
    path.write_text(content)
    with pytest.raises(DataError, match=complaint):
        load_alphabet(str(path))


def test_unknown_names_and_impossible_lengths() -> None:
    with pytest.raises(UnknownNameError, match="did you mean digits"):
        load_alphabet("digit")
    with pytest.raises(UsageError, match="length 0"):
        load_alphabet("digits").draw(0, 3)


def test_a_length_that_the_train_split_has_used_up_is_refused() -> None:
    taken = next(
        pair for pair in (("0", symbol) for symbol in ALPHABETS["tinyworld"][1:])
        if all(split_of(f"{a} {b}") == "train" for a in pair for b in pair)
    )  # fmt: skip
    with pytest.raises(DataError, match="every code of length 2 stands in the tiny world's train split"):
        Alphabet("two", taken).draw(2, 3)
    assert len(Alphabet("two", taken).draw(1, 3)) == 3


def test_the_wording_is_the_tiny_worlds() -> None:
    row = next(iter(generate_rows("code8", "test", 1)))
    wording = Wording()
    code = row["answer"].split()
    assert wording.context(code) == row["context"]
    assert wording.asked.text == f"\nQuestion: {row['question']}\nAnswer:"
    assert [wording.context(code)[first:last] for first, last in wording.spans(code)] == code


def test_a_wording_of_ones_own() -> None:
    wording = Wording(sender_prompt="Text: {context}", sentence="Say {code}!", receiver_prompt="{message}\nRepeat:")
    assert wording.context(("a", "b")) == "Text: Say a b!"
    assert [wording.context(("lamp", "b"))[first:last] for first, last in wording.spans(("lamp", "b"))] == ["lamp", "b"]
    assert wording.asked == ("", "\nRepeat:")
    with pytest.raises(UsageError, match=r"needs \{code\} once"):
        Wording(sentence="The code.")
    with pytest.raises(UsageError, match=r"needs \{message\} once"):
        Wording(receiver_prompt="Repeat:")
