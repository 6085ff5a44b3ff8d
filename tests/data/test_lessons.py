from __future__ import annotations

from collections import Counter
from functools import cache
from random import Random

import pytest

from latentwire.data.tinyworld import lessons
from latentwire.data.tinyworld.lessons import END, LESSONS, Document, draw_lesson
from latentwire.data.tinyworld.rows import split_of
from latentwire.data.tinyworld.scenes import SCENES
from latentwire.training.nano.recipe import RECIPES
from tests.data import reading
from tests.data.test_tinyworld import MATHS, RECORDS


@cache
def documents(lesson: str, n: int = 150) -> tuple[Document, ...]:
    rng = Random(11)
    return tuple(LESSONS[lesson](rng) for _ in range(n))


@pytest.mark.parametrize("lesson", LESSONS)
def test_lessons_hold_no_held_out_word(lesson: str) -> None:
    for document in documents(lesson):
        assert not reading.held_out_words("".join(text for text, _ in document))


@pytest.mark.parametrize("lesson", [lesson for lesson in LESSONS if lesson in SCENES])
def test_lessons_show_training_scenes_only(lesson: str) -> None:
    shown = [document[0][0] for document in documents(lesson, 400)]
    texts = [text for text in shown if text.endswith(".")]
    assert len(texts) > 200
    assert {split_of(reading.scene_key(lesson, text)) for text in texts} == {"train"}
    if lesson in (*RECORDS, *MATHS):
        notes = [text for text in shown if not text.endswith(".")]
        assert len(notes) > 20
        assert {split_of("|".join(sorted(note.split("; ")))) for note in notes} == {"train"}


def test_lessons_complete_and_copy_training_scenes_only() -> None:
    records = [document[0][0] for lesson in ("complete", "names", "attributes") for document in documents(lesson)]
    sentences = [text for text in records if text.endswith(".")]
    assert {split_of(reading.scene_key("record2", text)) for text in sentences} == {"train"}
    notes = [text for text in records if not text.endswith(".")]
    assert len(notes) > 30
    assert {split_of("|".join(sorted(note.split("; ")))) for note in notes} == {"train"}
    codes = [text for document in documents("copy") if (text := document[0][0]).startswith("The code is")]
    assert len(codes) > 30
    assert {split_of(reading.scene_key("code8", text)) for text in codes} == {"train"}
    assert not any(reading.held_out_pairs(reading.scene_key("code8", text)) for text in codes)


@pytest.mark.parametrize("lesson", LESSONS)
def test_every_target_ends_and_only_targets_do(lesson: str) -> None:
    for document in documents(lesson):
        assert any(is_target for _, is_target in document)
        for text, is_target in document:
            assert text.endswith(END) == is_target
            assert text.count(END) == int(is_target)


def test_a_mixture_is_drawn_by_its_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lessons, "LESSONS", {name: lambda _, name=name: [(name, False)] for name in LESSONS})
    drawn = Counter(draw_lesson(Random(number), {"sums": 1, "copy": 3})[0][0] for number in range(3000))
    assert set(drawn) == {"sums", "copy"}
    assert drawn["copy"] / 3000 == pytest.approx(0.75, abs=0.04)


@pytest.mark.parametrize("model", RECIPES)
def test_every_lesson_is_taught_in_some_phase(model: str) -> None:
    assert {name for phase in RECIPES[model].phases for name in phase.shares} == set(LESSONS)


def test_lessons_about_sums_are_right() -> None:
    for document in documents("sums"):
        for (asked, _), (answer, _) in zip(document[::2], document[1::2], strict=True):
            first, sign, second = asked.removeprefix("\nSum: ").removesuffix(" =").split()
            assert answer == f" {int(first) + int(second) if sign == '+' else int(first) - int(second)}{END}"
