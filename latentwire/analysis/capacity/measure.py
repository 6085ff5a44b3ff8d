"""How many bits a trained bridge's message carries: random codes of growing length, sent and repeated.

The curve goes through the bridge and its controls; beside it stand the ceiling (``ceiling``) and where the bits are lost (a
probe of the sender's states, the receiver reading the text).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from latentwire.analysis.capacity.ceiling import CeilingSettings
from latentwire.analysis.capacity.ceiling_search import CeilingSearch, Watch, interval, share
from latentwire.analysis.capacity.codes import Alphabet, Wording, load_alphabet
from latentwire.analysis.capacity.file import (
    CAPACITY_FILE,
    CEILING_FILE,
    SCHEMA_VERSION,
    Best,
    Capacity,
    Ceiling,
    CeilingPoint,
    CurvePoint,
    LossPlace,
)
from latentwire.analysis.capacity.probe import SenderProbe, training_codes
from latentwire.analysis.capacity.reading import Code, Reading, check_lengths, examples, read_messages, read_text, send
from latentwire.analysis.sources import bridge_provenance
from latentwire.bridges.base import Bridge, BridgePair
from latentwire.config import ARTEFACT_FOLDER, RunConfig
from latentwire.errors import ArtefactError, UsageError
from latentwire.evaluation.controls import applicable, build_control
from latentwire.evaluation.run import load_parts, saved_config
from latentwire.files import write_json
from latentwire.methods.base import SOFT_CONTROLS, Parts

LENGTHS = (1, 2, 4, 8, 16, 24, 32)
#: the probe learns from codes of another seed than those it reads
_PROBE_SEED = 1_000_003
#: where so much of a code arrives, nothing worth placing was lost
_ARRIVED = 0.98


@dataclass(frozen=True)
class CapacityRequest:
    """What to measure of which run. ``ceiling`` None leaves the ceiling out; ``out``: folder of the files, by default the run's.
    ``ceiling_file``: where its points are kept; bridges to the same receiver can share one.

    ``receiver_prompt``, ``sentence`` and ``question`` replace those that the bridge was trained with, and the tiny world's.
    """

    run_folder: Path
    lengths: Sequence[int] = LENGTHS
    codes: int = 200
    alphabet: str = "tinyworld"
    seed: int = 0
    exact_share: float = 0.9
    ceiling: CeilingSettings | None = field(default_factory=CeilingSettings)
    ceiling_file: Path | None = None
    place: bool = True
    sentence: str | None = None
    question: str | None = None
    receiver_prompt: str | None = None
    device: str | None = None
    batch_size: int = 64
    out: Path | None = None

    @property
    def folder(self) -> Path:
        return self.out or self.run_folder

    def check(self) -> None:
        """Raises ``UsageError`` for what no run could serve."""
        if not self.lengths or min(self.lengths) < 1:
            raise UsageError(f"lengths {list(self.lengths)} do not fit; give whole numbers from 1, for example --lengths 1,2,4,8")
        if len(set(self.lengths)) < len(self.lengths):
            raise UsageError(f"lengths {list(self.lengths)} do not fit; give each once")
        if self.codes < 2:
            raise UsageError(f"codes = {self.codes} does not fit; an interval needs at least 2, and 200 make a narrow one")
        if self.batch_size < 1:
            raise UsageError(f"batch size = {self.batch_size} does not fit; give 1 or more")
        if self.folder.is_file():
            raise UsageError(f"{str(self.folder)!r} is a file; give a folder for capacity.json and capacity.png")
        if not 0 < self.exact_share <= 1:
            raise UsageError(f"exact share = {self.exact_share} does not fit; give a share above 0 and up to 1, for example 0.9")
        if self.ceiling is not None and not (self.ceiling.soft_tokens and min(self.ceiling.soft_tokens) >= 1):
            raise UsageError(
                f"soft tokens {list(self.ceiling.soft_tokens)} do not fit; give whole numbers from 1, for example 1,2,4,8"
            )


def measure_capacity(request: CapacityRequest, *, watch: Watch = lambda what, done, total: None) -> Capacity:
    """Measures and writes ``capacity.json``. ``watch`` hears what is being done, how far it is, and of how much.

    Raises:
        ArtefactError: no run, or no bridge in it. UnknownNameError: an unknown alphabet. DataError: lengths that do not fit
        the models. MismatchError: a bridge of other models.
    """
    request.check()
    alphabet = load_alphabet(request.alphabet)
    config = saved_config(request.run_folder)
    bridge = Bridge.from_pretrained(request.run_folder / ARTEFACT_FOLDER).with_finite_weights()
    if bridge.pair is None:
        raise ArtefactError(f"the bridge in {str(request.run_folder)!r} does not say which models it connects; train it again")
    wording = _wording(request, bridge.pair)
    parts = load_parts(config, bridge, device=request.device, writer=False)
    bench = Bench(parts, wording, alphabet, request, watch)
    check_lengths(parts.sender, bench.bridge, parts.receiver, wording, alphabet, request.lengths)
    search = bench.ceiling_search(request.ceiling) if request.ceiling is not None else None
    curve, readings = bench.run(bench.probe() if request.place else None)
    ceiling = search.run() if search is not None else None
    capacity = Capacity(
        schema_version=SCHEMA_VERSION,
        run=_measured(request, config, parts, wording, alphabet),
        curve=curve,
        best=best_of(curve, ceiling, request.exact_share),
        ceiling=ceiling,
        places=[loss_place(length, alphabet, *of_length, ceiling=ceiling) for length, of_length in readings.items()],
    )
    write_json(request.folder / CAPACITY_FILE, capacity)
    return capacity


def _wording(request: CapacityRequest, pair: BridgePair) -> Wording:
    wording = Wording(sender_prompt=pair.sender_prompt, receiver_prompt=request.receiver_prompt or pair.receiver_prompt)
    given = {"sentence": request.sentence, "question": request.question}
    return Wording(**{**vars(wording), **{name: text for name, text in given.items() if text is not None}})


class Bench:
    """The loaded models with the codes to be sent, the same ones for the bridge, its controls, the probe and the text."""

    def __init__(self, parts: Parts, wording: Wording, alphabet: Alphabet, request: CapacityRequest, watch: Watch) -> None:
        if parts.bridge is None:
            raise ValueError("a bench needs parts with a bridge")
        self.parts, self.bridge = parts, parts.bridge
        self.wording, self.alphabet, self.request, self.watch = wording, alphabet, request, watch
        self.codes = {length: alphabet.draw(length, request.codes, seed=request.seed) for length in sorted(request.lengths)}

    def run(self, probe: SenderProbe | None) -> tuple[list[CurvePoint], dict[int, tuple[list[Reading], ...]]]:
        """The curve, shortest codes first, each length with its controls; and, where there is a probe, for every length what it
        reads from the sender's states, what the receiver reads from the text, and what the bridge delivers.
        """
        curve: list[CurvePoint] = []
        readings: dict[int, tuple[list[Reading], ...]] = {}
        controls = applicable(SOFT_CONTROLS, self.request.codes)
        passes = 1 + len(controls) + (2 if probe else 0)
        for done, (length, codes) in enumerate(self.codes.items()):
            counted = iter(range(done * passes, (done + 1) * passes))

            def tell(length: int = length, counted: Any = counted) -> None:
                self.watch("capacity", next(counted), len(self.codes) * passes)

            tell()
            own = self._read(codes, None)
            curve.append(curve_point(own, length, self.alphabet, None))
            for control in controls:
                tell()
                curve.append(curve_point(self._read(codes, control), length, self.alphabet, control))
            if probe is not None:
                tell()
                in_states = probe.read(codes)
                tell()
                batch_size = self.request.batch_size
                in_text = read_text(self.parts.receiver, self.wording, self.alphabet, codes, batch_size=batch_size)
                readings[length] = (in_states, in_text, own)
        self.watch("capacity", len(self.codes) * passes, len(self.codes) * passes)
        return curve, readings

    def _read(self, codes: Sequence[Code], control: str | None) -> list[Reading]:
        return read_messages(
            self.parts.sender, self.bridge, self.parts.receiver, self.wording, self.alphabet, codes,
            control=partial(build_control, control) if control else None, batch_size=self.request.batch_size,
        )  # fmt: skip

    def probe(self) -> SenderProbe:
        """A probe of the sender's states, fitted on codes of all lengths."""
        codes = training_codes(self.alphabet, sorted(self.request.lengths), seed=self.request.seed + _PROBE_SEED)
        return SenderProbe(self.parts.sender, self.wording, self.alphabet, codes)

    def ceiling_search(self, settings: CeilingSettings) -> CeilingSearch:
        """The search for the ceiling of this receiver. Raises ``ArtefactError`` where its file holds something else."""
        kept_in = self.request.ceiling_file or self.request.folder / CEILING_FILE
        scale = self.message_scale()
        search = CeilingSearch(self.parts.receiver, self.wording, self.alphabet, settings, scale, kept_in, self.watch)
        search.known()
        return search

    @torch.no_grad()
    def message_scale(self) -> float:
        """Root mean square of the bridge's soft tokens over codes of all lengths."""
        some = [code for codes in self.codes.values() for code in codes[:4]]
        soft = send(self.parts.sender, self.bridge, examples(self.wording, some))
        return float(soft.vectors[soft.mask].float().pow(2).mean().sqrt())


