"""Seeded rows of the tiny world: any number of them, with disjoint splits.

A scene belongs to one split for ever: a hash of its key decides. Rows of a split are found by drawing until the scene
falls into it, so train, validation and test cannot share facts, whatever the seeds. Validation and test rows use
held-out names, places or symbol pairs in one row of five.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random
from typing import TypedDict

from latentwire.data.tinyworld.lexicon import HELD_OUT, SEEN, Lexicon, MadeUpFrom, made_up_lexicon
from latentwire.data.tinyworld.scenes import GENERATED, Scene
from latentwire.seeding import stable_hash

SPLITS = ("train", "validation", "test")
HELD_OUT_SHARE = 0.2


class TinyWorldRow(TypedDict):
    """One row as a data reader yields it."""

    id: str
    context: str
    question: str
    answer: str
    field: str
    note: str
    held_out: bool
    bits: float
    chance: float


def split_of(key: str) -> str:
    """The split that owns the scenes of this key: 80 % train, 10 % validation, 10 % test."""
    bucket = stable_hash(f"split:{key}") % 10
    return "train" if bucket < 8 else SPLITS[bucket - 7]


def draw_scene(rng: Random, kind: str, split: str, *, words: Lexicon = SEEN) -> tuple[Scene, bool]:
    """The next scene of ``kind`` that belongs to ``split``, and whether it shows held-out words; else it has those of ``words``."""
    held_out = split != "train" and rng.random() < HELD_OUT_SHARE
    lexicon = HELD_OUT if held_out else words
    while True:
        scene = GENERATED[kind](rng, lexicon)
        if split_of(scene.key) == split:
            return scene, held_out and shows_held_out_words(scene)


def shows_held_out_words(scene: Scene) -> bool:
    """Whether a scene drawn from held-out words shows one; many reviews and requests name nobody and no place."""
    words = set(re.findall(r"[A-Z][a-z]+", scene.text))
    return scene.questions[0].field == "code" or not words.isdisjoint({*HELD_OUT.names, *HELD_OUT.places})


def generate_rows(
    kind: str,
    split: str,
    n: int,
    seed: int = 0,
    *,
    every_question: bool = False,
    made_up_words: float = 0.0,
    made_up_from: MadeUpFrom = "letters",
) -> Iterator[TinyWorldRow]:
    """``n`` rows of ``kind`` (a key of ``GENERATED``), or all rows of ``n`` contexts with ``every_question``.

    ``made_up_words`` is the share of train scenes whose names and places are made up (``made_up_lexicon``); the others are as they
    are without.

    Context i depends on (kind, split, seed, i) alone. ``bits`` is the information content of the whole context, ``chance`` the
    accuracy of a blind guess at the answer.
    """
    for index in range(n):
        rng = Random(stable_hash(f"{kind}:{split}:{seed}:{index}"))
        made_up = split == "train" and Random(f"made up:{seed}:{index}").random() < made_up_words
        scene, held_out = draw_scene(rng, kind, split, words=made_up_lexicon(made_up_from) if made_up else SEEN)
        asked = scene.questions if every_question else (scene.questions[int(rng.random() * len(scene.questions))],)
        for number, question in enumerate(asked):
            yield TinyWorldRow(
                id=f"{kind}-{split}-{seed}-{index}" + (f".{number}" if every_question else ""),
                context=scene.text,
                question=question.text,
                answer=question.answer,
                field=question.field,
                note=scene.note,
                held_out=held_out,
                bits=round(scene.bits, 3),
                chance=1.0 / question.choices,
            )
