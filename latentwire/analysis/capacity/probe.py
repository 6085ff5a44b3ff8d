"""Whether the sender's states hold a code at all: a linear probe from the state at a symbol to the symbol.

Shapes: B codes, S sender tokens, D_s sender width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float

from latentwire.analysis.capacity.codes import Alphabet, Wording
from latentwire.analysis.capacity.reading import Code, Reading
from latentwire.errors import MissingPackageError, ModelError
from latentwire.models.sender import Sender

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

#: symbols that the probe learns from, for every symbol of the alphabet
TRAIN_SYMBOLS_EACH = 60
#: keeps a probe that is surely right from claiming an infinite log-probability when it is surely wrong
LEAST_PROBABILITY = 1e-6


class SenderProbe:
    """A multinomial logistic regression over the sender's states at the symbols of codes, whatever their places.

    Each symbol is read from the state of its token; where some have more than one, from the states of the first and the last.

    Args:
        codes: what it learns from; drawn with another seed than those it is tried on.

    Raises:
        UsageError: scikit-learn is not installed. ModelError: the tokenizer does not say where its tokens stand in the text.
    """

    def __init__(self, sender: Sender, wording: Wording, alphabet: Alphabet, codes: Sequence[Code]) -> None:
        self.sender, self.wording, self.alphabet = sender, wording, alphabet
        first, last = self._states(codes)
        self.one_token_each = np.array_equal(first, last)
        features = first if self.one_token_each else np.concatenate([first, last], axis=1)
        self.model = _regression().fit(features, [symbol for code in codes for symbol in code])

    def read(self, codes: Sequence[Code]) -> list[Reading]:
        """What the probe gets of each code: bits are its own minus the cross-entropy of its symbols, exact is all of them right."""
        first, last = self._states(codes)
        features = first if self.one_token_each else np.concatenate([first, last], axis=1)
        chances = np.maximum(self.model.predict_proba(features), LEAST_PROBABILITY)
        place = {symbol: column for column, symbol in enumerate(self.model.classes_)}
        readings, at = [], 0
        for code in codes:
            own = chances[at : at + len(code)]
            at += len(code)
            # a symbol that was in no code to learn from has no column
            of_symbols = [
                row[place[symbol]] if symbol in place else LEAST_PROBABILITY for row, symbol in zip(own, code, strict=True)
            ]
            right = all(self.model.classes_[row.argmax()] == symbol for row, symbol in zip(own, code, strict=True))
            bits = len(code) * self.alphabet.bits_per_symbol + float(np.log2(of_symbols).sum())
            readings.append(Reading(bits, 0.0, right, right))
        return readings

    def _states(
        self, codes: Sequence[Code], batch_size: int = 64
    ) -> tuple[Float[np.ndarray, "symbols D_s"], Float[np.ndarray, "symbols D_s"]]:
        """The states of the first and of the last token of every symbol, code after code."""
        firsts, lasts = [], []
        for start in range(0, len(codes), batch_size):
            part = codes[start : start + batch_size]
            states = self.sender.read([self.wording.context(code) for code in part]).states.float().cpu()
            for own, code in zip(states, part, strict=True):
                ends = symbol_tokens(self.sender, self.wording.context(code), self.wording.spans(code))
                firsts += [own[first] for first, _ in ends]
                lasts += [own[last] for _, last in ends]
        return torch.stack(firsts).numpy(), torch.stack(lasts).numpy()


def symbol_tokens(sender: Sender, text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """First and last sender token of each span of characters of a text, as places in the states of ``Sender.read``.

    Raises:
        ModelError: the tokenizer does not say where its tokens stand.
    """
    encoded, skip = sender.prompter.context_ids([text])
    wanted = encoded[0][skip:]
    turn = sender.prompter.turn
    offsets = None
    if sender.tokenizer.is_fast:
        whole, shift = (text, 0) if turn is None else (turn.head + text + turn.tail, len(turn.head))
        found = sender.tokenizer(whole, add_special_tokens=turn is None, return_offsets_mapping=True, verbose=False)
        if found["input_ids"][-len(wanted) :] == wanted:
            offsets = [(start - shift, end - shift) for start, end in found["offset_mapping"][-len(wanted) :]]
    if offsets is None:
        raise ModelError(
            f"the tokenizer of {sender.source.name!r} does not say where its tokens stand in the text, so its states cannot be "
            "matched with symbols; leave the probe out with --no-place"
        )
    touching = [[place for place, (start, end) in enumerate(offsets) if start < last and end > first] for first, last in spans]
    return [(places[0], places[-1]) for places in touching]


def training_codes(alphabet: Alphabet, lengths: Sequence[int], *, seed: int) -> list[Code]:
    """Codes of all the lengths, together about ``TRAIN_SYMBOLS_EACH`` of each symbol; ``seed`` must not be the measured codes'."""
    wanted = TRAIN_SYMBOLS_EACH * len(alphabet.symbols)
    per_length = max(1, wanted // sum(lengths))
    return [code for length in lengths for code in alphabet.draw(length, per_length, seed=seed)]


def _regression() -> Pipeline:
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        what, otherwise = "the probe of the sender's states", ", or leave it out with --no-place"
        raise MissingPackageError(what, "scikit-learn", "baselines", otherwise) from None
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