def curve_point(readings: Sequence[Reading], length: int, alphabet: Alphabet, control: str | None) -> CurvePoint:
    """What readings of codes of one length come to. Per soft token and per byte: means of each message's own ratio."""
    return CurvePoint(
        length=length,
        code_bits=length * alphabet.bits_per_symbol,
        control=control,
        n=len(readings),
        soft_tokens=statistics.fmean(reading.soft_tokens for reading in readings),
        message_bytes=statistics.fmean(reading.message_bytes for reading in readings),
        bits=interval([reading.bits for reading in readings]),
        bits_per_soft_token=interval([reading.bits / reading.soft_tokens for reading in readings]),
        bits_per_byte=interval([reading.bits / reading.message_bytes for reading in readings]),
        exact=share([reading.exact for reading in readings]),
        exact_code=share([reading.exact_code for reading in readings]),
        end_bits=statistics.fmean(reading.end_bits for reading in readings),
    )


def loss_place(
    length: int,
    alphabet: Alphabet,
    in_states: Sequence[Reading],
    in_text: Sequence[Reading],
    delivered: Sequence[Reading],
    *,
    ceiling: Ceiling | None = None,
) -> LossPlace:
    """Where the bits of codes of one length are lost.

    A reader that knows nothing can guess and then delivers 0 bits, so less than that counts as 0; and what came through the
    bridge was in the sender's states and readable, whatever probe, text and ceiling say. Readable is what the receiver gets from
    the text, and no more than it can be made to read from as many soft tokens.
    """
    code_bits = length * alphabet.bits_per_symbol
    sender, receiver, bridge = (interval([reading.bits for reading in readings]) for readings in (in_states, in_text, delivered))
    through = max(0.0, bridge["value"])
    soft_tokens = statistics.fmean(reading.soft_tokens for reading in delivered)
    top = ceiling_at(ceiling, soft_tokens)
    most = None if top is None else min(code_bits, top["bits_per_soft_token"]["value"] * soft_tokens)
    held = max(through, sender["value"])
    readable = max(through, receiver["value"] if most is None else min(most, receiver["value"]))
    lost = {"sender": code_bits - held, "bridge": min(held, readable) - through, "receiver": code_bits - readable}
    mainly = max(lost, key=lambda place: lost[place]) if through < _ARRIVED * code_bits else "nothing"
    return LossPlace(
        length=length,
        code_bits=code_bits,
        sender_bits=sender,
        sender_exact=share([reading.exact for reading in in_states]),
        receiver_bits=receiver,
        receiver_exact=share([reading.exact for reading in in_text]),
        bridge_bits=bridge,
        bridge_exact=share([reading.exact for reading in delivered]),
        ceiling_bits=most,
        lost_at_sender=lost["sender"],
        lost_at_receiver=lost["receiver"],
        lost_at_bridge=lost["bridge"],
        mainly=mainly,
    )


