"""The file of a capacity measurement: every key of ``capacity.json`` is typed and explained here and in ``docs/capacity.md``."""

from __future__ import annotations

from typing import Any, TypedDict

SCHEMA_VERSION = 1
CAPACITY_FILE, FIGURE_FILE, CEILING_FILE = "capacity.json", "capacity.png", "capacity-ceiling.json"


class Interval(TypedDict):
    """A mean over codes with its 95 % interval, and how that was found (``latentwire.evaluation.statistics.Estimate``)."""

    value: float
    low: float
    high: float
    how: str


class CurvePoint(TypedDict):
    """Codes of one length, through the bridge or one of its controls."""

    #: symbols of a code, and their information content
    length: int
    code_bits: float
    #: None, or how the message was destroyed: ``zero``, ``shuffled``, ``noise``
    control: str | None
    #: codes
    n: int
    #: of a message: means over the codes
    soft_tokens: float
    message_bytes: float
    #: delivered: the code's own minus the receiver's cross-entropy of its tokens, the end token left out
    bits: Interval
    bits_per_soft_token: Interval
    bits_per_byte: Interval
    #: share of codes that greedy decoding writes without a fault and then ends
    exact: Interval
    #: the same, whatever follows the code
    exact_code: Interval
    #: mean cross-entropy of the end token, counted in none of the above
    end_bits: float


class CeilingPoint(TypedDict):
    """Codes of one length, each with soft tokens of its own found by direct optimisation."""

    soft_tokens: int
    length: int
    code_bits: float
    n: int
    bits: Interval
    bits_per_soft_token: Interval
    exact: Interval
    #: mean steps to the best vectors, and their mean scale over the receiver's embeddings
    steps: float
    rms_ratio: float


class Ceiling(TypedDict):
    """What the receiver can be made to read from so many soft tokens."""

    settings: dict[str, Any]
    points: list[CeilingPoint]
    #: for each number of soft tokens the longest codes of which at least half are exact
    best: list[CeilingPoint]
    #: for each number of soft tokens what ended the search: ``inexact``, ``receiver`` (no room), ``longest`` (all tried)
    ended_by: dict[str, str]


class LossPlace(TypedDict):
    """Where the bits of codes of one length are lost."""

    length: int
    code_bits: float
    #: what a linear probe reads from the sender's states, what the receiver reads from the text, what came through the bridge
    sender_bits: Interval
    sender_exact: Interval
    receiver_bits: Interval
    receiver_exact: Interval
    bridge_bits: Interval
    bridge_exact: Interval
    #: what as many soft tokens as the message has can hold: the ceiling's bits per soft token times their number, at most the
    #: code's bits; None where no ceiling was looked for
    ceiling_bits: float | None
    #: not in the sender's states; not got from the text, or above the ceiling; in the states and readable, yet not delivered
    lost_at_sender: float
    lost_at_receiver: float
    lost_at_bridge: float
    #: ``sender``, ``bridge`` or ``receiver``: the largest of the three; ``nothing`` where 98 % of the bits arrive
    mainly: str


class Best(TypedDict):
    """The two best lengths of the curve, by bits per message; ``exact`` is None where no length is exact often enough."""

    exact_share: float
    exact: CurvePoint | None
    most: CurvePoint
    #: the bits per soft token of ``exact`` (else of ``most``) over those of the ceiling, and at how many soft tokens that was found
    share_of_ceiling: float | None
    ceiling_soft_tokens: int | None


class Capacity(TypedDict):
    """The whole file."""

    schema_version: int
    run: dict[str, Any]
    curve: list[CurvePoint]
    best: Best
    ceiling: Ceiling | None
    places: list[LossPlace]
