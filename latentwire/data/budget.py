"""Budgets in tokens: what a model is given to read must fit. The context is cut first; options, question and cue never.

Tokens are those of the reading model. Nothing here knows a model: it is told how to count by a ``Reader``.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from latentwire.data.readers import Cut, TaskRows
from latentwire.data.task import Example, Task
from latentwire.errors import DataError
from latentwire.prompts import Prompt


@runtime_checkable
class Reader(Protocol):
    """How one model counts: ``latentwire.models.chat.Prompter`` is one."""

    name: str
    #: the longest sequence the model reads
    max_tokens: int

    def count(self, prompts: Sequence[Prompt]) -> list[int]:
        """Tokens of whole prompts, with what always stands around them."""

    def longer(self, prompts: Sequence[Prompt], most: int) -> dict[int, int]:
        """Place and tokens of each prompt that has more than ``most``."""

    def count_texts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of bare texts."""

    def count_answer(self, prompt: Prompt, answer: str) -> int:
        """Tokens of an answer behind its prompt, its end token left out."""

    def first(self, text: str, tokens: int) -> str:
        """The beginning of a text up to the border behind its first ``tokens`` tokens."""


def fit_rows(task: Task, rows: TaskRows, *, sender: Reader, receiver: Reader) -> TaskRows:
    """The rows with every context cut to what each end may read; ``cuts`` of the result names them.

    An end may read what the task's ``limits`` say, and never more than its model can; the receiver keeps room for its answer.

    Raises:
        DataError: a row does not fit even without its context, or a target is longer than ``max_new_tokens``; the message
            names the row and what to raise.
    """
    _check_targets(task, rows.examples, receiver)
    limits, examples = task.config.limits, rows.examples
    sender_most = min(limits.sender_tokens or sender.max_tokens, sender.max_tokens)
    receiver_most = min(
        limits.receiver_tokens or receiver.max_tokens, receiver.max_tokens - 1 - _answer_room(task, examples, receiver)
    )
    sender_longer = sender.longer([Prompt(example.sender_prompt, "") for example in examples], sender_most)
    aware_longer = receiver.longer([example.receiver_prompt_aware for example in examples], receiver_most)
    for prompts in _unaware_prompts(examples):
        for place, count in receiver.longer(prompts, receiver_most).items():
            raise _too_long(task, examples[place], count, "receiver", receiver, receiver_most)
    fitted, cuts = list(examples), []
    for place in sorted({*sender_longer, *aware_longer}):
        example = examples[place]
        texts = {"sender": task.context(example) or "", "receiver": task.context(example) or ""}
        for end, reader, longer, most in (
            ("sender", sender, sender_longer, sender_most),
            ("receiver", receiver, aware_longer, receiver_most),
        ):
            if place in longer:
                whole, texts[end] = texts[end], _shortened(task, example, end, reader, most)
                cuts.append(Cut(example.id, end, *reader.count_texts([whole, texts[end]])))
                fitted[place] = task.with_context(example, **texts)
    return dataclasses.replace(rows, examples=tuple(fitted), cuts=tuple(cuts))


def describe_cuts(rows: TaskRows) -> str:
    """One line about the contexts that were cut, empty when none was."""
    parts = []
    for end in ("sender", "receiver"):
        of_end = [cut for cut in rows.cuts if cut.end == end]
        if of_end:
            most = max(of_end, key=lambda cut: cut.tokens - cut.kept)
            left = f"{most.kept} of {most.tokens} tokens left of row {most.row_id}"
            parts.append(f"{len(of_end)} of {len(rows.examples)} contexts for the {end} ({left})")
    return f"cut to fit: {'; '.join(parts)}" if parts else ""


def _unaware_prompts(examples: Sequence[Example]) -> list[list[Prompt]]:
    """The receiver's prompts that hold no context, so that nothing in them may be cut."""
    shown = [example.receiver_prompt_options or example.receiver_prompt for example in examples]
    return [[example.receiver_prompt for example in examples], shown]


def _answer_room(task: Task, examples: Sequence[Example], receiver: Reader) -> int:
    """Tokens that an answer may take behind the receiver's prompt."""
    if not task.has_options:
        return task.config.max_new_tokens
    texts = {text for example in examples for text in (*example.options, *example.option_texts)}
    return max(receiver.count_texts(sorted(texts)))


def _shortened(task: Task, example: Example, end: str, reader: Reader, most: int) -> str:
    """The longest beginning of the context with which the prompt of ``end`` has at most ``most`` tokens."""

    def tokens_with(context: str) -> int:
        tried = task.with_context(example, sender=context, receiver=context)
        return reader.count([Prompt(tried.sender_prompt, "") if end == "sender" else tried.receiver_prompt_aware])[0]

    context = task.context(example)
    if context is None:
        prompt = Prompt(example.sender_prompt, "") if end == "sender" else example.receiver_prompt_aware
        raise _too_long(task, example, reader.count([prompt])[0], end, reader, most)
    whole = reader.count_texts([context])[0]
    kept = bisect(range(1, whole + 1), most, key=lambda tokens: tokens_with(reader.first(context, tokens)))
    text = reader.first(context, kept)
    if not text.strip():
        raise _too_long(task, example, tokens_with(""), end, reader, most)
    return text


def _too_long(task: Task, example: Example, count: int, end: str, reader: Reader, most: int) -> DataError:
    where = f"task {task.name!r}, row {example.id}"
    if task.config.limits.cut is None:
        return DataError(
            f"{where}: its prompt has {count} tokens of {reader.name!r}, the {end} reads at most {most} and nothing may be cut; "
            f"name a field with limits.cut in {task.path.name}, or leave the row out"
        )
    return DataError(
        f"{where}: what is never cut (options, question, cue) has {count} tokens of {reader.name!r}, the {end} reads at most "
        f"{most}; raise limits.{end}_tokens in {task.path.name} as far as the model reads, or leave the row out"
    )


def _check_targets(task: Task, examples: Sequence[Example], receiver: Reader) -> None:
    if task.has_options or not examples:
        return
    most = task.config.max_new_tokens
    bare = receiver.count_texts([f" {example.answer}" for example in examples])
    for example, tokens in zip(examples, bare, strict=True):
        # behind a prompt an answer may be cut into a token or two more than alone
        if tokens + 2 > most and (exact := receiver.count_answer(example.receiver_prompt, example.answer)) > most:
            raise DataError(
                f"task {task.name!r}, row {example.id}: the target has {exact} tokens of {receiver.name!r}, "
                f"max_new_tokens is {most}; raise it in {task.path.name} or with --set variant.max_new_tokens={exact}"
            )