def best_of(curve: Sequence[CurvePoint], ceiling: Ceiling | None, exact_share: float) -> Best:
    """The lengths that carry most, and how near the ceiling of as many soft tokens (or the next fewer measured) they come."""
    own = [point for point in curve if point["control"] is None]
    most = max(own, key=lambda point: point["bits"]["value"])
    exact = [point for point in own if point["exact"]["value"] >= exact_share]
    best_exact = max(exact, key=lambda point: point["bits"]["value"]) if exact else None
    best = Best(exact_share=exact_share, exact=best_exact, most=most, share_of_ceiling=None, ceiling_soft_tokens=None)
    compared = best_exact or most
    top = ceiling_at(ceiling, compared["soft_tokens"])
    if top is not None:
        best["share_of_ceiling"] = compared["bits_per_soft_token"]["value"] / top["bits_per_soft_token"]["value"]
        best["ceiling_soft_tokens"] = top["soft_tokens"]
    return best


def ceiling_at(ceiling: Ceiling | None, soft_tokens: float) -> CeilingPoint | None:
    """The ceiling of as many soft tokens, or of the next fewer that were measured; None where there is none."""
    if ceiling is None or not ceiling["best"]:
        return None
    not_more = [point for point in ceiling["best"] if point["soft_tokens"] <= soft_tokens]
    return max(not_more, key=lambda point: point["soft_tokens"]) if not_more else ceiling["best"][0]


def _measured(request: CapacityRequest, config: RunConfig, parts: Parts, wording: Wording, alphabet: Alphabet) -> dict[str, Any]:
    """What produced the numbers, as in other result files, and what the codes were."""
    return bridge_provenance(request.run_folder, config, parts) | {
        "alphabet": {
            "name": alphabet.name,
            "symbols": len(alphabet.symbols),
            "bits_per_symbol": alphabet.bits_per_symbol,
            "fingerprint": alphabet.fingerprint,
        },
        "wording": vars(wording) | {},
        "lengths": sorted(request.lengths),
        "codes": request.codes,
        "code_seed": request.seed,
    }
