"""Readers: rows of a task from a generator, from ``<data_dir>/<set>/<split>.jsonl[.gz]``, or from the Hub."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from latentwire.data.task import SPLITS, Example, Row, Task
from latentwire.data.tinyworld.lexicon import MadeUpFrom
from latentwire.data.tinyworld.rows import generate_rows
from latentwire.data.tinyworld.scenes import GENERATED
from latentwire.errors import DataError, UnknownNameError, UsageError
from latentwire.files import digest
from latentwire.hub import silence_told_once
from latentwire.seeding import stable_hash

#: rows drawn from a generator when nobody says how many
GENERATED_ROWS = {"train": 20_000, "validation": 500, "test": 1_000}
#: rows of a generator that are drawn to come to one
MOST_DRAWN = 100_000
VALIDATION_SHARE, VALIDATION_MOST = 0.1, 1_000
_ENDINGS = (".jsonl", ".jsonl.gz")


@dataclass(frozen=True)
class Cut:
    """A context that was shortened for one of the two models: how many of its tokens are left."""

    row_id: str
    end: str
    tokens: int
    kept: int


@dataclass(frozen=True)
class TaskRows:
    """Examples of one split. ``complete`` is False when only a part of the split was taken.

    ``note`` says where the split comes from when the source has none of that name; ``cuts`` lists shortened contexts.
    """

    examples: tuple[Example, ...]
    split: str
    complete: bool
    revision: str
    note: str = ""
    cuts: tuple[Cut, ...] = ()


def read_task(
    task: Task,
    split: str,
    *,
    data_dir: str | Path | None = None,
    max_rows: int | None = None,
    seed: int = 0,
    every_question: bool = False,
    made_up_words: float = 0.0,
    made_up_from: MadeUpFrom = "letters",
) -> TaskRows:
    """Examples of ``split`` (train, validation or test), at most ``max_rows`` of them in an order that ``seed`` fixes.

    For the tiny world: ``every_question`` gives all that can be asked about a context, and ``max_rows`` counts contexts;
    ``made_up_words`` is the share of train contexts with made-up names and places. Rows from elsewhere are as they are.

    Raises:
        DataError: the folder, a file, a field or a label is missing or wrong. UnknownNameError: a split that is none.
        UsageError: ``max_rows`` below 1.
    """
    if split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    if max_rows is not None and max_rows < 1:
        raise UsageError(f"at most {max_rows} rows does not fit; give 1 or more, or leave it out for all rows")
    source = task.config.source
    if source.generated is not None:
        if source.generated not in GENERATED:
            raise UnknownNameError("tiny-world generator", source.generated, GENERATED)
        count = max_rows or GENERATED_ROWS[split]
        drawn = generate_rows(
            source.generated, split, count, seed,
            every_question=every_question, made_up_words=made_up_words, made_up_from=made_up_from,
        )  # fmt: skip
        rows: list[Row] = [dict(row) for row in drawn]
        examples = tuple(task.example(row, index, split) for index, row in enumerate(rows))
        return TaskRows(examples, split, True, f"tinyworld seed {seed}")
    numbered, label_names, revision, note = _split_rows(task, split, data_dir)
    total = len(numbered)
    if max_rows is not None and max_rows < total:
        Random(f"{task.name}:{split}:{seed}").shuffle(numbered)
        numbered = numbered[:max_rows]
    examples = tuple(task.example(row, index, split, label_names) for index, row in numbered)
    if not examples:
        shared = f" (it is cut from {task.config.splits.train!r}; more rows there leave some for both)" if split != "test" else ""
        raise DataError(f"task {task.name!r}: split {split!r} has no rows{shared}")
    return TaskRows(examples, split, len(examples) == total, revision, note)


def read_one(task: Task, row: str, *, split: str, data_dir: str | Path | None) -> TaskRows:
    """One example of a split: ``row`` is its number, counted from 0, or its id.

    Raises:
        UsageError: there is none, or it is a generated one farther than ``MOST_DRAWN``. Else as ``read_task``.
    """
    number = int(row) if re.fullmatch(r"-?[0-9]+", row) else None
    if number is not None and number < 0:
        raise UsageError(f"row {row} does not exist: rows count from 0")
    generated = task.config.source.generated is not None
    if generated and number is not None and number >= MOST_DRAWN:
        raise UsageError(f"row {row} is too far: rows of {task.name} are drawn one after another, at most {MOST_DRAWN:,} here")
    read = read_task(task, split, data_dir=data_dir, max_rows=number + 1 if generated and number is not None else None)
    found = next((example for example in read.examples if example.id == row), None)
    if found is None and number is not None and number < len(read.examples):
        found = read.examples[number]
    if found is None:
        count, ids = len(read.examples), "" if number is not None else f", and none has the id {row!r}"
        raise UsageError(f"row {row} does not exist: {task.name} has {count} rows in {split} (0-{count - 1}){ids}")
    return replace(read, examples=(found,))


def count_overlap(train: Sequence[Example], test: Sequence[Example]) -> int:
    """How many examples of ``test`` also stand in ``train``: both models' prompts are equal but for case, punctuation and space."""
    seen = {_words(example) for example in train}
    return sum(_words(example) in seen for example in test)


