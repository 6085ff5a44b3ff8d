"""The shipped benchmark tasks against real rows; skipped where there are none."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

from latentwire.data.readers import read_task
from latentwire.data.task import load_task


@pytest.mark.parametrize(
    ("name", "split", "text", "option"),
    [
        ("sst2", "validation", "it 's a charming and often affecting journey .", "positive"),
        ("sst2", "validation", "unflinchingly bleak and desperate", "negative"),
        ("sst2", "validation", "a sometimes tedious film .", "negative"),
        ("agnews", "test", "Explosions Echo Throughout Najaf", "world"),
        ("agnews", "test", "Giddy Phelps Touches Gold for First Time", "sports"),
        ("agnews", "test", "Dollar Briefly Hits 4-Wk Low Vs Euro", "business"),
        ("agnews", "test", "Ky. Company Wins Grant to Study Peptides", "science"),
        ("trec", "train", "What is the full form of .com ?", "abbreviation"),
        ("trec", "test", "What is Australia s national flower ?", "entity"),
        ("trec", "test", "What is an atom ?", "description"),
        ("trec", "test", "Who was Galileo ?", "person"),
        ("trec", "test", "What county is Modesto , California in ?", "location"),
        ("trec", "test", "How far is it from Denver to Aspen ?", "number"),
        ("banking77", "test", "How do I locate my card?", "card arrival"),
        ("banking77", "test", "Could you please activate my card", "activate my card"),
        ("banking77", "test", "Where do I change my PIN?", "change pin"),
        ("banking77", "test", "The refund isn't showing up on my account.", "Refund not showing up"),
        ("banking77", "test", "My card payment was reverted.  Why?", "reverted card payment?"),
        (
            "banking77",
            "test",
            "I did not get the right amount of money when I used a different country's currency.",
            "wrong exchange rate for cash withdrawal",
        ),
    ],
)
def test_known_row_has_the_right_label(data_dir: Path, tmp_path: Path, name: str, split: str, text: str, option: str) -> None:
    lines = [line for line in raw_lines(data_dir, name, split) if text in line]
    assert len(lines) == 1
    only_these(tmp_path, data_dir, name, lines)
    example = read_task(load_task(name), "test", data_dir=tmp_path).examples[0]
    assert example.answer == option
    assert text in example.sender_prompt


@pytest.mark.parametrize(("name", "options"), [("sst2", 2), ("agnews", 4), ("trec", 6), ("banking77", 77)])
def test_real_rows_use_every_option(data_dir: Path, tmp_path: Path, name: str, options: int) -> None:
    field = load_task(name).config.answer.field
    by_label = {json.loads(line)[field]: line for line in raw_lines(data_dir, name, load_task(name).config.splits.test)}
    only_these(tmp_path, data_dir, name, by_label.values())
    examples = read_task(load_task(name), "test", data_dir=tmp_path).examples
    assert {len(set(example.options)) for example in examples} == {options}
    assert {example.label for example in examples} == set(range(options))


@cache
def raw_lines(data_dir: Path, name: str, split: str) -> list[str]:
    return gzip.decompress((data_dir / name / f"{split}.jsonl.gz").read_bytes()).decode().split("\n")[:-1]


def only_these(folder: Path, data_dir: Path, name: str, lines: Iterable[str]) -> None:
    """A data folder whose test split has just these rows: with every shape checked, whole benchmarks take minutes to read."""
    (folder / name).mkdir()
    (folder / name / f"{load_task(name).config.splits.test}.jsonl").write_text("\n".join(lines), encoding="utf-8")
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
