"""The file of a recall measurement: every key of ``recall.json`` is typed and explained here and in ``docs/recall.md``."""

from __future__ import annotations

from typing import Any, TypedDict

from latentwire.analysis.capacity.file import Interval

SCHEMA_VERSION = 1
RECALL_FILE, FIGURE_FILE = "recall.json", "recall.png"
#: who writes the text again: the receiver from the message, from another text's message, and from the text itself
READERS = ("message", "shuffled", "text")
#: what must arrive exactly, and the kinds of spans (``latentwire.messages.spans``) that it is made of
FACTS = {"numbers": ("number",), "entities": ("name", "date", "address", "code", "symbols", "quoted")}


class RecallPoint(TypedDict):
    """Texts of one source as one reader gives them back. Means over texts; None where no text has anything of the kind."""

    source: str
    reader: str
    #: texts, and those of them with numbers and with entities
    n: int
    n_numbers: int
    n_entities: int
    #: means: the sender's tokens of a text, soft tokens and bytes of a message
    sender_tokens: float
    message_tokens: float
    message_bytes: float
    #: cross-entropy of the text's tokens, the end token left out, per token
    nats_per_token: Interval
    #: share of a text's numbers and entities that stand, whole, in what the receiver writes (greedy)
    numbers_written: Interval | None
    entities_written: Interval | None
    #: the same in what the soft tokens spell: the nearest vocabulary token of each, and verbatim text; None for the text itself
    numbers_spelled: Interval | None
    entities_spelled: Interval | None


class Recall(TypedDict):
    """The whole file."""

    schema_version: int
    run: dict[str, Any]
    points: list[RecallPoint]
