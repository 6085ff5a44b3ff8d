"""Recipes of the embedded models: phases, each a mixture of lessons, left when its gate is reached.

Looking a fact up among several forms all at once or not at all, and only while little else is asked for. So a run begins
with nothing but lists and keys, goes on to records, and meets the whole world and plain text when those are read well.
The learning rate is constant until the last phase, where it falls linearly to zero. Phases without a gate are as long as
they were in the run that made ``nano-mistral@2``, where somebody watched them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from latentwire.errors import UnknownNameError
from latentwire.models.nano.specs import NANO_SPECS, NanoSpec


@dataclass(frozen=True)
class Phase:
    """One part of a run.

    Args:
        shares: lesson (a key of ``LESSONS``) → its share of the documents.
        steps: how long at most.
        gate: exam → exact match; the phase ends early, from ``least_steps`` on, once all are reached. None: it never does.
        text_every: every n-th step also reads a micro-batch of plain text; 0 for none.
    """

    name: str
    shares: Mapping[str, int | float]
    steps: int
    least_steps: int = 0
    gate: Mapping[str, float] | None = None
    text_every: int = 0


CIRCUITS = Phase(
    "circuits", {"copy": 3, "continue": 10, "look_up": 10}, steps=4_000, least_steps=800, gate={"look_up": 0.9, "continue": 0.9}
)
RECORDS = Phase(
    "records",
    {"copy": 1, "continue": 1, "look_up": 2, "complete": 5, "record1": 1, "record2": 6, "record3": 5, "names": 3},
    steps=3_201,
)
#: each attribute forms by itself, and sooner where the question is short and stands among many
ATTRIBUTES = Phase(
    "attributes",
    {"copy": 0.5, "look_up": 1, "complete": 1, "record2": 2, "record3": 3, "attributes": 9},
    steps=6_500,
)
#: what stands before its key is a circuit of its own: counts and colours by item stayed at guessing level without this
THINGS = Phase(
    "things",
    {"look_up": 1, "complete": 0.5, "record2": 1, "record3": 3, "attributes": 4, "things": 8},
    steps=2_400,
    least_steps=400,
    gate={"record3/who": 0.94, "record3/item": 0.92, "record3/count": 0.94, "record3/colour": 0.94, "record3/place": 0.9},
)
WORLD = Phase(
    "world",
    {
        "copy": 2, "look_up": 1, "complete": 1, "record1": 2, "record2": 3, "record3": 4, "names": 1, "code8": 2, "code24": 2,
        "sentiment": 3, "topic": 1, "intent": 2, "sums": 4, "math1": 2, "math2": 4, "attributes": 2, "things": 2,
    },
    steps=1_500,
    text_every=1,
)  # fmt: skip
DECAY = Phase(
    "decay",
    {
        "copy": 1, "look_up": 0.5, "complete": 1, "record1": 2, "record2": 3, "record3": 5, "names": 1, "code8": 3, "code24": 2,
        "sentiment": 4, "topic": 1, "intent": 2, "sums": 1, "math1": 2, "math2": 3,
    },
    steps=2_500,
    text_every=1,
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights of one embedded model, besides the text it reads."""

    model: str
    phases: tuple[Phase, ...]
    seed: int = 0
    lr: float = 3e-3
    weight_decay: float = 0.05
    warmup_steps: int = 100
    tokenizer_documents: int = 20_000

    def spec(self) -> NanoSpec:
        if self.model not in NANO_SPECS:
            raise UnknownNameError("embedded model", self.model, NANO_SPECS)
        return NANO_SPECS[self.model]


PHASES = (CIRCUITS, RECORDS, ATTRIBUTES, THINGS, WORLD, DECAY)
RECIPES = {name: Recipe(name, PHASES) for name in NANO_SPECS}
