from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from latentwire.analysis.capacity import ceiling_search
from latentwire.analysis.capacity.ceiling import CeilingSettings, Fitted, fit_codes, scaled
from latentwire.analysis.capacity.ceiling_search import CeilingSearch
from latentwire.analysis.capacity.codes import Wording, load_alphabet
from latentwire.analysis.capacity.reading import Reading
from latentwire.errors import ArtefactError
from latentwire.models.receiver import Receiver

WORDING, ALPHABET = Wording(), load_alphabet("tinyworld")


def test_two_symbols_are_crammed_into_one_vector(receiver: Receiver) -> None:
    steps: list[int] = []
    settings = CeilingSettings(steps=150)
    found = fit_codes(receiver, WORDING, ALPHABET, ALPHABET.draw(2, 3), 1, settings, tick=steps.append)
    assert all(one.reading.exact for one in found)
    assert all(9.5 <= one.reading.bits <= 10 for one in found)
    assert {one.reading.soft_tokens for one in found} == {1}
    assert {one.reading.message_bytes for one in found} == {receiver.width * 4}
    # stops when the last code is done, not when the budget is
    assert steps == list(range(1, max(one.steps for one in found) + 1))
    assert len(steps) < 150


def test_the_best_vectors_are_kept_and_others_do_not_matter(receiver: Receiver) -> None:
    """A code's fit is the same alone and beside others, and never worse than the start."""
    codes = ALPHABET.draw(2, 2)
    settings = CeilingSettings(steps=10)
    both = fit_codes(receiver, WORDING, ALPHABET, codes, 1, settings)
    alone = fit_codes(receiver, WORDING, ALPHABET, codes[:1], 1, settings)
    assert alone[0].reading.bits == pytest.approx(both[0].reading.bits, abs=0.02)
    start = fit_codes(receiver, WORDING, ALPHABET, codes, 1, CeilingSettings(steps=1))
    assert all(late.reading.bits >= early.reading.bits for late, early in zip(both, start, strict=True))


def test_a_kept_norm_is_kept(receiver: Receiver) -> None:
    settings = CeilingSettings(steps=5, norm="kept")
    found = fit_codes(receiver, WORDING, ALPHABET, ALPHABET.draw(2, 2), 2, settings, scale=1.5 * receiver.embedding_rms)
    assert [one.rms_ratio for one in found] == pytest.approx([1.5, 1.5], rel=1e-4)
    free = fit_codes(receiver, WORDING, ALPHABET, ALPHABET.draw(2, 2), 2, CeilingSettings(steps=5))
    assert all(abs(one.rms_ratio - 1.0) > 0.01 for one in free)
    vectors = torch.randn(2, 3, 8)
    assert torch.equal(scaled(vectors, 2.0, kept=False), 2 * vectors)


def test_the_receiver_stays_as_it_is(receiver: Receiver) -> None:
    fit_codes(receiver, WORDING, ALPHABET, ALPHABET.draw(2, 1), 1, CeilingSettings(steps=2))
    assert all(parameter.grad is None for parameter in receiver.model.parameters())


# --------------------------------------------------------------------------------------------------------- the search


class Pretended:
    """In place of ``fit_codes``: K soft tokens hold codes of up to ``holds(K)`` symbols."""

    def __init__(self, holds: Callable[[int], int]) -> None:
        self.holds, self.asked = holds, list[tuple[int, int]]()

    def __call__(
        self, receiver: Any, wording: Any, alphabet: Any, codes: Sequence[Any], soft_tokens: int, *rest: Any, **more: Any
    ) -> Any:
        length = len(codes[0])
        self.asked.append((soft_tokens, length))
        exact = length <= self.holds(soft_tokens)
        return [Fitted(Reading(5.0 * length * (0.9 if exact else 0.6), 0.0, exact, exact, soft_tokens, 8), 10, 1.0) for _ in codes]


def search(receiver: Receiver, folder: Path, **settings: Any) -> CeilingSearch:
    return CeilingSearch(receiver, WORDING, ALPHABET, CeilingSettings(codes=4, **settings), 1.0, folder / "ceiling.json")


