"""The sender goes ahead of the receiver where each has a device of its own; answers stay what they were."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from latentwire.bridges.base import Bridge
from latentwire.config import build_config
from latentwire.data.readers import read_task
from latentwire.data.task import load_task
from latentwire.evaluation.evaluator import EvaluationSettings, predict_all
from latentwire.methods.ahead import MessagesAhead
from latentwire.methods.base import Parts
from latentwire.methods.bridge import BridgeMethod
from latentwire.models.soft_tokens import SoftTokens
from latentwire.training.run import load_pair, new_bridge
from tests.training.test_trainer import small_config


def messages(texts: Sequence[str]) -> SoftTokens:
    vectors = torch.tensor([[[float(len(text))]] for text in texts])
    return SoftTokens(vectors, torch.ones(vectors.shape[:2], dtype=torch.bool))


def test_what_was_begun_is_made_once_in_a_thread_of_its_own_and_without_gradients() -> None:
    seen: list[tuple[str, bool]] = []

    def make(texts: Sequence[str]) -> SoftTokens:
        seen.append((threading.current_thread().name, torch.is_grad_enabled()))
        return messages(texts)

    ahead = MessagesAhead(make)
    ahead.begin(["one", "three"])
    ahead.begin(["one", "three"])
    assert ahead.take(["one", "three"]).vectors.flatten().tolist() == [3, 5]
    assert [(name.startswith("sender"), gradients) for name, gradients in seen] == [(True, False)]
    assert ahead.take(["seven"]).vectors.flatten().tolist() == [5]
    assert [name.startswith("sender") for name, _ in seen] == [True, False]


def test_a_failure_in_the_thread_is_raised_where_the_messages_are_taken() -> None:
    def make(texts: Sequence[str]) -> SoftTokens:
        raise ValueError(texts[0])

    ahead = MessagesAhead(make)
    ahead.begin(["text"])
    with pytest.raises(ValueError, match="text"):
        ahead.take(["text"])


@pytest.mark.parametrize("control", [None, "shuffled"])
def test_two_devices_answer_as_one(tmp_path: Path, control: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(tmp_path)
    sender, receiver = load_pair(config)
    bridge: Bridge = new_bridge(config, sender, receiver).eval()
    task = load_task("tinyworld_record1")
    rows = read_task(task, "validation", max_rows=7).examples
    settings = EvaluationSettings(batch_size=3)
    together = predict_all(task, rows, BridgeMethod(Parts(sender, receiver, bridge)), control, settings)
    # a second CPU is enough to go ahead
    monkeypatch.setattr(sender, "device", torch.device("cpu", 0))
    method = BridgeMethod(Parts(sender, receiver, bridge))
    apart = predict_all(task, rows, method, control, settings)
    assert method._ahead is not None
    assert not method._ahead._begun
    assert apart == together


def test_each_model_goes_to_its_device_and_a_device_for_both_wins(tmp_path: Path) -> None:
    plain = small_config(tmp_path)
    ends = {
        "sender": {"model": "nano-llama", "layer": 1, "device": "cpu:0"},
        "receiver": {"model": "nano-mistral", "device": "meta"},
    }
    placed = build_config(plain.model_dump() | ends, where="test")
    assert placed.identity == plain.identity
    sender, receiver = load_pair(placed.model_copy(update={"receiver": plain.receiver}))
    assert (str(sender.device), str(receiver.device)) == ("cpu:0", "cpu")
    sender, _ = load_pair(placed, device="cpu")
    assert str(sender.device) == "cpu"
