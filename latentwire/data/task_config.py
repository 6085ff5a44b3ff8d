"""What a task file may say, checked as a whole. ``docs/tasks.md`` explains every key."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, model_validator

from latentwire.errors import ConfigError
from latentwire.schema import Schema

_HOLE = re.compile(r"\{([\w.]+)\}")
#: with blanks in it, which is a slip
_NEARLY_A_HOLE = re.compile(r"\{(?=\s|[\w.]+\s)\s*[\w.]+\s*\}")
_RECEIVER_PROMPTS = ("receiver_prompt", "receiver_prompt_aware", "receiver_prompt_options")


def holes(template: str) -> set[str]:
    """Names between braces in a prompt template."""
    return set(_HOLE.findall(template))


class TaskVariant(Schema):
    """How a task is posed, where there is a choice."""

    sender_sees: Literal["context", "all"] = Field("context", description="the context alone, or all there is: also the question")
    target: Literal["answer", "solution"] = Field("answer", description="the bare answer, or the worked solution that ends in it")
    max_new_tokens: int | None = Field(None, ge=1, description="in place of the task's own limit for free answers")


class Source(Schema):
    """Where rows come from: a generator, or a Hub dataset that ``--data_dir`` may replace by ``<folder>/<split>.jsonl[.gz]``."""

    generated: str | None = None
    hub: str | None = None
    hub_config: str | None = None
    revision: str | None = None
    folder: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Source:
        if (self.generated is None) == (self.hub is None and self.folder is None):
            raise ValueError("give either `generated`, or `hub` and / or `folder`")
        return self


class Splits(Schema):
    """Names of the splits at the source. Without ``validation`` one is cut from train by a seeded rule.

    ``blocks`` are shares of train, validation and test: where the source has no train split, the three are contiguous
    blocks of its test split, because neighbouring rows may share their origin.
    """

    train: str = "train"
    validation: str | None = None
    test: str = "test"
    blocks: tuple[float, float, float] | None = None

    @model_validator(mode="after")
    def _whole(self) -> Splits:
        if self.blocks is not None and (min(self.blocks) <= 0 or abs(sum(self.blocks) - 1) > 1e-9):
            raise ValueError("blocks are three shares above 0 that sum to 1, for example [0.6, 0.1, 0.3]")
        return self


class Options(Schema):
    """The options of a row: a fixed ``list``, a list ``field``, several ``fields``, or the label names of the data set."""

    list: tuple[str, ...] | None = None
    field: str | None = None
    fields: tuple[str, ...] | None = None
    label_names: str | None = Field(None, description="a JSON file beside the rows; on the Hub, the names of the answer field")
    letters: str | None = Field(None, description="field with the letters of the options, where the row has its own")
    replace: dict[str, str] = Field(default_factory=dict, description="text replacements in every option")

    @model_validator(mode="after")
    def _one_kind(self) -> Options:
        if sum(value is not None for value in (self.list, self.field, self.fields, self.label_names)) != 1:
            raise ValueError("give exactly one of `list`, `field`, `fields`, `label_names`")
        return self


class Answer(Schema):
    """Which field holds the answer, and in what form.

    ``after`` is a mark such as ``####``: behind it stands the answer, and the whole text is the worked solution.
    """

    field: str
    form: Literal["index", "letter", "text", "boolean"] = Field("text", alias="as")
    first_index: int = Field(0, description="index that stands for the first option")
    after: str | None = None
    remove: str | None = Field(None, description="regular expression of what is taken out of a free answer")

    @model_validator(mode="after")
    def _expression(self) -> Answer:
        try:
            re.compile(self.remove or "")
        except re.error as error:
            raise ValueError(f"remove = {self.remove!r} is no regular expression ({error})") from None
        return self


class Limits(Schema):
    """Budgets in tokens of the reading model. Only the field ``cut`` is ever shortened, from its end."""

    cut: str | None = None
    sender_tokens: int | None = Field(None, ge=1)
    receiver_tokens: int | None = Field(None, ge=1)


class Sees(Schema):
    """Who sees what, in words: the sender, and the receiver that does not know the context."""

    sender: str
    receiver: str


class TaskConfig(Schema):
    """The content of a task file."""

    name: str
    summary: str
    kind: Literal["classification", "multiple_choice", "span", "generation"]
    source: Source
    splits: Splits = Splits()
    sees: Sees
    sender_prompt: str
    sender_prompt_all: str | None = None
    receiver_prompt: str
    receiver_prompt_aware: str
    receiver_prompt_options: str | None = None
    options: Options | None = None
    answer: Answer
    metrics: tuple[
        Literal["accuracy", "accuracy_by_text", "exact_match", "exact_match_normalised", "f1", "final_answer", "number_match"], ...
    ]
    max_new_tokens: int = Field(32, ge=1)
    max_new_tokens_solution: int | None = Field(None, ge=1)
    limits: Limits = Limits()
    #: fields: rows that agree in all of them never stand in train and in validation
    together: tuple[str, ...] = ()
    licence: str = "unknown"

    @model_validator(mode="after")
    def _prompts_fit(self) -> TaskConfig:
        for key in ("sender_prompt", *_RECEIVER_PROMPTS):
            if (odd := _NEARLY_A_HOLE.search(getattr(self, key) or "")) is not None:
                raise ValueError(f"{key} has {odd[0]!r}, which is sent as it is; write {{{odd[0][1:-1].strip()}}} for the field")
        if not holes(self.sender_prompt):
            raise ValueError("sender_prompt has no hole, so all rows read alike; name a field of the rows, for example {text}")
        for key in _RECEIVER_PROMPTS:
            if (template := getattr(self, key)) is not None and template.count("{message}") != 1:
                raise ValueError(f"{key} needs the hole {{message}} exactly once")
        if self.receiver_prompt_options is not None and self.kind != "multiple_choice":
            raise ValueError(f"kind {self.kind!r} takes no receiver_prompt_options; the options are what is scored")
        if self.limits.cut is not None and self.limits.cut not in holes(self.sender_prompt):
            raise ValueError(f"limits.cut = {self.limits.cut!r} is no hole of sender_prompt")
        return self

    @model_validator(mode="after")
    def _answer_fits(self) -> TaskConfig:
        if (self.options is None) != (self.kind in ("span", "generation")):
            raise ValueError(f"kind {self.kind!r} {'needs' if self.options is None else 'takes no'} options")
        if not self.metrics or any(metric.startswith("accuracy") != (self.options is not None) for metric in self.metrics):
            fitting = (
                "accuracy, accuracy_by_text"
                if self.options
                else "exact_match, exact_match_normalised, f1, final_answer, number_match"
            )
            raise ValueError(f"metrics of kind {self.kind!r} are one or more of: {fitting}")
        if (self.answer.after is None) != (self.max_new_tokens_solution is None):
            raise ValueError("answer.after (what stands before it is a worked solution) goes with max_new_tokens_solution")
        return self

    @property
    def templates(self) -> tuple[str, ...]:
        """All prompt templates."""
        given = (self.sender_prompt, *(getattr(self, key) for key in _RECEIVER_PROMPTS))
        return tuple(template for template in given if template is not None)

    def posed(self, variant: TaskVariant) -> TaskConfig:
        """The same task with the variant's prompts, words and limits in place.

        Raises:
            ConfigError: the task has no such variant.
        """
        change: dict[str, object] = {}
        if variant.sender_sees == "all" and self.sender_prompt_all is not None:
            both = f"{self.sees.sender} and {self.sees.receiver}"
            change |= {"sender_prompt": self.sender_prompt_all, "sees": Sees(sender=both, receiver=self.sees.receiver)}
        elif variant.sender_sees == "all" and holes(self.receiver_prompt) - {"message"}:
            raise ConfigError(f"task {self.name!r} has no variant sender_sees=all; add sender_prompt_all to its file")
        if variant.target == "solution":
            if self.answer.after is None:
                raise ConfigError(f"task {self.name!r} has no worked solutions, so target=solution does not fit; use target=answer")
            change["max_new_tokens"] = self.max_new_tokens_solution
        if variant.max_new_tokens is not None:
            change["max_new_tokens"] = variant.max_new_tokens
        return self.model_copy(update=change)
