"""Documents that teach a small language model to read the tiny world.

A document is a list of segments ``(text, is_target)``: targets (answers, notes) are what the model must get right, the
rest is what it reads. Answers end with ``END``, which the caller replaces by the tokenizer's end token.
Only training scenes are used, so validation and test rows stay unseen by the models as well as by the bridges.

Looking a fact up among several (binding) is the hard skill. It is taught in steps that share one circuit: continue a
list from a given word, look a value up by its key, complete a record from its first word, answer a question.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from latentwire.data.tinyworld.lexicon import COLOURS, COUNT_RANGE, ITEMS, SEEN, SYMBOLS
from latentwire.data.tinyworld.rows import split_of
from latentwire.data.tinyworld.scenes import (
    SCENES,
    Fact,
    Scene,
    draw_code,
    draw_facts,
    fact_sentence,
    pick,
)

Segment = tuple[str, bool]
Document = list[Segment]

#: stands for the tokenizer's end token
END = "\0"


def _train_scene(rng: Random, kind: str) -> Scene:
    while True:
        scene = SCENES[kind](rng, SEEN)
        if split_of(scene.key) == "train":
            return scene


def _ask(document: Document, question: str, answer: str) -> None:
    document += [(f"\nQuestion: {question}\nAnswer:", False), (f" {answer}{END}", True)]


def _scene_document(rng: Random, kind: str, max_questions: int) -> Document:
    """A scene (or its note, which a relay would send) with questions, or the scene with its note to be written."""
    scene = _train_scene(rng, kind)
    mode = rng.random()
    if mode < 0.15:
        return [(f"{scene.text}", False), ("\nNote:", False), (f" {scene.note}{END}", True)]
    document: Document = [(scene.note if mode < 0.3 else scene.text, False)]
    count = min(max_questions, len(scene.questions))
    for question in rng.sample(scene.questions, count):
        _ask(document, question.text, question.answer)
    return document


def _word(rng: Random) -> str:
    """A random word of any class: a vocabulary for lists that have no other structure."""
    draw = rng.random()
    if draw < 0.3:
        return SEEN.name(rng)
    if draw < 0.5:
        return SEEN.place(rng)
    if draw < 0.7:
        return pick(rng, ITEMS)
    return pick(rng, COLOURS) if draw < 0.8 else pick(rng, SYMBOLS)


def _distinct(rng: Random, count: int, draw: Callable[[Random], str]) -> list[str]:
    words: dict[str, None] = {}
    while len(words) < count:
        words[draw(rng)] = None
    return list(words)


def _train_code(rng: Random, length: int) -> str:
    while True:
        code = " ".join(draw_code(rng, length, held_out=False))
        if split_of(code) == "train":
            return code


def copy_list(rng: Random) -> Document:
    """Repeat a list of random words or symbols."""
    if rng.random() < 0.5:
        text = _train_code(rng, rng.choice((2, 4, 8, 8, 12, 16, 24)))
        document: Document = [(f"The code is {text}.", False)]
        _ask(document, "What is the code?", text)
        return document
    text = " ".join(_word(rng) for _ in range(rng.randint(2, 12)))
    return [(f"List: {text}.", False), ("\nRepeat:", False), (f" {text}{END}", True)]


def continue_list(rng: Random) -> Document:
    """Go on from a given word of a list: content must be matched, position does not help."""
    words = _distinct(rng, rng.randint(4, 14), _word)
    document: Document = [(f"List: {' '.join(words)}.", False)]
    for _ in range(4):
        at = rng.randrange(len(words) - 1)
        document += [(f"\nFrom {words[at]}:", False), (f" {' '.join(words[at + 1 : at + 4])}{END}", True)]
    return document


def look_up(rng: Random) -> Document:
    """Values by their keys, many questions to a list."""
    count = rng.randint(2, 8)
    keys = _distinct(rng, count, _word)
    values = [_word(rng) if rng.random() < 0.7 else str(rng.randint(10, 99)) for _ in keys]
    document: Document = [("; ".join(f"{key} = {value}" for key, value in zip(keys, values, strict=True)) + ".", False)]
    for at in rng.sample(range(count), count):
        document += [(f"\n{keys[at]} =", False), (f" {values[at]}{END}", True)]
    return document


def _train_facts(rng: Random) -> tuple[list[Fact], str]:
    """Two or three facts that stand together in a training scene, and their sentences."""
    while True:
        facts = draw_facts(rng, SEEN, rng.choice((2, 2, 3)))
        text = " ".join(fact_sentence(rng, fact) for fact in facts)
        if split_of("|".join(sorted(fact.note for fact in facts))) == "train":
            return facts, text


def complete_record(rng: Random) -> Document:
    """Given one word of a record, restate that record: the step between a list and a question."""
    facts, text = _train_facts(rng)
    document: Document = [(text, False)]
    for fact in rng.sample(facts, len(facts)):
        for word in rng.sample((fact.name, fact.item), 2):
            document += [(f"\nFrom {word}:", False), (f" {fact.note}{END}", True)]
    return document


def attributes(rng: Random) -> Document:
    """One attribute at a time, by item and by name, in few words: the densest form of the questions about records."""
    facts, text = _train_facts(rng)
    if rng.random() < 0.5:
        text = "; ".join(fact.note for fact in facts)
    asked = []
    for fact in facts:
        values = {"place": fact.place, "count": str(fact.count)} | ({"colour": fact.colour} if fact.colour else {})
        asked += [(f"{field} {key}", value) for field, value in values.items() for key in (fact.name, fact.item)]
        asked += [(f"who {fact.item}", fact.name), (f"item {fact.name}", fact.item)]
    document: Document = [(text, False)]
    for query, value in rng.sample(asked, min(16, len(asked))):
        document += [(f"\n{query}:", False), (f" {value}{END}", True)]
    return document


def things(rng: Random) -> Document:
    """How many and which colour, by item, in a list of many: what stands before a word, where ``look_up`` asks what follows it."""
    items = _distinct(rng, rng.randint(3, 8), lambda rng: pick(rng, ITEMS))
    parts, asked = [], []
    for item in items:
        count, colour = str(rng.randint(*COUNT_RANGE)), pick(rng, COLOURS) if rng.random() < 0.8 else None
        parts.append(f"{count} {colour} {item}" if colour else f"{count} {item}")
        asked += [(f"count {item}", count), *([(f"colour {item}", colour)] if colour else [])]
    document: Document = [("; ".join(parts) + ".", False)]
    for query, value in rng.sample(asked, len(asked)):
        document += [(f"\n{query}:", False), (f" {value}{END}", True)]
    return document


def sums(rng: Random) -> Document:
    """Additions and subtractions as the worked lines of word problems have them, many to a document."""
    document: Document = []
    for _ in range(12):
        if rng.random() < 0.5:
            value, amount = rng.randint(1, 40), rng.randint(2, 20)
            document += [(f"\nSum: {value} + {amount} =", False), (f" {value + amount}{END}", True)]
        else:
            value = rng.randint(3, 60)
            amount = rng.randint(2, min(20, value - 1))
            document += [(f"\nSum: {value} - {amount} =", False), (f" {value - amount}{END}", True)]
    return document


def names_only(rng: Random) -> Document:
    """Two or three records with the questions that ask for a name or are keyed by one."""
    scene = _train_scene(rng, pick(rng, ("record2", "record3", "record3")))
    document: Document = [(scene.text, False)]
    asked = [question for question in scene.questions if question.field in ("who", "item")]
    for question in rng.sample(asked, len(asked)):
        _ask(document, question.text, question.answer)
    return document


def _kind(kind: str, max_questions: int = 1) -> Callable[[Random], Document]:
    return lambda rng: _scene_document(rng, kind, max_questions)


LESSONS: dict[str, Callable[[Random], Document]] = {
    "copy": copy_list,
    "continue": continue_list,
    "look_up": look_up,
    "complete": complete_record,
    "record1": _kind("record1", 5),
    "record2": _kind("record2", 10),
    "record3": _kind("record3", 15),
    "sentiment": _kind("sentiment"),
    "topic": _kind("topic"),
    "intent": _kind("intent"),
    "math1": _kind("math1"),
    "math2": _kind("math2"),
    "code8": _kind("code8"),
    "code24": _kind("code24"),
    "sums": sums,
    "names": names_only,
    "attributes": attributes,
    "things": things,
}


def draw_lesson(rng: Random, shares: Mapping[str, int | float]) -> Document:
    """One document of a mixture: lesson → share."""
    return LESSONS[rng.choices(list(shares), weights=list(shares.values()))[0]](rng)
