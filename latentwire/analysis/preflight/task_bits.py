"""How many bits about its answer a task asks a message to carry, as one receiver sees it.

Task bits of a row = the receiver's cross-entropy, in bits, on the gold answer without the context, minus the same with it: a
lower bound on what the receiver learned from the text, in the spirit of V-usable information (Xu et al. 2020, Ethayarajh et al.
2022), for one frozen reader. Where there are options it is the cross-entropy among them; a free answer is scored token by
token, its end token included. Of several right answers the first is scored, the one that is taught.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F

from latentwire.data.task import Example
from latentwire.errors import DataError
from latentwire.evaluation.statistics import Estimate, mean_interval
from latentwire.methods.base import Prediction
from latentwire.models.batching import parts
from latentwire.models.receiver import Receiver
from latentwire.models.soft_tokens import Prefix, SoftTokens
from latentwire.prompts import Prompt

#: rows whose prompts are embedded at a time
_CHUNK_ROWS = 64

Advance = Callable[[int], None]


@dataclass(frozen=True)
class RowBits:
    """Cross-entropy of one row's gold answer in bits, without and with the context."""

    id: str
    field: str
    without: float
    with_text: float

    @property
    def needed(self) -> float:
        return self.without - self.with_text


@dataclass(frozen=True)
class TaskBits:
    """Means over the rows with 95 % bootstrap intervals, in bits per answer.

    ``most`` is the 95th percentile of ``needed`` over the rows; ``fields`` splits ``needed`` by the task's own fields.
    """

    needed: Estimate
    without: Estimate
    with_text: Estimate
    most: float
    fields: dict[str, Estimate]
    n: int

    @property
    def text_helps(self) -> bool:
        """Whether the text makes the answer likelier, beyond doubt of sampling."""
        return self.needed.low > 0

    def as_dict(self) -> dict[str, Any]:
        """JSON: estimates as ``{value, low, high, how}``."""
        named = {key: getattr(self, key)._asdict() for key in ("needed", "without", "with_text")}
        fields = {name: estimate._asdict() for name, estimate in self.fields.items()}
        return {**asdict(self), **named, "fields": fields}


@dataclass(frozen=True)
class Read:
    """What the receiver makes of one prompt: bits of the gold answer behind it, and its own answer where it was asked for."""

    bits: float
    prediction: Prediction | None = None


def task_bits(rows: Sequence[RowBits]) -> TaskBits:
    """Means and intervals of measured rows. Raises ``DataError`` for no rows."""
    if not rows:
        raise DataError("no rows to measure task bits on; check --rows and the task's splits")
    needed = sorted(row.needed for row in rows)
    fields = sorted({row.field for row in rows})
    return TaskBits(
        needed=mean_interval(needed),
        without=mean_interval([row.without for row in rows]),
        with_text=mean_interval([row.with_text for row in rows]),
        most=needed[max(0, math.ceil(0.95 * len(needed)) - 1)],
        fields={name: mean_interval([row.needed for row in rows if row.field == name]) for name in fields if len(fields) > 1},
        n=len(rows),
    )


def measure_task_bits(receiver: Receiver, examples: Sequence[Example], *, advance: Advance = lambda rows: None) -> TaskBits:
    """Task bits of the examples for this receiver; two passes over each row."""
    without = read_answers(receiver, examples, [row.receiver_prompt for row in examples], advance=advance)
    with_text = read_answers(receiver, examples, [row.receiver_prompt_aware for row in examples], advance=advance)
    return task_bits(paired(examples, without, with_text))


def paired(examples: Sequence[Example], without: Sequence[Read], with_text: Sequence[Read]) -> list[RowBits]:
    """The rows' bits from the two ways of reading."""
    return [
        RowBits(example.id, example.field, one.bits, other.bits)
        for example, one, other in zip(examples, without, with_text, strict=True)
    ]


@torch.no_grad()
def read_answers(
    receiver: Receiver,
    examples: Sequence[Example],
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int | None = None,
    message: Callable[[Sequence[Example]], SoftTokens] | None = None,
    advance: Advance = lambda rows: None,
) -> list[Read]:
    """Bits of every gold answer behind its prompt; with ``max_new_tokens`` also what the receiver answers itself.

    ``message`` makes the soft tokens that stand in the prompts of some rows; without it nothing stands there.

    Raises:
        DataError: a prompt is longer than the receiver reads.
    """
    found: list[Read] = []
    for start in range(0, len(examples), _CHUNK_ROWS):
        rows, asked = examples[start : start + _CHUNK_ROWS], prompts[start : start + _CHUNK_ROWS]
        prefix = receiver.prefix(asked, None if message is None else message(rows))
        if all(row.options for row in rows):
            found += _among_options(receiver, rows, asked, prefix)
        else:
            bits = _written_bits(receiver, rows, asked, prefix)
            texts = None if max_new_tokens is None else receiver.generate(prefix, max_new_tokens=max_new_tokens)
            found += [
                Read(own, None if texts is None else Prediction(texts[index], None, None, 0, 0)) for index, own in enumerate(bits)
            ]
        advance(len(rows))
    return found


def _among_options(receiver: Receiver, rows: Sequence[Example], prompts: Sequence[Prompt], prefix: Prefix) -> list[Read]:
    """Cross-entropy among the options, and the best of them."""
    scores = receiver.score_options(prefix, receiver.tries(prompts, [row.options for row in rows]))
    found = []
    for row, own in zip(rows, scores, strict=True):
        bits = F.cross_entropy(own[None].float(), torch.tensor([row.label], device=own.device)).item() / math.log(2)
        best = int(own.argmax())
        found.append(Read(bits, Prediction(row.options[best], best, tuple(own.tolist()), 0, 0)))
    return found


def _written_bits(receiver: Receiver, rows: Sequence[Example], prompts: Sequence[Prompt], prefix: Prefix) -> list[float]:
    """Cross-entropy of each gold answer with its end token, in bits."""
    answers = [receiver.answer_ids(prompt, row.answer) for prompt, row in zip(prompts, rows, strict=True)]
    bits = [0.0] * len(rows)
    lengths = [length + len(answer) for length, answer in zip(prefix.lengths, answers, strict=True)]
    for part in parts(lengths, receiver.device):
        log_probs, _ = receiver.answer_log_probs(prefix[part], [answers[row] for row in part])
        for row, nats in zip(part, log_probs.sum(dim=1).tolist(), strict=True):
            bits[row] = -nats / math.log(2)
    return bits
