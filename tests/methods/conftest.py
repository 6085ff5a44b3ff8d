from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from latentwire.config import RunConfig, build_config
from latentwire.data.readers import read_task
from latentwire.data.task import load_task
from latentwire.methods.base import FitData, Parts
from latentwire.methods.settings import MethodSettings
from latentwire.models.receiver import load_receiver
from latentwire.models.sender import load_sender

SETTINGS = MethodSettings(shots=3, relay_tokens=8, reasoning_tokens=8, rank=2, virtual_tokens=2)


def small_config(**changes: object) -> RunConfig:
    settings: dict[str, object] = {
        "task": "tinyworld_topic",
        "sender": {"model": "nano-llama", "layer": 1},
        "receiver": {"model": "nano-mistral"},
        "bridge": {"name": "pooled", "tokens_per_soft_token": 4, "hidden_size": 16},
        "data": {"train_rows": 24, "validation_rows": 12},
        "training": {"steps": 3, "batch_size": 4, "warmup_steps": 1, "validate_every": 3, "checkpoint_every": 1, "log_every": 1},
        "seed": 1,
    }
    return build_config(settings | changes, where="test")


@pytest.fixture(scope="session")
def parts() -> Parts:
    sender = load_sender("nano-llama", layer=1, full=True, device="cpu")
    return Parts(sender, load_receiver("nano-mistral", device="cpu"), bridge_name="pooled", settings=SETTINGS)


@pytest.fixture
def fit_data(tmp_path: Path) -> Callable[..., FitData]:
    def make(task_name: str, *, rows: int = 24, seed: int = 1, **training: object) -> FitData:
        task = load_task(task_name)
        config = small_config()
        config = config.model_copy(update={"training": config.training.model_copy(update=training)})
        return FitData(
            task=task,
            train=read_task(task, "train", max_rows=rows).examples,
            validation=read_task(task, "validation", max_rows=12).examples,
            seed=seed,
            config=config,
            folder=tmp_path / "work",
            device="cpu",
        )

    return make
