"""The loaded pair of a run with the rows that every method of a benchmark answers, all answers of one length."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from latentwire.bridges.base import Bridge
from latentwire.config import ARTEFACT_FOLDER, RunConfig
from latentwire.data.budget import fit_rows
from latentwire.data.readers import read_task
from latentwire.data.task import Example, Task, load_task
from latentwire.errors import UsageError
from latentwire.evaluation.run import load_parts, saved_config
from latentwire.methods import build_method
from latentwire.methods.base import Method, Parts
from latentwire.methods.settings import MethodSettings
from latentwire.models.compiling import compiled_forward
from latentwire.models.receiver import Receiver
from latentwire.prompts import Prompt
from latentwire.training.run import load_prompters

#: methods that are timed against each other, beside the floor
METHODS = ("bridge", "receiver_text", "text_relay")
#: sender tokens of a relay's note: exactly so many, since nothing ends it
NOTE_TOKENS = 32
#: different rows; repetitions go round them
MOST_ROWS = 512


@dataclass(frozen=True)
class BenchPair:
    """What a benchmark works with. ``rows`` are of the task's test split, in their order."""

    config: RunConfig
    parts: Parts
    task: Task
    rows: tuple[Example, ...]
    data_revision: str

    @property
    def device(self) -> torch.device:
        return self.parts.receiver.device

    @property
    def bridge(self) -> Bridge:
        bridge = self.parts.bridge
        assert bridge is not None
        return bridge

    @property
    def answer_tokens(self) -> int:
        """Decode steps of every answer; 0 where options are scored."""
        return 0 if self.task.has_options else self.task.config.max_new_tokens

    def method(self, name: str) -> Method:
        return build_method(name, self.parts)

    def predict(self, method: Method, rows: Sequence[Example]) -> object:
        """From the texts of the rows to their answers."""
        return method.predict(rows, max_new_tokens=self.task.config.max_new_tokens)

    def batch(self, turn: int, size: int, rows: Sequence[Example] | None = None) -> list[Example]:
        """The rows of a repetition: the next ``size``, round and round."""
        rows = self.rows if rows is None else rows
        return [rows[(turn * size + index) % len(rows)] for index in range(size)]


def load_bench_pair(
    folder: Path,
    *,
    task: str | None = None,
    data_dir: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    compiled: bool = False,
    max_rows: int = MOST_ROWS,
) -> BenchPair:
    """The pair of a trained run, the whole sender loaded, no end token known to either model: every answer and every note has
    exactly the tokens asked for.

    Raises:
        ArtefactError: the folder holds no run with a bridge. DataError: the task's rows are not there.
    """
    config = measured_config(folder, dtype)
    bridge = Bridge.from_pretrained(folder / ARTEFACT_FOLDER).requires_grad_(False)
    sender_end, receiver_end = load_prompters(config)
    chosen = load_task(task or config.task[0], config.variant)
    read = read_task(chosen, "test", data_dir=data_dir or config.data.data_dir, max_rows=max_rows)
    read = fit_rows(chosen, read, sender=sender_end, receiver=receiver_end)
    parts = load_parts(config, bridge, device=device, writer=True)
    parts = dataclasses.replace(parts, settings=MethodSettings(relay_tokens=NOTE_TOKENS))
    assert parts.sender.writer is not None
    for model in (parts.receiver, parts.sender.writer):
        never_ending(model)
    if compiled:
        compile_models(parts)
    # a second scoring of the options' texts is no part of an answer
    rows = tuple(dataclasses.replace(row, receiver_prompt_options=None) for row in read.examples)
    return BenchPair(config, parts, chosen, rows, read.revision)


def measured_config(folder: Path, dtype: str | None) -> RunConfig:
    """The config of a run, both models in another number format where one is named."""
    config = saved_config(folder)
    if dtype is None:
        return config
    ends = {name: getattr(config, name).model_copy(update={"dtype": dtype}) for name in ("sender", "receiver")}
    return config.model_copy(update=ends)


def never_ending(model: Receiver) -> None:
    """Lets a model write to the last step."""
    model.end_ids = set()


def compile_models(parts: Parts) -> None:
    """Compiles both models' passes in place (``torch.compile``, any shape), for the methods and the floor alike."""
    for end in (parts.sender, parts.receiver):
        end.model.forward = compiled_forward(end.model, end.device)  # type: ignore[method-assign]


def lengthened(pair: BenchPair, *, receiver_tokens: int) -> tuple[Example, ...]:
    """The rows with contexts of at least so many receiver tokens: each continued by the contexts of the rows behind it.

    Raises:
        UsageError: sender or receiver cannot read so many.
    """
    rows, receiver, sender = pair.rows, pair.parts.receiver, pair.parts.sender
    counts = receiver.prompter.count_texts([row.sender_prompt for row in rows])
    made = []
    for first, row in enumerate(rows[:64]):
        texts, total, place = [], 0, first
        while total < receiver_tokens:
            texts.append(rows[place % len(rows)].sender_prompt)
            total += counts[place % len(rows)]
            place += 1
        text = " ".join(texts)
        aware = Prompt(f"{text}{row.receiver_prompt.before}", row.receiver_prompt.after)
        made.append(dataclasses.replace(row, sender_prompt=text, receiver_prompt_aware=aware))
    longest = max(receiver.prompter.count([row.receiver_prompt_aware for row in made])) + pair.answer_tokens
    most = min(receiver.max_tokens, sender.max_tokens)
    if longest >= most:
        raise UsageError(f"contexts of {receiver_tokens} tokens do not fit: the pair reads at most {most}; ask for shorter ones")
    return tuple(made)
