"""Tasks are declarative: one YAML file says where rows come from, what each model reads, and what a right answer is.

See ``docs/tasks.md`` for the format. ``Task.example`` turns one raw row into what every method works on.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from latentwire.data.task_config import TaskConfig, TaskVariant, holes
from latentwire.errors import ConfigError, DataError, UnknownNameError
from latentwire.prompts import Prompt, not_text
from latentwire.schema import validated

TASK_FOLDER = Path(__file__).parent / "tasks"
SPLITS = ("train", "validation", "test")
_HOLE = re.compile(r"\{([\w.]+)\}")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Example:
    """One row as every method sees it. ``options`` is empty and ``label`` None where the answer is free text.

    ``options`` are what is scored: the labels of a classification, the letters of a multiple choice. ``option_texts``
    are what they stand for, and ``receiver_prompt_options`` is the prompt that shows them to the receiver, for scoring the
    texts. ``answers`` holds all gold answers, ``answer`` first. ``sender_sees`` and ``receiver_sees`` say in words what
    ``sender_prompt`` and ``receiver_prompt`` give away. ``row`` is the raw row.
    """

    id: str
    task: str
    sender_prompt: str
    receiver_prompt: Prompt
    receiver_prompt_aware: Prompt
    options: tuple[str, ...]
    label: int | None
    answer: str
    answers: tuple[str, ...] = ()
    option_texts: tuple[str, ...] = ()
    receiver_prompt_options: Prompt | None = None
    sender_sees: str = ""
    receiver_sees: str = ""
    field: str = "all"
    held_out: bool = False
    chance: float | None = None
    note: str | None = None
    bits: float | None = None
    row: Row = dataclasses.field(default_factory=dict, compare=False, repr=False)

    @property
    def guess(self) -> float:
        """How often a blind guess is right, 0-1."""
        return 1 / len(self.options) if self.options else (self.chance or 0.0)


@dataclass(frozen=True)
class _Options:
    """The options of one row: what they say, and the letters that name them."""

    texts: tuple[str, ...] = ()
    letters: tuple[str, ...] = ()

    @property
    def lines(self) -> str:
        return "\n".join(f"{letter}. {text}" for letter, text in zip(self.letters, self.texts, strict=True))


class Task:
    """A task file, posed in one variant, and what follows from it."""

    def __init__(self, config: TaskConfig, path: Path, variant: TaskVariant | None = None) -> None:
        self.variant = variant or TaskVariant()
        self.config, self.path = config.posed(self.variant), path

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def has_options(self) -> bool:
        return self.config.options is not None

    @property
    def hides_question(self) -> bool:
        """Whether the receiver is asked something that the sender does not see."""
        return self.config.sender_prompt_all is not None and self.variant.sender_sees == "context"

    @cached_property
    def needed_paths(self) -> set[str]:
        """Fields that every row must have, dotted where they lie in others."""
        config = self.config
        names = {name for template in config.templates for name in holes(template)} - {"message", "options"}
        names.add(config.answer.field)
        if config.options:
            names |= {*(config.options.fields or ()), *filter(None, (config.options.field, config.options.letters))}
        return names

    def example(self, row: Row, index: int, split: str, label_names: Sequence[str] | None = None) -> Example:
        """One raw row with its prompts filled in.

        Raises:
            DataError: a field is missing or the answer is outside the options; the message names the row.
        """
        row_id = str(row.get("id") or f"{split}-{index}")
        self._check_values(row, row_id)
        config = self.config
        options = self._options(row, label_names, row_id)
        scored = options.letters if config.kind == "multiple_choice" else options.texts
        if scored:
            label: int | None = self._label(row, options, row_id)
            answers: tuple[str, ...] = (scored[label or 0],)
        else:
            label, answers = None, self._free_answers(row, row_id)
        texts = [str(_lookup(row, hole)) for hole in _pieces(config.sender_prompt)[1::2] if hole != "options"]
        sender_prompt = self._fill(config.sender_prompt, row, options)
        if not "".join(texts or [sender_prompt]).strip():
            raise self._refused(row_id, "the text is empty; remove the row or name another field")
        shown = config.receiver_prompt_options
        generated = row if config.source.generated else {}
        return Example(
            id=row_id,
            task=self.name,
            sender_prompt=sender_prompt,
            receiver_prompt=self._prompt(config.receiver_prompt, row, options),
            receiver_prompt_aware=self._prompt(config.receiver_prompt_aware, row, options),
            receiver_prompt_options=None if shown is None else self._prompt(shown, row, options),
            options=scored,
            option_texts=options.texts,
            label=label,
            answer=answers[0],
            answers=answers,
            sender_sees=config.sees.sender,
            receiver_sees=config.sees.receiver,
            field=str(generated.get("field", "all")),
            held_out=bool(generated.get("held_out", False)),
            chance=generated.get("chance"),
            note=generated.get("note"),
            bits=generated.get("bits"),
            row=row,
        )

    def _check_values(self, row: Row, row_id: str) -> None:
        """All that the prompts and the answer need is there, is no null, and is text that can be written."""
        for path in sorted(self.needed_paths):
            try:
                value = _lookup(row, path)
            except DataError as error:
                raise self._refused(row_id, str(error)) from None
            items = value if isinstance(value, (list, tuple)) else [value]
            if any(item is None or (isinstance(item, float) and math.isnan(item)) for item in items):
                raise self._refused(row_id, f"field {path!r} is null or no number; remove the row or name another field")
            for item in items:
                if isinstance(item, str) and (why := not_text(item)):
                    raise self._refused(row_id, f"field {path!r} {why}; mend the row")

    def context(self, example: Example) -> str | None:
        """The text that may be cut (``limits.cut``), None where nothing may."""
        return None if self.config.limits.cut is None else str(_lookup(example.row, self.config.limits.cut))

    def group_of(self, row: Row) -> str | None:
        """What several rows may have in common, so that all of them stand in one split: the task's ``together``, or the text that
        they ask about; None where the receiver is asked the same of every row.
        """
        if self.config.together:
            return "\n".join(str(_lookup(row, path)) for path in self.config.together)
        asked = set(_pieces(self.config.receiver_prompt)[1::2]) - {"message", "options"}
        return str(_lookup(row, self.config.limits.cut)) if asked and self.config.limits.cut is not None else None

    def with_context(self, example: Example, *, sender: str, receiver: str) -> Example:
        """The example with another text in place of its context, for the sender and for the receiver that reads it."""
        config = self.config
        letters = example.options if config.kind == "multiple_choice" else _letters(len(example.option_texts))
        options = _Options(example.option_texts, letters)
        cut = str(config.limits.cut)
        return dataclasses.replace(
            example,
            sender_prompt=self._fill(config.sender_prompt, example.row, options, {cut: sender}),
            receiver_prompt_aware=self._prompt(config.receiver_prompt_aware, example.row, options, {cut: receiver}),
        )

    def _refused(self, row_id: str, why: str) -> DataError:
        return DataError(f"task {self.name!r}, row {row_id}: {why}")

    def _options(self, row: Row, label_names: Sequence[str] | None, row_id: str) -> _Options:
        spec = self.config.options
        if spec is None:
            return _Options()
        if spec.list is not None:
            options: Sequence[Any] = spec.list
        elif spec.field is not None:
            options = _lookup(row, spec.field)
        elif spec.fields is not None:
            options = [_lookup(row, field) for field in spec.fields]
        else:
            options = label_names or ()
        if not isinstance(options, (list, tuple)) or not options:
            raise self._refused(row_id, f"no list of options but {options!r}; check `options` in {self.path.name}")
        texts = [self._replaced(option) for option in options]
        if not all(text.strip() for text in texts):
            raise self._refused(row_id, f"option {[bool(text.strip()) for text in texts].index(False) + 1} is empty; mend the row")
        letters = _letters(len(texts)) if spec.letters is None else tuple(str(item) for item in _lookup(row, spec.letters))
        if len(letters) != len(texts) or len(set(letters)) != len(letters):
            raise self._refused(row_id, f"{len(texts)} options do not go with the letters {', '.join(letters)}")
        return _Options(tuple(texts), letters)

    def _replaced(self, option: Any) -> str:
        """The text of an option with what ``options.replace`` says."""
        text = str(option)
        for old, new in self.config.options.replace.items() if self.config.options else ():
            text = text.replace(old, new)
        return text

    def _label(self, row: Row, options: _Options, row_id: str) -> int:
        spec = self.config.answer
        value = _lookup(row, spec.field)
        if spec.form in ("text", "letter"):
            known, named = (options.texts, self._replaced(value)) if spec.form == "text" else (options.letters, str(value))
            label = known.index(named) if named in known else -1
        elif spec.form == "boolean":
            label = int(value) if isinstance(value, bool) else -1
        else:
            label = int(value) - spec.first_index if re.fullmatch("-?[0-9]+", str(value)) else -1
        if not 0 <= label < len(options.texts):
            known = options.letters if spec.form == "letter" else options.texts
            raise self._refused(
                row_id,
                f"label {value!r} is outside the map of {len(known)} options "
                f"({', '.join(known[:6])}{', …' if len(known) > 6 else ''}); check `answer` and `options` in {self.path.name}",
            )
        return label

    def _free_answers(self, row: Row, row_id: str) -> tuple[str, ...]:
        """All gold answers without repetitions, the one that is taught first."""
        spec = self.config.answer
        value = _lookup(row, spec.field)
        found = [str(item) for item in (value if isinstance(value, (list, tuple)) else [value])]
        if spec.remove is not None:
            found = [re.sub(spec.remove, "", text).strip() for text in found]
        if spec.after is not None:
            for text in found:
                if spec.after not in text:
                    raise self._refused(row_id, f"the answer holds no {spec.after!r}; check `answer` in {self.path.name}")
            if self.variant.target == "answer":
                found = [text.rpartition(spec.after)[2].strip() for text in found]
        if not found or not all(text.strip() for text in found):
            raise self._refused(row_id, f"the answer {value!r} is empty; remove the row or name another field")
        return tuple(dict.fromkeys(found))

    def _fill(self, template: str, row: Row, options: _Options, instead: Mapping[str, str] | None = None) -> str:
        pieces = list(_pieces(template))
        for place in range(1, len(pieces), 2):
            hole = pieces[place]
            if instead is not None and hole in instead:
                pieces[place] = instead[hole]
            else:
                pieces[place] = options.lines if hole == "options" else str(_lookup(row, hole))
        return "".join(pieces)

    def _prompt(self, template: str, row: Row, options: _Options, instead: Mapping[str, str] | None = None) -> Prompt:
        before, _, after = template.partition("{message}")
        return Prompt(self._fill(before, row, options, instead), self._fill(after, row, options, instead))


@lru_cache(maxsize=256)
def _pieces(template: str) -> tuple[str, ...]:
    """A template cut at its holes: text, name of a hole, text, …"""
    return tuple(_HOLE.split(template))


def _letters(count: int) -> tuple[str, ...]:
    """A, B, … for options that have no letters of their own; numbers where the alphabet is too short."""
    return tuple(ascii_uppercase[:count]) if count <= len(ascii_uppercase) else tuple(str(place + 1) for place in range(count))


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


def load_task(name: str, variant: TaskVariant | None = None) -> Task:
    """A shipped task by name, or a user's own by the path of its YAML file, posed in ``variant``.

    Raises:
        UnknownNameError: no such task. ConfigError: the file does not fit the format, or has no such variant.
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
        raise ConfigError(f"task file {str(path)!r} holds no `key: value` lines; docs/tasks.md shows one")
    return Task(validated(TaskConfig, content, where=f"task file {str(path)!r}"), path, variant)