def _words(example: Example) -> str:
    return " ".join(re.findall(r"\w+", f"{example.sender_prompt} {example.receiver_prompt.text}".lower()))


Numbered = list[tuple[int, Row]]


def _split_rows(task: Task, split: str, data_dir: str | Path | None) -> tuple[Numbered, list[str] | None, str, str]:
    """Rows of ``split`` with their places at the source, label names, revision, and the note on where they come from."""
    splits = task.config.splits
    if splits.blocks is not None and not _has_split(task, splits.train, data_dir):
        rows, label_names, revision = _source_rows(task, splits.test, data_dir)
        blocks: dict[str, Numbered] = {}
        for place, name in enumerate(SPLITS):
            first, end = _block(splits.blocks, place, len(rows))
            blocks[name] = [(index, rows[index]) for index in range(first, end)]
        first, end = _block(splits.blocks, SPLITS.index(split), len(rows))
        note = f"rows {first}-{end - 1} of the {len(rows)} in {splits.test!r}: no train split here, so it is cut into blocks"
        # what is asked about one passage may stand in two blocks; test keeps all of it
        later = [row for name in SPLITS[SPLITS.index(split) + 1 :] for row in blocks[name]]
        return _without_groups(task, blocks[split], later), label_names, revision, note
    name = {"train": splits.train, "validation": splits.validation or splits.train, "test": splits.test}[split]
    rows, label_names, revision = _source_rows(task, name, data_dir)
    numbered = list(enumerate(rows))
    if splits.validation is not None or split == "test":
        return numbered, label_names, revision, ""
    chosen = _cut_validation(task, numbered, wanted=split == "validation")
    note = f"{len(chosen)} of the {len(numbered)} rows of {name!r}: validation is cut from it by a seeded rule"
    return chosen, label_names, revision, note


def _block(shares: tuple[float, float, float], place: int, total: int) -> tuple[int, int]:
    """First row and end (exclusive) of block ``place`` of ``total`` rows."""
    first, end = round(sum(shares[:place]) * total), round(sum(shares[: place + 1]) * total)
    return first, end


def _cut_validation(task: Task, rows: Numbered, *, wanted: bool) -> Numbered:
    """The rows of train that serve as validation (``wanted``), or those of the others that belong to none of their groups.

    The rule depends on task and index alone.
    """
    size = min(VALIDATION_MOST, max(1, round(VALIDATION_SHARE * len(rows))))
    order = sorted(rows, key=lambda numbered: stable_hash(f"validation:{task.name}:{numbered[0]}"))
    chosen = {index for index, _ in order[:size]}
    validation = [numbered for numbered in rows if numbered[0] in chosen]
    return validation if wanted else _without_groups(task, [row for row in rows if row[0] not in chosen], validation)


def _without_groups(task: Task, rows: Numbered, others: Numbered) -> Numbered:
    """The rows that share their group with none of the others."""
    known = {task.group_of(row) for _, row in others} - {None}
    return [numbered for numbered in rows if task.group_of(numbered[1]) not in known]


def _has_split(task: Task, source_split: str, data_dir: str | Path | None) -> bool:
    """Whether the rows' folder has this split; the Hub has every split a task names."""
    if data_dir is None or task.config.source.folder is None:
        return True
    folder = Path(data_dir).expanduser() / task.config.source.folder
    return not folder.is_dir() or any((folder / f"{source_split}{ending}").is_file() for ending in _ENDINGS)


