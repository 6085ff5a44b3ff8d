"""The words of the tiny world, and which of them no training split may use.

Names and places are *open* classes: stem + ending, so that an unseen name is new as a whole while its parts are known.
A fixed tenth of them, and a twentieth of the symbol pairs of codes, are **held out**: they occur in validation and test
rows only, where they are reported apart. Everything else is a closed class.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from random import Random
from typing import Literal

from latentwire.seeding import stable_hash

NAME_STEMS = (
    "Mar Tom El Jon An Ben Kar Dan Fel Gre Han Iv Jul Lor Nad Ol Pet Ros Sam Ter Vik Wil Yas Zor Cal Bri Den Fran Hel Kat Leo Mik"
).split()
NAME_ENDINGS = (
    "ia as en a o is ina ella ette ard ert ika ov us ine iel anda or ita eth ene ulo ax by son wyn dra ley mund ta ric na"
).split()
PLACE_STEMS = "Lis Nor Ber Ham Win Oak Sil Gra Bra Hol Cor Vel Tor Kir Dun Mil".split()
PLACE_ENDINGS = "bon ford lin burg ton ville mere dale port field stad mouth bridge gate wick ham".split()

ITEMS = (
    "lamps chairs boxes books cups hats shoes coats rings bells clocks ropes knives bottles apples melons tables doors mirrors "
    "drums flutes carpets candles ladders hammers baskets pillows wheels maps coins stamps toys"
).split()
COLOURS = "red green blue black white yellow purple orange".split()
COUNT_RANGE = (10, 99)
#: 32 symbols = 5 bits each; every one is a single token in both embedded tokenizers.
SYMBOLS = "0 1 2 3 4 5 6 7 8 9 a b c d f g h j k l m n p q r s t v w x y z".split()

_NAMES = tuple(stem + ending for stem in NAME_STEMS for ending in NAME_ENDINGS)
_PLACES = tuple(stem + ending for stem in PLACE_STEMS for ending in PLACE_ENDINGS)


@lru_cache(maxsize=4096)
def is_held_out_pair(first: str, second: str) -> bool:
    """True if the symbols ``first second`` never stand side by side in a training code."""
    return stable_hash(f"pair:{first}{second}") % 20 == 0


@dataclass(frozen=True)
class Lexicon:
    """The open classes as one kind of row may use them: the seen part, or the held-out part."""

    names: tuple[str, ...]
    places: tuple[str, ...]
    held_out: bool

    def name(self, rng: Random) -> str:
        return self.names[int(rng.random() * len(self.names))]

    def place(self, rng: Random) -> str:
        return self.places[int(rng.random() * len(self.places))]


def _part(words: tuple[str, ...], kind: str, held_out: bool) -> tuple[str, ...]:
    return tuple(word for word in words if (stable_hash(f"{kind}:{word}") % 10 == 0) == held_out)


SEEN = Lexicon(_part(_NAMES, "name", False), _part(_PLACES, "place", False), held_out=False)
HELD_OUT = Lexicon(_part(_NAMES, "name", True), _part(_PLACES, "place", True), held_out=True)


#: what words are made up from
MadeUpFrom = Literal["letters", "parts"]


@cache
def made_up_lexicon(made_from: MadeUpFrom = "letters") -> Lexicon:
    """Words that are no name and no place, for lessons in which any word may stand in the place of a name.

    Made when first asked for. ``letters``: 6,000 words spelled at random, behind a known stem or from the first letter on, of four
    receiver tokens on average. ``parts``: stems of names with endings of places and the other way round, mostly of two tokens as
    names are.
    """
    if made_from == "parts":
        pairs = ((NAME_STEMS, PLACE_ENDINGS), (PLACE_STEMS, NAME_ENDINGS))
        crossed = dict.fromkeys(stem + ending for stems, endings in pairs for stem in stems for ending in endings)
        new = [word for word in crossed if word not in {*_NAMES, *_PLACES}]
        Random("crossed words").shuffle(new)
        return Lexicon(tuple(new[::2]), tuple(new[1::2]), held_out=False)
    rng, known, found = Random("made-up words"), {*_NAMES, *_PLACES}, dict[str, None]()
    stems, endings = (*NAME_STEMS, *PLACE_STEMS), (*NAME_ENDINGS, *PLACE_ENDINGS)
    while len(found) < 6000:
        start = rng.choice(stems) if rng.random() < 0.7 else _syllable(rng).capitalize()
        word = start + (rng.choice(endings) if rng.random() < 0.5 else "".join(_syllable(rng) for _ in range(rng.randint(1, 2))))
        if word not in known:
            found[word] = None
    words = tuple(found)
    return Lexicon(words[::2], words[1::2], held_out=False)


def _syllable(rng: Random) -> str:
    return rng.choice("b d f g h k l m n p r s t v w z st br gr".split()) + rng.choice("aeiou") + rng.choice(["", *"dlmnrst"])
