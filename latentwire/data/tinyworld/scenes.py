"""Scenes: one small situation, its text, the questions that can be asked about it, and a note that restates its facts.

A scene knows its information content in bits, computed from the number of choices the generator had.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import log2
from random import Random

from latentwire.data.tinyworld.lexicon import COLOURS, COUNT_RANGE, ITEMS, SYMBOLS, Lexicon, is_held_out_pair


@dataclass(frozen=True)
class Question:
    """One question about a scene. ``choices`` is the number of answers the generator could have drawn."""

    field: str
    text: str
    answer: str
    choices: int


@dataclass(frozen=True)
class Scene:
    """A context with its questions. ``key`` is what decides the split: scenes with equal keys carry the same facts."""

    text: str
    note: str
    questions: tuple[Question, ...]
    bits: float
    key: str


def pick(rng: Random, items: list[str] | tuple[str, ...]) -> str:
    """One of ``items``; several times faster than ``rng.choice``, which matters at 10^6 documents."""
    return items[int(rng.random() * len(items))]


# --------------------------------------------------------------------------------------------------------- records

RECORD_SHAPES = (
    "{name} from {place} bought {count} {things}.",
    "In {place}, {name} has {count} {things}.",
    "{name} keeps {count} {things} in {place}.",
    "{name} left {count} {things} in {place}.",
    "The {count} {things} in {place} belong to {name}.",
)
COUNT_CHOICES = COUNT_RANGE[1] - COUNT_RANGE[0] + 1


@dataclass(frozen=True)
class Fact:
    """Who has how many of what, in which colour and where."""

    name: str
    place: str
    count: int
    colour: str | None
    item: str

    @property
    def things(self) -> str:
        return f"{self.colour} {self.item}" if self.colour else self.item

    @property
    def note(self) -> str:
        return f"{self.name} {self.place} {self.count} {self.things}"


def draw_facts(rng: Random, lexicon: Lexicon, count: int) -> list[Fact]:
    """``count`` facts with distinct names and items; one in five names no colour."""
    names: set[str] = set()
    items: set[str] = set()
    facts: list[Fact] = []
    while len(facts) < count:
        name, item = lexicon.name(rng), pick(rng, ITEMS)
        if name in names or item in items:
            continue
        names.add(name)
        items.add(item)
        colour = pick(rng, COLOURS) if rng.random() < 0.8 else None
        facts.append(Fact(name, lexicon.place(rng), rng.randint(*COUNT_RANGE), colour, item))
    return facts


def fact_sentence(rng: Random, fact: Fact) -> str:
    """The fact as a sentence of one of five shapes."""
    return pick(rng, RECORD_SHAPES).format(name=fact.name, place=fact.place, count=fact.count, things=fact.things)


def fact_questions(rng: Random, fact: Fact, lexicon: Lexicon) -> list[Question]:
    """All that can be asked about one fact; names are asked by item, items by name."""
    item = fact.item
    questions = [
        Question("who", pick(rng, ("Who has the {}?", "Who owns the {}?")).format(item), fact.name, len(lexicon.names)),
        Question("item", f"What does {fact.name} have?", item, len(ITEMS)),
        Question("count", pick(rng, ("How many {}?", "How many {} are there?")).format(item), str(fact.count), COUNT_CHOICES),
        Question("place", f"Where are the {item}?", fact.place, len(lexicon.places)),
    ]
    if fact.colour:
        questions.append(Question("colour", f"What colour are the {item}?", fact.colour, len(COLOURS)))
    return questions


def fact_bits(fact: Fact, lexicon: Lexicon) -> float:
    """Information content of one fact."""
    colour_bits = log2(len(COLOURS)) - log2(0.8) if fact.colour else -log2(0.2)
    return log2(len(lexicon.names)) + log2(len(lexicon.places)) + log2(COUNT_CHOICES) + log2(len(ITEMS)) + colour_bits


def record_scene(count: int) -> Callable[[Random, Lexicon], Scene]:
    """A maker of scenes with ``count`` records: who, what, how many, which colour, where."""

    def make(rng: Random, lexicon: Lexicon) -> Scene:
        facts = draw_facts(rng, lexicon, count)
        questions = [question for fact in facts for question in fact_questions(rng, fact, lexicon)]
        return Scene(
            text=" ".join(fact_sentence(rng, fact) for fact in facts),
            note="; ".join(fact.note for fact in facts),
            questions=tuple(questions),
            bits=sum(fact_bits(fact, lexicon) for fact in facts),
            key="|".join(sorted(fact.note for fact in facts)),
        )

    return make


# -------------------------------------------------------------------------------------------------- classification

GOOD = (
    "good great superb lovely brilliant charming excellent delightful wonderful funny moving clever fresh warm splendid gripping"
).split()
BAD = "bad awful dull boring terrible weak slow clumsy tedious flat poor dreadful silly messy cold lifeless".split()
ASPECTS = "film plot acting music story script cast ending dialogue pacing camera humour book show series director".split()
SENTIMENTS = ("positive", "negative")

TOPIC_WORDS = {
    "sports": "match team coach striker goal league stadium tournament trophy referee runner medal champion season penalty".split(),
    "business": "market shares profit bank merger investors sales company prices factory trade budget stocks loan economy".split(),
    "science": "planet telescope cells vaccine experiment atoms researchers galaxy fossil robot software gene laser satellite "
    "chemistry".split(),
    "world": "president election treaty border minister protest army embassy parliament refugees summit vote ceasefire government "
    "rebels".split(),
}
NEWS_VERBS = "announced praised delayed discussed changed surprised helped followed criticised reported".split()
NEWS_SHAPES = (
    "The {a} {verb} the {b} in {place}.",
    "In {place} the {a} {verb} the {b} after the {c}.",
    "{name} {verb} the {a} before the {b}.",
    "A new {a} in {place} {verb} {name} and the {b}.",
)

INTENTS = {
    "lost card": ("I lost my card", "my card is missing", "I cannot find my card"),
    "stolen card": ("someone stole my card", "my card was stolen", "a thief took my card"),
    "card arrival": ("when will my new card arrive", "my card has not come in the mail yet", "I am still waiting for my card"),
    "change pin": ("how do I change my pin", "I want a new pin", "please update my pin"),
    "exchange rate": ("what is the exchange rate", "what rate do you use for foreign currency", "is the exchange rate good"),
    "top up": ("how can I top up my account", "I want to add money", "please load funds on my account"),
    "refund": ("I want a refund", "please give me my money back", "the shop must return my payment"),
    "transfer fee": ("why was I charged for a transfer", "what does a transfer cost", "there is a fee on my transfer"),
    "transfer delay": ("my transfer has not arrived", "the transfer is late", "why is the transfer taking so long"),
    "close account": ("I want to close my account", "please delete my account", "how do I end my account"),
    "open account": ("I want to open an account", "how do I sign up", "please create an account for me"),
    "cash fee": ("why was I charged at the cash machine", "there is a fee for taking out cash", "the machine took extra money"),
    "verify identity": ("how do I verify my identity", "why do you need my passport", "how do I prove who I am"),
    "forgot password": ("I forgot my password", "I cannot log in", "how do I reset my password"),
    "travel abroad": (
        "can I use my card abroad",
        "I am going on a trip, will my card work",
        "is the card accepted in other countries",
    ),
    "direct debit": ("I do not know this direct debit", "cancel my direct debit", "a direct debit was taken twice"),
}
GREETINGS = ("Hello, ", "Hi, ", "Please help, ", "Good morning, ", "Dear bank, ", "From {place}: ")
CLOSINGS = (" since {place}", ", this is {name}", " today", " this week", ", thank you", "")

SENTIMENT_QUESTION = "Is the review positive or negative?"
TOPIC_QUESTION = "What is the topic?"
INTENT_QUESTION = "What does the customer want?"


def _classified(text: str, note: str, field: str, question: str, label: str, choices: int) -> Scene:
    return Scene(text, note, (Question(field, question, label, choices),), log2(choices), text)


def _clause(rng: Random, aspect: str, positive: bool) -> str:
    same, opposite = (GOOD, BAD) if positive else (BAD, GOOD)
    return f"the {aspect} was not {pick(rng, opposite)}" if rng.random() < 0.25 else f"the {aspect} was {pick(rng, same)}"


def sentiment_scene(rng: Random, lexicon: Lexicon) -> Scene:
    """A review; a concession (*although …*) carries the other polarity and does not count."""
    positive = rng.random() < 0.5
    aspects = rng.sample(ASPECTS, 4)
    count = rng.choice((1, 2, 2, 3))
    text = " and ".join(_clause(rng, aspect, positive) for aspect in aspects[:count])
    if rng.random() < 0.25:
        text = f"although {_clause(rng, aspects[3], not positive)}, {text}"
    if rng.random() < 0.3:
        text = f"{lexicon.name(rng)} says {text}"
    label = SENTIMENTS[0] if positive else SENTIMENTS[1]
    note = f"the {aspects[0]} was {'good' if positive else 'bad'}"
    return _classified(text[0].upper() + text[1:] + ".", note, "sentiment", SENTIMENT_QUESTION, label, 2)


def topic_scene(rng: Random, lexicon: Lexicon) -> Scene:
    """A news line; its nouns tell the topic."""
    topic = pick(rng, tuple(TOPIC_WORDS))
    a, b, c = rng.sample(TOPIC_WORDS[topic], 3)
    text = pick(rng, NEWS_SHAPES).format(
        a=a, b=b, c=c, verb=pick(rng, NEWS_VERBS), place=lexicon.place(rng), name=lexicon.name(rng)
    )
    return _classified(text, f"the {a} and the {b}", "topic", TOPIC_QUESTION, topic, len(TOPIC_WORDS))


def intent_scene(rng: Random, lexicon: Lexicon) -> Scene:
    """A request to a bank in one of three wordings per intent."""
    intent = pick(rng, tuple(INTENTS))
    place, name = lexicon.place(rng), lexicon.name(rng)
    text = (
        pick(rng, GREETINGS).format(place=place) + pick(rng, INTENTS[intent]) + pick(rng, CLOSINGS).format(place=place, name=name)
    )
    return _classified(text + ".", INTENTS[intent][0], "intent", INTENT_QUESTION, intent, len(INTENTS))


# ---------------------------------------------------------------------------------------------------- word problems

GAINS = ("buys", "finds", "gets")
LOSSES = ("sells", "loses", "gives away")


def _problem_step(rng: Random, value: int) -> tuple[str, int, int]:
    """One step from ``value``: its sign, the amount (2-20) and the result (1-60)."""
    if value < 5 or (value <= 40 and rng.random() < 0.5):
        amount = rng.randint(2, 20)
        return "+", amount, value + amount
    amount = rng.randint(2, min(20, value - 1))
    return "-", amount, value - amount


def math_scene(steps: int) -> Callable[[Random, Lexicon], Scene]:
    """A word problem of ``steps`` additions or subtractions; the answer is the worked line, then ``Answer: N``."""

    def make(rng: Random, lexicon: Lexicon) -> Scene:
        name, item = lexicon.name(rng), pick(rng, ITEMS)
        value = start = rng.randint(5, 40)
        sentences, lines, note = [f"{name} has {start} {item}."], [], f"{start}"
        for step in range(steps):
            sign, amount, result = _problem_step(rng, value)
            verb = pick(rng, GAINS if sign == "+" else LOSSES)
            sentences.append(f"{'Then ' if step else ''}{name} {verb} {amount}.")
            lines.append(f"{value} {sign} {amount} = {result}")
            note += f" {sign} {amount}"
            value = result
        question = Question("math", f"How many {item} does {name} have now?", f"{'. '.join(lines)}. Answer: {value}", 60)
        bits = log2(len(lexicon.names)) + log2(len(ITEMS)) + log2(36) + steps * log2(38)
        return Scene(" ".join(sentences), f"{name} {note} {item}", (question,), bits, f"{name} {note} {item}")

    return make


# ------------------------------------------------------------------------------------------------------------ codes

CODE_QUESTION = "What is the code?"
LONGEST_CODE = 24


@lru_cache(maxsize=64)
def _successors(symbol: str) -> tuple[str, ...]:
    """The symbols that may follow ``symbol`` in a training code."""
    return tuple(other for other in SYMBOLS if not is_held_out_pair(symbol, other))


def draw_code(rng: Random, length: int, held_out: bool) -> list[str]:
    """Random symbols without a held-out pair or, if ``held_out``, with at least one."""
    symbols = [pick(rng, SYMBOLS)]
    while len(symbols) < length:
        symbols.append(pick(rng, _successors(symbols[-1])))
    if held_out:
        pairs = [(a, b) for a in SYMBOLS for b in SYMBOLS if is_held_out_pair(a, b)]
        at = rng.randrange(length - 1)
        symbols[at : at + 2] = rng.choice(pairs)
    return symbols


def code_scene(length: int) -> Callable[[Random, Lexicon], Scene]:
    """A scene whose only content is ``length`` random symbols, 5 bits each."""

    def make(rng: Random, lexicon: Lexicon) -> Scene:
        symbols = draw_code(rng, length, lexicon.held_out)
        code = " ".join(symbols)
        bits = log2(len(SYMBOLS)) + sum(log2(len(_successors(symbol))) for symbol in symbols[:-1])
        return Scene(f"The code is {code}.", code, (Question("code", CODE_QUESTION, code, 2 ** round(bits)),), bits, code)

    return make


def codes_scene(rng: Random, lexicon: Lexicon) -> Scene:
    """A code of any length up to the longest."""
    return code_scene(rng.randint(2, LONGEST_CODE))(rng, lexicon)


#: scene kind → maker. The task names are these with ``tinyworld_`` in front.
SCENES: dict[str, Callable[[Random, Lexicon], Scene]] = {
    "sentiment": sentiment_scene,
    "topic": topic_scene,
    "intent": intent_scene,
    "record1": record_scene(1),
    "record2": record_scene(2),
    "record3": record_scene(3),
    "math1": math_scene(1),
    "math2": math_scene(2),
    "code8": code_scene(8),
    "code24": code_scene(LONGEST_CODE),
}
#: what tasks are made of: kinds, and mixtures of them
GENERATED: dict[str, Callable[[Random, Lexicon], Scene]] = {**SCENES, "codes": codes_scene}
