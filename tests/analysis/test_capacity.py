"""A measurement from its run folder to its file, and what the numbers are made into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from latentwire.analysis.capacity import measure as module
from latentwire.analysis.capacity.ceiling import CeilingSettings
from latentwire.analysis.capacity.codes import load_alphabet
from latentwire.analysis.capacity.file import (
    Best,
    Capacity,
    Ceiling,
    CeilingPoint,
    CurvePoint,
    LossPlace,
)
from latentwire.analysis.capacity.measure import CapacityRequest, best_of, curve_point, loss_place, measure_capacity
from latentwire.analysis.capacity.reading import Reading
from latentwire.files import read_json
from latentwire.training.run import train_run
from tests.training.test_trainer import BRIDGES, small_config

ALPHABET = load_alphabet("tinyworld")
QUICK = CeilingSettings(soft_tokens=(1,), codes=2, steps=2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose bridge was hardly trained: two soft tokens for a whole code cannot come near it."""
    folder = tmp_path_factory.mktemp("runs") / "perceiver"
    small = {"steps": 2, "batch_size": 4, "warmup_steps": 0}
    bridge = BRIDGES[0] | {"soft_tokens": 2}
    train_run(small_config(folder, task="tinyworld_code8", bridge=bridge, training=small))
    return folder


@pytest.fixture(scope="module")
def measured(run: Path) -> Capacity:
    return measure_capacity(CapacityRequest(run, lengths=(4, 1), codes=6, ceiling=QUICK))


def test_the_file_holds_the_whole_measurement(run: Path, measured: Capacity) -> None:
    assert read_json(run / "capacity.json", what="capacity file") == measured
    assert [(point["length"], point["control"]) for point in measured["curve"]] == [
        (length, control) for length in (1, 4) for control in (None, "zero", "shuffled", "noise")
    ]
    assert {point["soft_tokens"] for point in measured["curve"]} == {2.0}
    for point in measured["curve"]:
        assert point["n"] == 6
        assert point["code_bits"] == 5 * point["length"]
        assert point["bits"]["low"] <= point["bits"]["value"] <= point["bits"]["high"] <= point["code_bits"]
        assert point["bits_per_soft_token"]["value"] == pytest.approx(point["bits"]["value"] / 2)
        assert point["bits_per_byte"]["value"] == pytest.approx(point["bits"]["value"] / point["message_bytes"])
    assert [place["length"] for place in measured["places"]] == [1, 4]
    assert measured["places"][1]["sender_bits"]["value"] > 18
    assert measured["places"][1]["receiver_exact"]["value"] > 0.5
    assert measured["places"][1]["mainly"] == "bridge"
    run_info = measured["run"]
    assert run_info["seeds"] == [1]
    assert run_info["alphabet"]["symbols"] == 32
    assert {"config", "git", "versions", "hardware", "models", "wording", "lengths", "codes", "code_seed"} < set(run_info)
    assert len(run_info["models"]["bridge"]["weights_sha256"]) == 64


