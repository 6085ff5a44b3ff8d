"""The shipped benchmark tasks against real rows; skipped where there are none."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

from latentwire.data.readers import count_overlap, read_task
from latentwire.data.task import load_task

#: rows whose label a person has read, by place and by a hash of the row's JSON, so that no benchmark text stands here
KNOWN = [
    ("sst2", "validation", 0, "43c771cb", "positive"),
    ("sst2", "validation", 1, "eba2189e", "negative"),
    ("sst2", "validation", 6, "ffe4d41c", "negative"),
    ("agnews", "test", 34, "d801acc6", "world"),
    ("agnews", "test", 26, "0c2a893e", "sports"),
    ("agnews", "test", 54, "e289c288", "business"),
    ("agnews", "test", 2, "f045aad6", "science"),
    ("trec", "train", 4, "7ef0268b", "abbreviation"),
    ("trec", "test", 7, "74b5940b", "entity"),
    ("trec", "test", 3, "5c7900fa", "description"),
    ("trec", "test", 2, "b7b5a86c", "person"),
    ("trec", "test", 1, "a22df911", "location"),
    ("trec", "test", 0, "8dd66e17", "number"),
    ("banking77", "test", 0, "d42bc11d", "card arrival"),
    ("banking77", "test", 2840, "dae99134", "activate my card"),
    ("banking77", "test", 2121, "5f1c16f2", "change pin"),
    ("banking77", "test", 1760, "e3157e5f", "Refund not showing up"),
    ("banking77", "test", 2081, "5290ff16", "reverted card payment?"),
    ("banking77", "test", 2560, "54e5bdf0", "wrong exchange rate for cash withdrawal"),
    ("arc_easy", "test", 0, "846569fe", "A"),
    ("arc_easy", "test", 14, "fed8f028", "2"),
    ("arc_easy", "test", 500, "61839841", "B"),
    ("arc_easy", "test", 93, "0df78a9f", "B"),
    ("arc_challenge", "test", 0, "76afbfc0", "C"),
    ("arc_challenge", "test", 44, "52af4bf1", "2"),
    ("arc_challenge", "test", 836, "4ebe6775", "D"),
    ("arc_challenge", "test", 400, "d0eca936", "C"),
    ("openbookqa", "test", 0, "55b3c086", "B"),
    ("openbookqa", "test", 1, "07f1baf2", "A"),
    ("openbookqa", "test", 2, "5c59eb66", "C"),
    ("winogrande", "validation", 0, "9231fd11", "B"),
    ("winogrande", "validation", 1, "58f59767", "A"),
    ("hellaswag", "validation", 0, "a8dbba57", "D"),
    ("hellaswag", "validation", 2, "b4893871", "C"),
    ("hellaswag", "validation", 5, "c0a09d53", "B"),
    ("boolq", "validation", 0, "b2e56d26", "no"),
    ("boolq", "validation", 1, "19aef9b3", "yes"),
    ("boolq", "validation", 5, "017505b0", "no"),
    ("gsm8k", "test", 0, "9ee6d3d8", "18"),
    ("gsm8k", "test", 146, "102c9411", "2,125"),
    ("squad", "validation", 0, "c8e3c457", "23 years"),
    ("squad", "validation", 1, "6d6ad429", "outdoors"),
]


@pytest.mark.parametrize(("name", "split", "place", "row_hash", "answer"), KNOWN)
def test_known_row_has_the_right_answer(
    data_dir: Path, tmp_path: Path, name: str, split: str, place: int, row_hash: str, answer: str
) -> None:
    line = raw_lines(data_dir, name, split)[place]
    assert hashlib.sha256(line.encode()).hexdigest()[:8] == row_hash
    only_these(tmp_path, data_dir, name, [line])
    example = read_task(load_task(name), "test", data_dir=tmp_path).examples[0]
    assert example.answer == answer


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sst2", 2),
        ("agnews", 4),
        ("trec", 6),
        ("banking77", 77),
        ("boolq", 2),
        ("winogrande", 2),
        ("hellaswag", 4),
        ("openbookqa", 4),
    ],
)
def test_real_rows_use_every_option(data_dir: Path, tmp_path: Path, name: str, options: int) -> None:
    field = load_task(name).config.answer.field
    by_label = {json.loads(line)[field]: line for line in raw_lines(data_dir, name, load_task(name).config.splits.test)}
    only_these(tmp_path, data_dir, name, by_label.values())
    examples = read_task(load_task(name), "test", data_dir=tmp_path).examples
    assert {len(set(example.options)) for example in examples} == {options}
    assert {example.label for example in examples} == set(range(options))


@pytest.mark.parametrize(("name", "overlap"), [("trec", 10), ("gsm8k", 0)])
def test_rows_of_the_test_split_that_stand_in_train_are_counted(data_dir: Path, name: str, overlap: int) -> None:
    train, test = (read_task(load_task(name), split, data_dir=data_dir).examples for split in ("train", "test"))
    assert count_overlap(train, test) == overlap


@cache
def raw_lines(data_dir: Path, name: str, split: str) -> list[str]:
    return gzip.decompress((data_dir / name / f"{split}.jsonl.gz").read_bytes()).decode().split("\n")[:-1]


def only_these(folder: Path, data_dir: Path, name: str, lines: Iterable[str]) -> None:
    """A data folder whose test split has just these rows: with every shape checked, whole benchmarks take minutes to read."""
    (folder / name).mkdir()
    text = "\n".join(lines)
    for split in ("train", load_task(name).config.splits.test):
        (folder / name / f"{split}.jsonl").write_text(text, encoding="utf-8")
    for names in (data_dir / name).glob("label_names.json"):
        shutil.copy(names, folder / name)


def test_real_validation_is_cut_from_train(data_dir: Path) -> None:
    validation, few, train = (
        {example.id.partition("-")[2] for example in read_task(load_task("trec"), split, data_dir=data_dir, max_rows=most).examples}
        for split, most in (("validation", None), ("validation", 50), ("train", 200))
    )
    assert len(validation) == 545
    assert few < validation
    assert not train & validation
