"""Few-shot: the receiver reads solved training rows before the context and the question."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from latentwire.data.task import Example
from latentwire.errors import DataError
from latentwire.methods.base import FitData
from latentwire.methods.receiver_text import ReceiverText
from latentwire.prompts import Prompt

SEPARATOR = "\n\n"


class FewShot(ReceiverText):
    """The receiver reads k solved training rows, then context and question as text."""

    name = "fewshot"
    receiver_sees = "solved rows + context + question"
    fits = True
    answers_untrained = True
    seeded = True

    def fit(self, data: FitData) -> dict[str, Any]:
        """Draws the shots: as many per answer as possible where there are options, else any rows."""
        wanted = self.parts.settings.shots
        rows = list(data.train)
        Random(f"shots:{data.task.name}:{data.seed}").shuffle(rows)
        by_label: dict[int | None, list[Example]] = {}
        for row in rows:
            by_label.setdefault(row.label, []).append(row)
        self.shots: list[Example] = []
        while len(self.shots) < min(wanted, len(rows)):
            for group in by_label.values():
                if group and len(self.shots) < wanted:
                    self.shots.append(group.pop())
        self.most_written = data.task.config.max_new_tokens
        self.longest_answer = max(len(self.reader.answer_ids(row.receiver_prompt_aware, row.answer)) for row in self.shots)
        return {"shots": [shot.id for shot in self.shots]}

    def prompts(self, examples: Sequence[Example]) -> list[Prompt]:
        return [self._prompt(example) for example in examples]

    def _prompt(self, example: Example) -> Prompt:
        """With as many shots as the model can read, the longest left out first."""
        own = example.receiver_prompt_aware
        solved = [f"{shot.receiver_prompt_aware.text} {shot.answer}{SEPARATOR}" for shot in self.shots]
        room = self.reader.max_tokens - max(64, self.longest_answer, self.most_written)
        while solved:
            prompt = Prompt("".join(solved) + own.before, own.after)
            if self.reader.count_tokens(prompt) < room:
                return prompt
            solved.remove(max(solved, key=len))
        raise DataError(
            f"task {example.task!r}, row {example.id}: not one solved row fits before it into the {self.reader.max_tokens} tokens "
            "of the receiver; use receiver_text instead, or shorten the context with the task's limits"
        )
