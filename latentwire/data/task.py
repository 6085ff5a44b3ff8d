"""Tasks are declarative: one YAML file says where rows come from, what each model reads, and what a right answer is.

See ``docs/tasks.md`` for the format. ``Task.example`` turns one raw row into what every method works on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal

from pydantic import Field, model_validator

from latentwire.errors import ConfigError, DataError, UnknownNameError, suggestion
from latentwire.prompts import Prompt
from latentwire.schema import Schema, validated

TASK_FOLDER = Path(__file__).parent / "tasks"
SPLITS = ("train", "validation", "test")
_HOLE = re.compile(r"\{([\w.]+)\}")

Row = Mapping[str, Any]


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
    """Names of the splits at the source. Without ``validation`` one is cut from train by a seeded rule."""

    train: str = "train"
    validation: str | None = None
    test: str = "test"


class Options(Schema):
    """The options of a row: a fixed ``list``, a list ``field``, several ``fields``, or the label names of the data set."""

    list: tuple[str, ...] | None = None
    field: str | None = None
    fields: tuple[str, ...] | None = None
    label_names: str | None = Field(None, description="a JSON file beside the rows; on the Hub, the names of the answer field")
    replace: dict[str, str] = Field(default_factory=dict, description="text replacements in every option")

    @model_validator(mode="after")
    def _one_kind(self) -> Options:
        if sum(value is not None for value in (self.list, self.field, self.fields, self.label_names)) != 1:
            raise ValueError("give exactly one of `list`, `field`, `fields`, `label_names`")
        return self


class Answer(Schema):
    """Which field holds the answer, and in what form."""

    field: str
    form: Literal["index", "letter", "text", "boolean"] = Field("text", alias="as")
    letters: str | None = Field(None, description="field with the letters of the options, where they vary by row")
    first_index: int = Field(0, description="index that stands for the first option")


class TaskConfig(Schema):
    """The content of a task file."""

    name: str
    summary: str
    kind: Literal["classification", "multiple_choice", "span", "generation"]
    source: Source
    splits: Splits = Splits()
    sender_prompt: str
    receiver_prompt: str
    receiver_prompt_aware: str
    options: Options | None = None
    answer: Answer
    metric: Literal["accuracy", "exact_match", "final_answer"]
    max_new_tokens: int = Field(32, ge=1)
    licence: str = "unknown"

    @model_validator(mode="after")
    def _holes(self) -> TaskConfig:
        for key in ("receiver_prompt", "receiver_prompt_aware"):
            if getattr(self, key).count("{message}") != 1:
                raise ValueError(f"{key} needs the hole {{message}} exactly once")
        if (self.options is None) != (self.kind in ("span", "generation")):
            raise ValueError(f"kind {self.kind!r} {'needs' if self.options is None else 'takes no'} options")
        return self


@dataclass(frozen=True)
class Example:
    """One row as every method sees it. ``options`` is empty and ``label`` None where the answer is free text."""

    id: str
    task: str
    sender_prompt: str
    receiver_prompt: Prompt
    receiver_prompt_aware: Prompt
    options: tuple[str, ...]
    label: int | None
    answer: str
    field: str = "all"
    held_out: bool = False
    chance: float | None = None
    note: str | None = None
    bits: float | None = None


class Task:
    """A task file and what follows from it."""

    def __init__(self, config: TaskConfig, path: Path) -> None:
        self.config, self.path = config, path

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def has_options(self) -> bool:
        return self.config.options is not None

    @cached_property
    def needed_fields(self) -> set[str]:
        """Top-level fields that every row must have."""
        config = self.config
        templates = (config.sender_prompt, config.receiver_prompt, config.receiver_prompt_aware)
        names = {name for template in templates for name in _HOLE.findall(template)} - {"message", "options"}
        names |= {config.answer.field, config.answer.letters or config.answer.field}
        if config.options:
            names |= set(config.options.fields or ()) | ({config.options.field} if config.options.field else set())
        return {name.split(".")[0] for name in names}

    def example(self, row: Row, index: int, split: str, label_names: Sequence[str] | None = None) -> Example:
        """One raw row with its prompts filled in.

        Raises:
            DataError: a field is missing or the answer is outside the options; the message names the row.
        """
        row_id = str(row.get("id") or f"{split}-{index}")
        missing = sorted(self.needed_fields - set(row))
        if missing:
            raise DataError(
                f"task {self.name!r}, row {row_id}: field {missing[0]!r} is missing; the row has {', '.join(sorted(row))}"
            )
        options = self._options(row, label_names, row_id)
        label, answer = self._answer(row, options, row_id)
        sender_prompt = self._fill(self.config.sender_prompt, row, options)
        texts = [str(_lookup(row, hole)) for hole in _HOLE.findall(self.config.sender_prompt) if hole != "options"]
        if not "".join(texts or [sender_prompt]).strip():
            raise DataError(f"task {self.name!r}, row {row_id}: the text is empty; remove the row or name another field")
        return Example(
            id=row_id,
            task=self.name,
            sender_prompt=sender_prompt,
            receiver_prompt=self._prompt(self.config.receiver_prompt, row, options),
            receiver_prompt_aware=self._prompt(self.config.receiver_prompt_aware, row, options),
            options=options,
            label=label,
            answer=answer,
            field=str(row.get("field", "all")) if self.config.source.generated else "all",
            held_out=bool(row.get("held_out", False)) if self.config.source.generated else False,
            chance=row.get("chance") if self.config.source.generated else None,
            note=row.get("note") if self.config.source.generated else None,
            bits=row.get("bits") if self.config.source.generated else None,
        )

    def _options(self, row: Row, label_names: Sequence[str] | None, row_id: str) -> tuple[str, ...]:
        spec = self.config.options
        if spec is None:
            return ()
        if spec.list is not None:
            options: Sequence[Any] = spec.list
        elif spec.field is not None:
            options = _lookup(row, spec.field)
        elif spec.fields is not None:
            options = [_lookup(row, field) for field in spec.fields]
        else:
            options = label_names or ()
        if not isinstance(options, (list, tuple)) or not options:
            raise DataError(
                f"task {self.name!r}, row {row_id}: no list of options but {options!r}; check `options` in {self.path.name}"
            )
        texts = [str(option) for option in options]
        for old, new in spec.replace.items():
            texts = [text.replace(old, new) for text in texts]
        return tuple(texts)

    def _answer(self, row: Row, options: tuple[str, ...], row_id: str) -> tuple[int | None, str]:
        spec = self.config.answer
        value = _lookup(row, spec.field)
        if not options:
            return None, str(value)
        if spec.form == "text":
            label = options.index(str(value)) if str(value) in options else -1
        elif spec.form == "boolean":
            label = int(value) if isinstance(value, bool) else -1
        elif spec.form == "letter":
            letters = [str(letter) for letter in _lookup(row, spec.letters)] if spec.letters else list(ascii_uppercase)
            label = letters.index(str(value)) if str(value) in letters else -1
        else:
            label = int(value) - spec.first_index if str(value).lstrip("-").isdigit() else -1
        if not 0 <= label < len(options):
            raise DataError(
                f"task {self.name!r}, row {row_id}: label {value!r} is outside the map of {len(options)} options "
                f"({', '.join(options[:6])}{', …' if len(options) > 6 else ''}); check `answer` and `options` in {self.path.name}"
            )
        return label, options[label]

    def _fill(self, template: str, row: Row, options: tuple[str, ...]) -> str:
        def value(match: re.Match[str]) -> str:
            if match[1] == "options":
                return "\n".join(f"{letter}. {option}" for letter, option in zip(ascii_uppercase, options, strict=False))
            return str(_lookup(row, match[1]))

        return _HOLE.sub(value, template)

    def _prompt(self, template: str, row: Row, options: tuple[str, ...]) -> Prompt:
        before, _, after = template.partition("{message}")
        return Prompt(self._fill(before, row, options), self._fill(after, row, options))


def _lookup(row: Row, path: str) -> Any:
    """Value at a dotted path, for example ``choices.text``."""
    value: Any = row
    for part in path.split("."):
        try:
            value = value[part]
        except (KeyError, TypeError):
            raise DataError(f"field {path!r} is missing; the row has {', '.join(sorted(row))}") from None
    return value


def task_names() -> list[str]:
    """Names of the tasks that ship with LatentWire."""
    return sorted(path.stem for path in TASK_FOLDER.glob("*.yaml"))


def load_task(name: str) -> Task:
    """A shipped task by name, or a user's own by the path of its YAML file.

    Raises:
        UnknownNameError: no such task. ConfigError: the file does not fit the format.
    """
    import yaml

    path = Path(name).expanduser() if name.endswith((".yaml", ".yml")) else TASK_FOLDER / f"{name}.yaml"
    if not path.is_file():
        if name.endswith((".yaml", ".yml")):
            raise ConfigError(f"task file {name!r} does not exist; shipped tasks: {', '.join(task_names())}")
        raise UnknownNameError("task", name, task_names())
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"task file {str(path)!r} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"task file {str(path)!r} holds no mapping; {suggestion('name', TaskConfig.model_fields)}")
    return Task(validated(TaskConfig, content, where=f"task file {str(path)!r}"), path)