def test_the_same_measurement_gives_the_same_numbers_and_takes_up_the_ceiling(
    run: Path, measured: Capacity, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def never(*args: Any, **settings: Any) -> Any:
        raise AssertionError("a finished length was fitted again")

    monkeypatch.setattr("latentwire.analysis.capacity.ceiling_search.fit_codes", never)
    kept = run / "capacity-ceiling.json"
    request = CapacityRequest(run, lengths=(1, 4), codes=6, ceiling=QUICK, ceiling_file=kept, batch_size=4, out=tmp_path)
    again = measure_capacity(request)
    assert (tmp_path / "capacity.json").is_file()
    assert again["ceiling"] == measured["ceiling"]
    for one, other in zip(again["curve"], measured["curve"], strict=True):
        assert one["bits"]["value"] == pytest.approx(other["bits"]["value"], abs=1e-3)
        assert one["exact"] == other["exact"]


def test_parts_can_be_left_out(run: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    request = CapacityRequest(run, lengths=(2,), codes=3, ceiling=None, place=False, out=tmp_path, alphabet="letters")
    found = measure_capacity(request, watch=lambda what, done, total: told.append((done, total)))
    assert found["ceiling"] is None
    assert found["places"] == []
    assert found["best"]["share_of_ceiling"] is None
    assert found["curve"][0]["code_bits"] == pytest.approx(9.4009, abs=1e-3)
    assert told == [(done, 4) for done in range(5)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["capacity.json"]


def test_a_wording_of_ones_own_reaches_both_models(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    real = module.read_messages
    monkeypatch.setattr(module, "read_messages", lambda *args, **settings: (seen.append(args[3]), real(*args, **settings))[1])
    request = CapacityRequest(
        run,
        lengths=(1,),
        codes=2,
        ceiling=None,
        place=False,
        out=tmp_path,
        sentence="Say {code}.",
        receiver_prompt="{message}\nNote:",
    )
    measure_capacity(request)
    assert seen[0].context(("a",)) == "Say a."
    assert seen[0].asked == ("", "\nNote:")


def test_every_key_of_the_file_is_documented() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "capacity.md").read_text()
    keys = {key for part in (Capacity, CurvePoint, CeilingPoint, Ceiling, LossPlace, Best) for key in part.__annotations__}
    assert [key for key in sorted(keys) if f"`{key}`" not in text] == []


# ----------------------------------------------------------------------------------------------- what is made of readings


def readings(bits: float, exact: bool = False, count: int = 4, soft_tokens: int = 4) -> list[Reading]:
    return [Reading(float(bits), 0.5, exact, exact, soft_tokens, 64 * soft_tokens) for _ in range(count)]


@pytest.mark.parametrize(
    ("in_states", "in_text", "delivered", "lost", "mainly"),
    [
        (40, 40, 40, (0, 0, 0), "nothing"),
        (40, 40, 10, (0, 30, 0), "bridge"),
        (12, 40, 10, (28, 2, 0), "sender"),
        (40, 12, 10, (0, 2, 28), "receiver"),
        # a receiver that is sure of the wrong code could have guessed instead
        (40, 40, -90, (0, 40, 0), "bridge"),
        (-5, 40, -90, (40, 0, 0), "sender"),
        # more than the probe reads came through, so more was in the states
        (10, 40, 30, (10, 0, 0), "sender"),
        (40, -20, 30, (0, 0, 10), "receiver"),
    ],
)
def test_every_lost_bit_has_a_place(
    in_states: float, in_text: float, delivered: float, lost: tuple[int, int, int], mainly: str
) -> None:
    place = loss_place(8, ALPHABET, readings(in_states), readings(in_text), readings(delivered))
    assert (place["lost_at_sender"], place["lost_at_bridge"], place["lost_at_receiver"]) == lost
    assert place["mainly"] == mainly


def test_what_the_soft_tokens_cannot_hold_is_lost_at_the_receiver() -> None:
    """40 bits in 4 soft tokens of at most 5 bits each: 20 cannot be read by anybody, 5 more the bridge does not deliver."""
    place = loss_place(8, ALPHABET, readings(40), readings(40), readings(15), ceiling=ceiling(k4=5.0))
    assert place["ceiling_bits"] == 20
    assert (place["lost_at_sender"], place["lost_at_bridge"], place["lost_at_receiver"]) == (0, 5, 20)
    assert place["mainly"] == "receiver"
    # a ceiling above the code changes nothing, one below what came through was not the ceiling
    place = loss_place(8, ALPHABET, readings(40), readings(40), readings(15), ceiling=ceiling(k4=500.0))
    assert (place["ceiling_bits"], place["lost_at_bridge"]) == (40, 25)
    assert loss_place(8, ALPHABET, readings(40), readings(40), readings(30), ceiling=ceiling(k4=5.0))["lost_at_receiver"] == 10


def point(length: int, bits: float, exact: bool, soft_tokens: int = 4) -> CurvePoint:
    return curve_point(readings(bits, exact, soft_tokens=soft_tokens), length, ALPHABET, None)


def ceiling(**per_token: float) -> Ceiling:
    def of(soft_tokens: int, bits: float) -> CeilingPoint:
        found = curve_point(readings(bits * soft_tokens, True, soft_tokens=soft_tokens), 8, ALPHABET, None)
        kept = {key: found[key] for key in CeilingPoint.__annotations__ if key in found}  # type: ignore[literal-required]
        return kept | {"soft_tokens": soft_tokens, "steps": 1.0, "rms_ratio": 1.0}  # type: ignore[return-value]

    return Ceiling(settings={}, points=[], best=[of(int(key[1:]), bits) for key, bits in per_token.items()], ended_by={})


def test_the_best_length_is_exact_and_the_other_carries_most() -> None:
    curve = [point(4, 20, True), point(8, 39, True), point(16, 60, False)]
    curve.append(curve_point(readings(99, True), 32, ALPHABET, "shuffled"))
    best = best_of(curve, None, 0.9)
    assert best["exact"] is not None
    assert best["exact"]["length"] == 8
    assert best["most"]["length"] == 16
    assert best["share_of_ceiling"] is None
    assert best_of(curve[2:], None, 0.9)["exact"] is None


def test_the_share_of_the_ceiling_is_that_of_as_many_soft_tokens() -> None:
    curve = [point(8, 40, True, soft_tokens=5)]
    best = best_of(curve, ceiling(k1=30.0, k4=32.0, k8=10.0), 0.9)
    assert best["ceiling_soft_tokens"] == 4
    assert best["share_of_ceiling"] == pytest.approx(8 / 32)
    # no ceiling of as few
    assert best_of([point(8, 40, True, soft_tokens=2)], ceiling(k4=40.0), 0.9)["ceiling_soft_tokens"] == 4
    # nothing exact: the length with most bits is compared
    assert best_of([point(8, 8, False, soft_tokens=4)], ceiling(k4=40.0), 0.9)["share_of_ceiling"] == pytest.approx(2 / 40)
