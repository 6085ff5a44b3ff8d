"""Random codes: texts whose information content is known exactly, n symbols of an alphabet drawn uniformly.

What carries a code exactly has carried ``n · log2(alphabet)`` bits: nothing in a code can be guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import log2
from pathlib import Path
from random import Random
from string import ascii_lowercase, digits

from latentwire.data.tinyworld.lexicon import SYMBOLS
from latentwire.data.tinyworld.rows import split_of
from latentwire.data.tinyworld.scenes import CODE_QUESTION
from latentwire.errors import DataError, UnknownNameError, UsageError
from latentwire.files import digest
from latentwire.prompts import Prompt
from latentwire.seeding import stable_hash

#: alphabets by name; anything else is the path of a file with one word per line
ALPHABETS = {"tinyworld": tuple(SYMBOLS), "digits": tuple(digits), "letters": tuple(ascii_lowercase)}
#: code spaces up to this size are listed to see whether the rule below leaves anything of them
_FEW_CODES = 5_000


@dataclass(frozen=True)
class Alphabet:
    """The symbols that codes are made of, each equally likely."""

    name: str
    symbols: tuple[str, ...]

    @property
    def bits_per_symbol(self) -> float:
        return log2(len(self.symbols))

    @cached_property
    def shared_with_the_tiny_world(self) -> bool:
        """Whether its codes may stand in the tiny world, which the embedded models and many bridges were trained on."""
        return set(self.symbols) <= set(SYMBOLS)

    @cached_property
    def fingerprint(self) -> str:
        return digest(*self.symbols)[:16]

    def may_be_drawn(self, symbols: Sequence[str]) -> bool:
        """Whether a code stands in no train split of the tiny world, which holds codes of two and more symbols.

        The rule is a hash that no model can know, so the codes that are left stand for all codes of their length.
        """
        return len(symbols) < 2 or not self.shared_with_the_tiny_world or split_of(" ".join(symbols)) != "train"

    def draw(self, length: int, count: int, *, seed: int = 0) -> list[tuple[str, ...]]:
        """``count`` codes of ``length`` symbols, drawn with replacement. Code i depends on (alphabet, length, seed, i) alone.

        Raises:
            UsageError: ``length`` or ``count`` is below 1. DataError: every code of this length is in the train split.
        """
        if length < 1 or count < 1:
            raise UsageError(f"{count} codes of length {length} cannot be drawn; give 1 or more of both")
        if len(self.symbols) ** length <= _FEW_CODES and not any(
            self.may_be_drawn(symbols) for symbols in product(self.symbols, repeat=length)
        ):
            raise DataError(
                f"alphabet {self.name!r}: every code of length {length} stands in the tiny world's train split; "
                "leave this length out, or give more symbols"
            )
        return [self._code(length, f"code:{self.fingerprint}:{length}:{seed}:{index}") for index in range(count)]

    def _code(self, length: int, key: str) -> tuple[str, ...]:
        rng = Random(stable_hash(key))
        while True:
            symbols = tuple(rng.choice(self.symbols) for _ in range(length))
            if self.may_be_drawn(symbols):
                return symbols


def load_alphabet(name: str) -> Alphabet:
    """A known alphabet, or the words of a text file, one a line.

    Raises:
        UnknownNameError: neither a known alphabet nor a file. DataError: fewer than two words, one twice, or one with a
        space in it.
    """
    if name in ALPHABETS:
        return Alphabet(name, ALPHABETS[name])
    path = Path(name).expanduser()
    if not path.is_file():
        raise UnknownNameError("alphabet (or file with one word per line)", name, ALPHABETS)
    try:
        words = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"alphabet {name!r} is not UTF-8 text ({error}); give a text file with one word per line") from None
    spaced = [word for word in words if len(word.split()) > 1]
    twice = sorted({word for word in words if words.count(word) > 1}) if len(set(words)) < len(words) else []
    if spaced:
        raise DataError(
            f"alphabet {name!r}: {spaced[0]!r} is more than one word, so codes of it cannot be told apart; one word per line"
        )
    if twice:
        raise DataError(f"alphabet {name!r}: {twice[0]!r} stands there twice; each symbol once")
    if len(words) < 2:
        raise DataError(f"alphabet {name!r} has {len(words)} symbols; a code needs at least 2, one per line")
    return Alphabet(path.name, tuple(words))


@dataclass(frozen=True)
class Wording:
    """How a code is told to the sender and asked of the receiver; by default as the tiny world does both.

    ``sender_prompt`` and ``receiver_prompt`` are those a bridge was trained with (``BridgePair``), with ``{context}``, and
    ``{message}`` and ``{question}``, in them.
    """

    sender_prompt: str = "{context}"
    receiver_prompt: str = "{message}\nQuestion: {question}\nAnswer:"
    sentence: str = "The code is {code}."
    question: str = CODE_QUESTION

    def __post_init__(self) -> None:
        if self.sentence.count("{code}") != 1:
            raise UsageError(f"sentence {self.sentence!r} does not fit; it needs {{code}} once, as in 'The code is {{code}}.'")
        if self.receiver_prompt.count("{message}") != 1:
            raise UsageError(f"receiver prompt {self.receiver_prompt!r} does not fit; it needs {{message}} once")

    def told(self, symbols: Sequence[str]) -> str:
        """The sentence that holds the code."""
        return self.sentence.replace("{code}", " ".join(symbols))

    def context(self, symbols: Sequence[str]) -> str:
        """What the sender reads."""
        return self.sender_prompt.replace("{context}", self.told(symbols))

    def spans(self, symbols: Sequence[str]) -> list[tuple[int, int]]:
        """Where each symbol stands in ``context``: first character and end (exclusive)."""
        at = self.context(["{code}"]).index("{code}")
        found = []
        for symbol in symbols:
            found.append((at, at + len(symbol)))
            at += len(symbol) + 1
        return found

    @property
    def asked(self) -> Prompt:
        """What the receiver reads around the message."""
        before, _, after = self.receiver_prompt.replace("{question}", self.question).partition("{message}")
        return Prompt(before, after)
