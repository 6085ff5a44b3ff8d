"""The search for the ceiling: longer and longer codes for each number of soft tokens, every finished length kept on disk."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from latentwire.analysis.capacity.ceiling import GROWTH, CeilingSettings, fit_codes
from latentwire.analysis.capacity.codes import Alphabet, Wording
from latentwire.analysis.capacity.file import Ceiling, CeilingPoint, Interval
from latentwire.analysis.capacity.reading import code_ids
from latentwire.bridges.base import identity_of
from latentwire.errors import ArtefactError
from latentwire.evaluation.statistics import Estimate, mean_interval, score_interval
from latentwire.files import digest, read_json, write_json
from latentwire.models.receiver import Receiver

#: what is being done, how far it is, and of how much
Watch = Callable[[str, int, int], None]
#: codes of a length count as held when so many are greedy-exact
HELD_SHARE = 0.5


@dataclass
class CeilingSearch:
    """Finds the longest codes that the receiver can be made to write from K soft tokens.

    ``scale`` is the root mean square of a bridge's soft tokens, used with ``norm: kept``. ``kept_in``: where finished lengths are
    kept, under what they depend on; a search that was stopped goes on from them, and so does one for another bridge.
    """

    receiver: Receiver
    wording: Wording
    alphabet: Alphabet
    settings: CeilingSettings
    scale: float
    kept_in: Path
    watch: Watch = lambda what, done, total: None

    def run(self) -> Ceiling:
        """The points of every number of soft tokens, fewest first: more of them hold at least as much, so each goes on where
        the one before ended.
        """
        points: list[CeilingPoint] = []
        best: list[CeilingPoint] = []
        ended_by: dict[str, str] = {}
        start = 0
        for soft_tokens in sorted(set(self.settings.soft_tokens)):
            tried, ended_by[str(soft_tokens)] = self._grow(soft_tokens, start)
            points += sorted(tried, key=lambda point: point["length"])
            held = list(filter(_holds, tried))
            if held:
                best.append(max(held, key=lambda point: point["length"]))
                start = GROWTH.index(best[-1]["length"])
        return Ceiling(settings=self.settings.model_dump(mode="json"), points=points, best=best, ended_by=ended_by)

    def _grow(self, soft_tokens: int, start: int) -> tuple[list[CeilingPoint], str]:
        """Up from ``start`` (a place in ``GROWTH``) until codes are not held; where the first are not, down until they are.

        With why no longer ones were tried (``Ceiling.ended_by``).
        """
        tried: list[CeilingPoint] = []
        ended_by = "longest"
        for length in GROWTH[start:]:
            if not self._fits(soft_tokens, length):
                ended_by = "receiver"
                break
            tried.append(self._point(soft_tokens, length))
            if not _holds(tried[-1]):
                ended_by = "inexact"
                break
        for length in reversed(GROWTH[:start]):
            if any(map(_holds, tried)):
                break
            if self._fits(soft_tokens, length):
                tried.append(self._point(soft_tokens, length))
        return tried, ended_by

    def _fits(self, soft_tokens: int, length: int) -> bool:
        answer = code_ids(self.receiver, self.wording, self.alphabet.draw(length, 1))[0]
        return self.receiver.count_tokens(self.wording.asked) + soft_tokens + len(answer) <= self.receiver.max_tokens

    def _point(self, soft_tokens: int, length: int) -> CeilingPoint:
        key = f"{soft_tokens} soft tokens, {length} symbols"
        kept = self.known().get(self.identity, {})
        if key in kept:
            return kept[key]
        point = self._measured(soft_tokens, length)
        # read again: other searches may have written in these minutes
        known = self.known()
        known.setdefault(self.identity, {})[key] = point
        write_json(self.kept_in, known)
        return point

    def _measured(self, soft_tokens: int, length: int) -> CeilingPoint:
        what = f"ceiling, {soft_tokens} soft token{'s' if soft_tokens > 1 else ''}, codes of {length}"
        fitted = fit_codes(
            self.receiver,
            self.wording,
            self.alphabet,
            self.alphabet.draw(length, self.settings.codes, seed=self.settings.seed),
            soft_tokens,
            self.settings,
            scale=self.scale if self.settings.norm == "kept" else None,
            tick=lambda step: self.watch(what, step, self.settings.steps),
        )
        bits = [found.reading.bits for found in fitted]
        return CeilingPoint(
            soft_tokens=soft_tokens,
            length=length,
            code_bits=length * self.alphabet.bits_per_symbol,
            n=len(fitted),
            bits=interval(bits),
            bits_per_soft_token=interval([value / soft_tokens for value in bits]),
            exact=share([found.reading.exact for found in fitted]),
            steps=statistics.fmean(found.steps for found in fitted),
            rms_ratio=statistics.fmean(found.rms_ratio for found in fitted),
        )

    @property
    def identity(self) -> str:
        """What the points depend on besides their length and number of soft tokens."""
        receiver = self.receiver
        settings = self.settings.model_dump(mode="json", exclude={"soft_tokens"})
        return digest(
            identity_of(receiver.source).model_dump_json(),
            f"{receiver.dtype} {receiver.prompter.style}",
            repr(self.wording.asked),
            self.alphabet.fingerprint,
            repr(sorted(settings.items())),
            repr(round(self.scale, 6)) if self.settings.norm == "kept" else "",
        )[:16]

    def known(self) -> dict[str, dict[str, CeilingPoint]]:
        """Finished points by identity. Raises ``ArtefactError`` for a file that holds something else."""
        if not self.kept_in.exists():
            return {}
        content = read_json(self.kept_in, what="ceiling file")
        if not (isinstance(content, dict) and all(isinstance(points, dict) for points in content.values())):
            raise ArtefactError(f"{str(self.kept_in)!r} holds no points of a ceiling; name another file with --ceiling_file")
        return content


def _holds(point: CeilingPoint) -> bool:
    return point["exact"]["value"] >= HELD_SHARE


def interval(values: list[float]) -> Interval:
    """Mean with its bootstrap interval."""
    return _interval(mean_interval(values))


def share(right: list[bool]) -> Interval:
    """Share with its Wilson interval."""
    return _interval(score_interval([float(value) for value in right]))


def _interval(found: Estimate) -> Interval:
    return Interval(value=found.value, low=found.low, high=found.high, how=found.how)