def test_codes_grow_until_they_are_not_held(receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fits = Pretended(lambda soft_tokens: 5 * soft_tokens)
    monkeypatch.setattr(ceiling_search, "fit_codes", fits)
    found = search(receiver, tmp_path, soft_tokens=(4, 1)).run()
    assert fits.asked == [(1, 1), (1, 2), (1, 3), (1, 4), (1, 6), (4, 4), (4, 6), (4, 8), (4, 12), (4, 16), (4, 24)]
    assert [(point["soft_tokens"], point["length"]) for point in found["best"]] == [(1, 4), (4, 16)]
    assert found["ended_by"] == {"1": "inexact", "4": "inexact"}
    best = found["best"][0]
    assert best["bits"]["value"] == pytest.approx(18.0)
    assert best["bits_per_soft_token"]["value"] == pytest.approx(18.0)
    assert best["exact"]["value"] == 1.0


def test_a_start_that_is_too_high_goes_down(receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fits = Pretended(lambda soft_tokens: {1: 8, 2: 3}[soft_tokens])
    monkeypatch.setattr(ceiling_search, "fit_codes", fits)
    found = search(receiver, tmp_path, soft_tokens=(1, 2)).run()
    assert [(point["soft_tokens"], point["length"]) for point in found["best"]] == [(1, 8), (2, 3)]
    assert [point["length"] for point in found["points"] if point["soft_tokens"] == 2] == [3, 4, 6, 8]


def test_the_receivers_length_ends_the_search(receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceiling_search, "fit_codes", Pretended(lambda soft_tokens: 10**6))
    found = search(receiver, tmp_path, soft_tokens=(1,)).run()
    assert found["ended_by"] == {"1": "receiver"}
    assert found["best"][0]["length"] == 768  # of 1,024 positions


def test_finished_lengths_are_not_fitted_again(receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Pretended(lambda soft_tokens: 5)
    monkeypatch.setattr(ceiling_search, "fit_codes", first)
    search(receiver, tmp_path, soft_tokens=(1,)).run()
    again = Pretended(lambda soft_tokens: 5)
    monkeypatch.setattr(ceiling_search, "fit_codes", again)
    whole = search(receiver, tmp_path, soft_tokens=(1, 2)).run()
    assert again.asked == [(2, 4), (2, 6)]
    assert {point["soft_tokens"] for point in whole["points"]} == {1, 2}
    # other settings are another search, kept beside the first
    other = Pretended(lambda soft_tokens: 5)
    monkeypatch.setattr(ceiling_search, "fit_codes", other)
    search(receiver, tmp_path, soft_tokens=(1,), steps=7).run()
    assert other.asked == first.asked
    search(receiver, tmp_path, soft_tokens=(1, 2)).run()
    assert len(again.asked) == 2


def test_a_file_of_something_else_is_refused(receiver: Receiver, tmp_path: Path) -> None:
    (tmp_path / "ceiling.json").write_text("[1, 2]")
    with pytest.raises(ArtefactError, match="name another file with --ceiling_file"):
        search(receiver, tmp_path, soft_tokens=(1,)).run()


def test_what_other_searches_wrote_meanwhile_stays(receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fits = Pretended(lambda soft_tokens: 1)
    mine, other = search(receiver, tmp_path, soft_tokens=(1,)), search(receiver, tmp_path, soft_tokens=(2,))

    def interrupted(*given: Any, **more: Any) -> Any:
        monkeypatch.setattr(ceiling_search, "fit_codes", fits)
        other.run()
        return fits(*given, **more)

    monkeypatch.setattr(ceiling_search, "fit_codes", interrupted)
    mine.run()
    (kept,) = mine.known().values()
    assert {key[0] for key in kept} == {"1", "2"}


def test_the_search_ends_where_there_are_no_longer_codes(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ceiling_search, "fit_codes", Pretended(lambda soft_tokens: 10**6))
    monkeypatch.setattr(ceiling_search, "GROWTH", (1, 2, 3))
    found = search(receiver, tmp_path, soft_tokens=(1, 2)).run()
    assert found["ended_by"] == {"1": "longest", "2": "longest"}
    assert [(point["soft_tokens"], point["length"]) for point in found["points"]] == [(1, 1), (1, 2), (1, 3), (2, 3)]


def test_where_the_first_length_finds_no_room_shorter_ones_are_tried(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ceiling_search, "fit_codes", Pretended(lambda soft_tokens: 10**6))
    room = {1: 8, 2: 6}
    monkeypatch.setattr(CeilingSearch, "_fits", lambda self, soft_tokens, length: length <= room[soft_tokens])
    found = search(receiver, tmp_path, soft_tokens=(1, 2)).run()
    assert [(point["soft_tokens"], point["length"]) for point in found["best"]] == [(1, 8), (2, 6)]
    assert found["ended_by"] == {"1": "receiver", "2": "receiver"}
