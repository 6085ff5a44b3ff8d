"""A second, independent reading of tiny-world texts: facts out of sentences, answers out of facts."""

from __future__ import annotations

import re
from itertools import pairwise

from latentwire.data.tinyworld.lexicon import HELD_OUT, is_held_out_pair
from latentwire.data.tinyworld.rows import TinyWorldRow
from latentwire.data.tinyworld.scenes import BAD, GAINS, GOOD, INTENTS, LOSSES, TOPIC_WORDS

_NAME, _PLACE, _COUNT = r"(?P<name>[A-Z][a-z]+)", r"(?P<place>[A-Z][a-z]+)", r"(?P<count>\d\d)"
_THINGS = r"(?:(?P<colour>red|green|blue|black|white|yellow|purple|orange) )?(?P<item>[a-z]+)"
_SENTENCES = [
    re.compile(pattern)
    for pattern in (
        rf"{_NAME} from {_PLACE} bought {_COUNT} {_THINGS}",
        rf"In {_PLACE}, {_NAME} has {_COUNT} {_THINGS}",
        rf"{_NAME} keeps {_COUNT} {_THINGS} in {_PLACE}",
        rf"{_NAME} left {_COUNT} {_THINGS} in {_PLACE}",
        rf"The {_COUNT} {_THINGS} in {_PLACE} belong to {_NAME}",
    )
]
_MATH_START = re.compile(r"(?P<name>\w+) has (?P<start>\d+) (?P<item>\w+)\.")
_MATH_STEP = re.compile(rf"\w+ (?P<verb>{'|'.join((*GAINS, *LOSSES))}) (?P<amount>\d+)\.")


def facts(text: str) -> list[dict[str, str]]:
    """The records of a text, in its order."""
    found = []
    for sentence in text.removesuffix(".").split(". "):
        matches = [match for pattern in _SENTENCES if (match := pattern.fullmatch(sentence))]
        assert len(matches) == 1, f"{len(matches)} readings of {sentence!r}"
        found.append({key: value or "" for key, value in matches[0].groupdict().items()})
    return found


def fact_note(fact: dict[str, str]) -> str:
    return " ".join(fact[key] for key in ("name", "place", "count", "colour", "item") if fact[key])


def worked(text: str) -> tuple[str, str]:
    """The note of a word problem, and its worked line with the answer."""
    start = _MATH_START.match(text)
    assert start is not None
    value, note, lines = int(start["start"]), start["start"], []
    for step in _MATH_STEP.finditer(text):
        sign = "+" if step["verb"] in GAINS else "-"
        result = value + int(step["amount"]) if sign == "+" else value - int(step["amount"])
        lines.append(f"{value} {sign} {step['amount']} = {result}")
        note += f" {sign} {step['amount']}"
        value = result
    return f"{start['name']} {note} {start['item']}", f"{'. '.join(lines)}. Answer: {value}"


def scene_key(kind: str, text: str) -> str:
    """What decides the split of a scene, read from its text."""
    if kind.startswith("record"):
        return "|".join(sorted(fact_note(fact) for fact in facts(text)))
    if kind.startswith("math"):
        return worked(text)[0]
    if kind.startswith("code"):
        return text.removeprefix("The code is ").removesuffix(".")
    return text


def _fact_answer(row: TinyWorldRow) -> str:
    wanted = {"who": "name", "item": "item", "count": "count", "place": "place", "colour": "colour"}[row["field"]]
    words = set(re.findall(r"\w+", row["question"]))
    asked = [fact for fact in facts(row["context"]) if fact["name" if wanted == "item" else "item"] in words]
    assert len(asked) == 1, f"{row['question']!r} asks for {len(asked)} records"
    return asked[0][wanted]


def _polarity(text: str) -> str:
    main = re.sub(r"^although [^,]*, ", "", re.sub(r"^\w+ says ", "", text), flags=re.IGNORECASE).removesuffix(".")
    signs = set()
    for clause in main.split(" and "):
        adjective = clause.split()[-1]
        assert (adjective in GOOD) != (adjective in BAD)
        signs.add((adjective in GOOD) != (" not " in clause))
    assert len(signs) == 1, f"{text!r} speaks with two voices"
    return "positive" if signs.pop() else "negative"


def answer(kind: str, row: TinyWorldRow) -> str:
    """The answer to a row's question, worked out from its context alone."""
    text = row["context"]
    if kind.startswith("record"):
        return _fact_answer(row)
    if kind.startswith("math"):
        return worked(text)[1]
    if kind.startswith("code"):
        return scene_key(kind, text)
    if kind == "sentiment":
        return _polarity(text)
    words = set(re.findall(r"\w+", text))
    if kind == "topic":
        labels = [topic for topic, known in TOPIC_WORDS.items() if words & set(known)]
    else:
        labels = [intent for intent, phrases in INTENTS.items() if any(phrase in text for phrase in phrases)]
    assert len(labels) == 1, f"{text!r} fits {labels}"
    return labels[0]


def held_out_words(text: str) -> set[str]:
    """Held-out names and places in a text."""
    return set(re.findall(r"[A-Z][a-z]+", text)) & {*HELD_OUT.names, *HELD_OUT.places}


def held_out_pairs(code: str) -> list[tuple[str, str]]:
    symbols = code.split()
    return [pair for pair in pairwise(symbols) if is_held_out_pair(*pair)]