def _source_rows(task: Task, source_split: str, data_dir: str | Path | None) -> tuple[Sequence[Row], list[str] | None, str]:
    if data_dir is not None and task.config.source.folder is not None:
        return _folder_rows(task, source_split, Path(data_dir).expanduser())
    if task.config.source.hub is None:
        raise DataError(f"task {task.name!r} reads local files; give their folder with --data_dir")
    return _hub_rows(task, source_split)


def _folder_rows(task: Task, source_split: str, data_dir: Path) -> tuple[Sequence[Row], list[str] | None, str]:
    folder = data_dir / str(task.config.source.folder)
    if not folder.is_dir():
        if not data_dir.is_dir():
            raise DataError(f"task {task.name!r}: no folder {str(folder)!r}; --data_dir {str(data_dir)!r} does not exist")
        present = ", ".join(sorted(path.name for path in data_dir.iterdir() if path.is_dir())) or "no folders"
        raise DataError(f"task {task.name!r}: no folder {str(folder)!r}; --data_dir holds: {present}")
    for name in (f"{source_split}{ending}" for ending in _ENDINGS):
        if (folder / name).is_file():
            rows, content_digest = _jsonl(folder / name, (folder / name).stat().st_mtime_ns)
            return rows, _folder_label_names(task, folder), f"{name} {content_digest}"
    present = ", ".join(sorted(path.name for path in folder.iterdir()))
    raise DataError(
        f"task {task.name!r}: {str(folder)!r} holds neither {source_split}.jsonl nor {source_split}.jsonl.gz; it holds {present}"
    )


@lru_cache(maxsize=8)
def _jsonl(path: Path, modified_ns: int) -> tuple[list[Row], str]:
    """Rows and digest of a file; ``modified_ns`` makes a rewritten file a new one for the cache."""
    data = path.read_bytes()
    try:
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        if isinstance(error, UnicodeDecodeError):
            place = 1 + error.object[: error.start].count(b"\n")
            raise DataError(f"{str(path)!r}, line {place}: not UTF-8; save the file as UTF-8") from None
        raise DataError(f"{str(path)!r} is cut or corrupt ({error}); fetch it again") from None
    rows: list[Row] = []
    # not splitlines: JSON strings may hold U+2028 and other characters that Python takes for line ends
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{str(path)!r}, line {number}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise DataError(f"{str(path)!r}, line {number}: not a JSON object with named fields")
        rows.append(row)
    return rows, digest(data)[:12]


def _folder_label_names(task: Task, folder: Path) -> list[str] | None:
    name = task.config.options.label_names if task.config.options else None
    if name is None:
        return None
    path = folder / name
    if not path.is_file():
        raise DataError(f"task {task.name!r}: label names {str(path)!r} are missing")
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise DataError(f"task {task.name!r}: label names {str(path)!r} are not JSON ({error}); fetch them again") from None
    if isinstance(content, dict):
        content = content.get(task.config.answer.field, content)
    if isinstance(content, dict) and all(str(key).isdecimal() for key in content):
        content = [content[key] for key in sorted(content, key=int)]
    if not isinstance(content, list):
        raise DataError(
            f'task {task.name!r}: label names {str(path)!r} fit no labels; write ["no", "yes"] or {{"0": "no", "1": "yes"}}, '
            f"bare or under {task.config.answer.field!r}"
        )
    return [str(item) for item in content]


def _hub_rows(task: Task, source_split: str) -> tuple[Sequence[Row], list[str] | None, str]:
    import datasets

    source = task.config.source
    try:
        with silence_told_once():
            dataset = datasets.load_dataset(source.hub, source.hub_config, split=source_split, revision=source.revision)
    except Exception as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"task {task.name!r}: dataset {source.hub!r} cannot be loaded from the Hub ({first_line}); "
            "give local rows with --data_dir, or run `latentwire fetch CONFIG` on a node with network"
        ) from error
    feature = dataset.features.get(task.config.answer.field)
    names = list(feature.names) if isinstance(feature, datasets.ClassLabel) else None
    return dataset, names, f"{source.hub} {dataset._fingerprint}"
