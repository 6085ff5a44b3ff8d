"""Faults that show only after some learning, planted in real trainings; and a sound training, in which nothing is found."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from latentwire.experiments.diagnosis import compare_runs, diagnose
from latentwire.models.source import resolve
from tests.experiments.planted import planted_config, run_planted, sentiment_rows, write_task

pytestmark = pytest.mark.slow
OTHER = {"positive": "negative", "negative": "positive"}
MOST_TOKENS = 16


def worked_rows(split: str, count: int) -> list[dict[str, Any]]:
    """Word problems with their worked solutions, like those of GSM8K: some 40 tokens, the number behind ``####``."""
    rng = Random(split)
    rows = []
    for index in range(count):
        boxes, each, gone = rng.randrange(2, 9), rng.randrange(2, 9), rng.randrange(1, 4)
        held = boxes * each
        rows.append(
            {
                "id": f"{split}-{index}",
                "context": f"Maria has {boxes} boxes. Each box holds {each} apples. She gives {gone} apples away.",
                "question": "How many apples are left?",
                "answer": f"{boxes} boxes of {each} apples are {boxes} * {each} = {held} apples. Then {gone} are given away, so "
                f"{held} - {gone} = {held - gone} apples are left. #### {held - gone}",
            }
        )
    return rows


def cut(text: str) -> str:
    """The first tokens of a target, as the published run cut them."""
    tokenizer = resolve("nano-mistral").tokenizer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][:MOST_TOKENS]
    return str(tokenizer.decode(ids)).strip()


def test_labels_swapped_in_train_are_named_first_and_a_sound_run_is_healthy(tmp_path: Path) -> None:
    train, test = sentiment_rows("train", 500), sentiment_rows("test", 60)
    runs = {}
    for name, rows in (("sound", train), ("swapped", [{**row, "answer": OTHER[row["answer"]]} for row in train])):
        task = write_task(tmp_path / name, rows, test)
        runs[name] = run_planted(tmp_path, planted_config(tmp_path, task, name, data=rows_below(tmp_path / name)), name)
    healthy = diagnose(runs["sound"], root=tmp_path, others=runs)
    assert healthy.is_healthy, healthy.as_markdown()
    found = diagnose(runs["swapped"], root=tmp_path, others=runs)
    assert found.cause is not None
    assert found.cause.name == "labels_swapped", found.as_markdown()
    assert "“negative” as “positive”, “positive” as “negative”" in found.as_markdown()
    compared = compare_runs(runs["swapped"], runs["sound"], root=tmp_path)
    [bridge] = [item for item in compared.agreements if item.control is None]
    assert bridge.only_b > 30 > bridge.same_answer
    assert {item.group for item in compared.differences} >= {"outcome", "data"}


def rows_below(folder: Path) -> dict[str, Any]:
    return {"data_dir": str(folder / "data"), "train_rows": 400, "validation_rows": 40}


def test_targets_of_sixteen_tokens_are_named_first(tmp_path: Path) -> None:
    train = [{**row, "answer": cut(row["answer"])} for row in worked_rows("train", 300)]
    task = write_task(
        tmp_path,
        train,
        worked_rows("test", 40),
        kind="generation",
        options=None,
        metrics=["number_match"],
        max_new_tokens=80,
    )
    config = planted_config(tmp_path, task, "run", training={"steps": 60, "validate_every": 30, "checkpoint_every": 30})
    found = diagnose(run_planted(tmp_path, config, "run", rows=40), root=tmp_path, others={})
    assert found.cause is not None
    assert found.cause.name == "targets_cut", found.as_markdown()
    assert "have exactly 16 tokens" in found.as_markdown()
    assert "“####”" in found.as_markdown()
