"""The rows of a task as a run would meet them, with what the budgets do to each, and without stopping at the first bad one."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

from latentwire.config import RunConfig
from latentwire.data.budget import fit_rows
from latentwire.data.readers import Cut, TaskRows, read_task
from latentwire.data.task import SPLITS, Example, Task
from latentwire.errors import DataError
from latentwire.models.chat import Prompter


@dataclass(frozen=True)
class Fitting:
    """One split before and after the budgets. ``refused`` are rows that no cut makes fit: id and why."""

    whole: tuple[Example, ...]
    fitted: tuple[Example, ...]
    cuts: tuple[Cut, ...]
    refused: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Posed:
    """A task posed to two readers by a config. ``unreadable`` says why a split could not be read.

    ``target_tokens``, by split and id, are counted by the receiver behind the row's own prompt, the end token left out.
    """

    config: RunConfig
    task: Task
    sender: Prompter
    receiver: Prompter
    splits: dict[str, TaskRows]
    unreadable: dict[str, str]
    target_tokens: dict[tuple[str, str], int]
    fittings: dict[str, Fitting]

    @property
    def examples(self) -> list[Example]:
        """The rows of all splits, in their order, as they are before any cut."""
        return [row for rows in self.splits.values() for row in rows.examples]

    @property
    def where(self) -> str:
        """The task's file, for mends."""
        return self.task.path.name


def pose(config: RunConfig, task: Task, *, sender: Prompter, receiver: Prompter, rows: int) -> Posed:
    """Reads at most ``rows`` of each split, tries all budgets on them and counts all targets; loads no model.

    Raises:
        DataError: neither train nor validation can be read.
    """
    splits: dict[str, TaskRows] = {}
    unreadable: dict[str, str] = {}
    for split in SPLITS:
        try:
            splits[split] = read_task(task, split, data_dir=config.data.data_dir, max_rows=rows)
        except DataError as error:
            unreadable[split] = str(error)
    if "train" in unreadable and "validation" in unreadable:
        raise DataError(unreadable["train"])
    tokens = {
        (split, row.id): receiver.count_answer(row.receiver_prompt, row.answer)
        for split, read in splits.items()
        for row in (() if task.has_options else read.examples)
    }
    fittings = {
        split: _fitting(task, read, sender, receiver, {row_id: count for (own, row_id), count in tokens.items() if own == split})
        for split, read in splits.items()
    }
    return Posed(config, task, sender, receiver, splits, unreadable, tokens, fittings)


def _fitting(task: Task, rows: TaskRows, sender: Prompter, receiver: Prompter, tokens: dict[str, int]) -> Fitting:
    """What the budgets do to a split, given room for its targets: whether those fit is another check's question."""
    most = receiver.max_tokens // 2
    tried = [row for row in rows.examples if tokens.get(row.id, 0) <= most]
    roomy = copy.copy(task)
    longest = max((tokens.get(row.id, 0) for row in tried), default=0)
    roomy.config = task.config.model_copy(update={"max_new_tokens": max(longest, min(task.config.max_new_tokens, most))})
    refused: list[tuple[str, str]] = []
    whole: list[Example] = []
    fitted: list[Example] = []
    cuts: list[Cut] = []

    def fit(part: Sequence[Example]) -> None:
        """The whole part at once; where a row is refused, halves find it."""
        try:
            done = fit_rows(roomy, replace(rows, examples=tuple(part)), sender=sender, receiver=receiver)
        except DataError as error:
            if len(part) == 1:
                refused.append((part[0].id, str(error).partition(": ")[2] or str(error)))
                return
            fit(part[: len(part) // 2])
            fit(part[len(part) // 2 :])
            return
        whole.extend(part)
        fitted.extend(done.examples)
        cuts.extend(done.cuts)

    if tried:
        fit(tried)
    return Fitting(tuple(whole), tuple(fitted), tuple(cuts), tuple(refused))
