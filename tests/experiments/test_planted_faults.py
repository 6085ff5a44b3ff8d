"""Faults planted in real trainings of a few steps: the diagnosis names the cause first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from latentwire.bridges.pooled import PooledBridge
from latentwire.config import build_config
from latentwire.experiments.registry.model import ErrorClass, State
from latentwire.models.soft_tokens import SoftTokens
from tests.experiments.diagnosing import caused_by
from tests.experiments.planted import ANSWER_CUE, planted_config, run_planted, sentiment_rows, write_task

FEW_STEPS: dict[str, Any] = {"steps": 6, "batch_size": 4, "log_every": 2, "validate_every": 3, "checkpoint_every": 3}
FEW_ROWS: dict[str, Any] = {"train_rows": 20, "validation_rows": 4}


def test_options_that_the_cut_took_are_the_cause(tmp_path: Path) -> None:
    """The text is shortened after the choices were appended to it."""
    long = " and this is said in many more words than anybody wants"
    rows = [
        {
            **row,
            "context": f"{row['context']}{long}\nA. excellent\nB. terrible",
            "answer": "A" if row["answer"] == "positive" else "B",
        }
        for row in sentiment_rows("train", 40)
    ]
    task = write_task(
        tmp_path,
        rows,
        rows[:24],
        kind="multiple_choice",
        options={"list": ["excellent", "terrible"]},
        answer={"field": "answer", "as": "letter"},
        limits={"cut": "context", "sender_tokens": 24},
    )
    config = planted_config(tmp_path, task, "run", training=FEW_STEPS, data={"data_dir": str(tmp_path / "data"), **FEW_ROWS})
    found = caused_by(run_planted(tmp_path, config, "run", rows=24), tmp_path, "options_cut")
    assert "20 of 20 train rows held their options before the cut" in found.as_markdown()


def test_a_bridge_that_no_gradient_reaches_is_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = PooledBridge.forward

    def detached(bridge: PooledBridge, read: Any) -> SoftTokens:
        soft = whole(bridge, read)
        return SoftTokens(soft.vectors.detach() + 0 * soft.vectors, soft.mask)

    monkeypatch.setattr(PooledBridge, "forward", detached)
    task = write_task(tmp_path, sentiment_rows("train", 40), sentiment_rows("test", 24))
    config = planted_config(tmp_path, task, "run", training=FEW_STEPS, data={"data_dir": str(tmp_path / "data"), **FEW_ROWS})
    found = caused_by(run_planted(tmp_path, config, "run", rows=24), tmp_path, "dead_bridge")
    assert found.cause is not None
    assert found.cause.confidence == "certain"
    assert any(item.where == "runs/run/log.jsonl:1" for item in found.cause.speaks_for)


def test_a_rate_that_makes_the_loss_overflow_is_the_cause(tmp_path: Path) -> None:
    task = write_task(tmp_path, sentiment_rows("train", 40), sentiment_rows("test", 24))
    training = {**FEW_STEPS, "optimizer": "adamw", "lr": 1e30, "log_every": 1}
    config = planted_config(tmp_path, task, "run", training=training, data={"data_dir": str(tmp_path / "data"), **FEW_ROWS})
    run = run_planted(tmp_path, config, "run")
    assert run.last is not None
    assert run.last.error_class is ErrorClass.NAN
    found = caused_by(run, tmp_path, "diverged")
    assert found.cause is not None
    assert found.cause.command.endswith("--set training.lr=0.0002 --set output_dir=runs/run-check")
    assert "training.lr is 1e+30" in found.as_markdown()


def test_targets_longer_than_their_room_are_the_cause(tmp_path: Path) -> None:
    """The library refuses what the published run cut silently; the diagnosis says which limit is to be raised."""
    rows = [{**row, "answer": "one two three four five six seven eight nine ten " * 2} for row in sentiment_rows("train", 40)]
    task = write_task(tmp_path, rows, rows[:24], kind="generation", options=None, metrics=["exact_match"], max_new_tokens=16)
    config = planted_config(tmp_path, task, "run", training=FEW_STEPS, data={"data_dir": str(tmp_path / "data"), **FEW_ROWS})
    run = run_planted(tmp_path, config, "run")
    assert run.state is State.FAILED
    found = caused_by(run, tmp_path, "targets_cut")
    assert found.cause is not None
    assert found.cause.speaks_for[0].where == "runs/logs/run.log:2"
    assert "variant.max_new_tokens=" in found.cause.command
    # what to type next is a setting that the library takes
    setting = next(part for part in found.cause.command.split() if part.startswith("variant."))
    assert build_config(config.model_dump(), [setting], where="test").variant.max_new_tokens is not None


def test_a_receiver_that_sees_the_context_itself_is_the_cause(tmp_path: Path) -> None:
    prompt = "{context}" + ANSWER_CUE
    task = write_task(tmp_path, sentiment_rows("train", 40), sentiment_rows("test", 24), receiver_prompt=prompt)
    config = planted_config(tmp_path, task, "run", training=FEW_STEPS, data={"data_dir": str(tmp_path / "data"), **FEW_ROWS})
    caused_by(run_planted(tmp_path, config, "run", rows=24), tmp_path, "same_view")


def test_running_out_of_memory_is_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_much(*arguments: Any, **settings: Any) -> torch.Tensor:
        return torch.ones(10**15)

    monkeypatch.setattr("latentwire.training.trainer.task_loss", too_much)
    task = write_task(tmp_path, sentiment_rows("train", 40), sentiment_rows("test", 24))
    config = planted_config(tmp_path, task, "run", training=FEW_STEPS, data={"data_dir": str(tmp_path / "data"), **FEW_ROWS})
    found = caused_by(run_planted(tmp_path, config, "run"), tmp_path, "oom")
    assert found.cause is not None
    assert "--set training.batch_size=2 " in found.cause.command
    assert "can't allocate memory" in found.as_markdown()
