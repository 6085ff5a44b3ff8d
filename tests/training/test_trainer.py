from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from latentwire.bridges.base import Bridge
from latentwire.config import RunConfig, build_config
from latentwire.errors import ArtefactError, DataError, MismatchError, NonFiniteLossError, StoppedEarlyError, UsageError
from latentwire.files import file_digest
from latentwire.training.bundles import RowBundles, RowOrder
from latentwire.training.run import load_pair, new_bridge, train_run
from latentwire.training.trainer import Hooks

BRIDGES: list[dict[str, Any]] = [
    {"name": "perceiver", "soft_tokens": 4, "hidden_size": 24, "heads": 2, "depth": 1},
    {"name": "pooled", "tokens_per_soft_token": 2, "hidden_size": 32},
    {"name": "linear"},
]


def small_config(folder: Path, **changes: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "task": ["tinyworld_record1", "tinyworld_topic"],
        "sender": {"model": "nano-llama", "layer": 1},
        "receiver": {"model": "nano-mistral"},
        "bridge": BRIDGES[1],
        "data": {"train_rows": 40, "validation_rows": 12},
        "training": {
            "steps": 12,
            "batch_size": 4,
            "optimizer": "muon",
            "lr": 0.01,
            "warmup_steps": 2,
            "log_every": 3,
            "validate_every": 4,
            "checkpoint_every": 5,
            "first_stage": {"objective": "note", "share": 0.5},
        },
        "seed": 1,
        "output_dir": str(folder),
    }
    return build_config(settings | changes, where="test")


class StopAt:
    """Asks to stop once ``step`` is reached."""

    def __init__(self, step: int) -> None:
        self.step, self.reached = step, 0

    def hooks(self) -> Hooks:
        return Hooks(advance=self._advance, should_stop=lambda: self.reached >= self.step)

    def _advance(self, step: int) -> None:
        self.reached = step


def test_buckets_put_contexts_alike_in_length_together_and_lose_none() -> None:
    lengths = [number * 7 % 40 for number in range(40)]
    plain, alike = RowOrder(40, 3), RowOrder(40, 3, buckets=5, length=lengths.__getitem__)
    windows = [[alike.batch(step, 4) for step in range(start, start + 5)] for start in (0, 5)]
    for number, window in enumerate(windows):
        shuffled = [index for step in range(5) for index in plain.batch(5 * number + step, 4)]
        assert sorted(index for batch in window for index in batch) == sorted(shuffled)
        spans = sorted((min(lengths[index] for index in batch), max(lengths[index] for index in batch)) for batch in window)
        assert all(first[1] <= second[0] for first, second in pairwise(spans)), spans
    # any step by itself, as after a resume
    assert RowOrder(40, 3, buckets=5, length=lengths.__getitem__).batch(7, 4) == windows[1][2]
    assert windows[0] != sorted(windows[0], key=lambda batch: lengths[batch[0]])


def test_compiled_passes_are_used_in_steps_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[bool] = []

    def compiled_forward(model: torch.nn.Module, device: torch.device) -> Any:
        plain = model.forward

        def forward(**arguments: Any) -> Any:
            used.append(torch.is_grad_enabled())
            return plain(**arguments)

        return forward

    config = small_config(tmp_path / "plain")
    plain = train_run(config)
    monkeypatch.setattr("latentwire.training.trainer.compiled_forward", compiled_forward)
    changed = config.training.model_copy(update={"compile": True, "log_every": 100})
    same = train_run(config.model_copy(update={"training": changed, "output_dir": str(tmp_path / "compiled")}))
    assert same["weights_sha256"] == plain["weights_sha256"]
    assert len(used) >= config.training.steps
    assert all(used)


def test_speed_settings_that_are_left_alone_do_not_change_who_a_run_is(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    for changed in ({"length_buckets": 4}, {"compile": True}):
        other = config.model_copy(update={"training": config.training.model_copy(update=changed)})
        assert other.identity != config.identity
    assert '"length_buckets"' in config.model_dump_json()


def bytes_of(folder: Path) -> tuple[str, str, str]:
    return (
        file_digest(folder / "bridge" / "model.safetensors"),
        file_digest(folder / "bridge" / "config.json"),
        file_digest(folder / "log.jsonl"),
    )


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_stopped_and_resumed_training_ends_with_the_same_bytes(tmp_path: Path, optimizer: str) -> None:
    training = small_config(tmp_path).training.model_dump() | {"optimizer": optimizer, "token_dropout": 0.3}
    whole = train_run(small_config(tmp_path / "whole", training=training))
    for stop_at in (2, 7):  # in the first stage, then in the second
        with pytest.raises(StoppedEarlyError, match=f"step {stop_at} of 12.*--resume"):
            train_run(small_config(tmp_path / "parts", training=training), resume=stop_at > 2, hooks=StopAt(stop_at).hooks())
    parts = train_run(small_config(tmp_path / "parts", training=training), resume=True)
    assert bytes_of(tmp_path / "whole") == bytes_of(tmp_path / "parts")
    assert whole["weights_sha256"] == parts["weights_sha256"]


TERMS = {"note": 0.5, "text": 0.5, "align": 0.5, "kl": 0.5, "contrast": 0.5, "diversity": 0.5}


def test_every_term_changes_what_is_learned(tmp_path: Path) -> None:
    plain = small_config(tmp_path).training.model_dump() | {"steps": 2, "first_stage": {"objective": "none"}}
    digests = {"none": train_run(small_config(tmp_path / "none", task="tinyworld_record1", training=plain))["weights_sha256"]}
    for name, weight in TERMS.items():
        config = small_config(tmp_path / name, task="tinyworld_record1", training=plain | {"terms": {name: weight}})
        digests[name] = train_run(config)["weights_sha256"]
    assert len(set(digests.values())) == len(digests)


def test_aligning_brings_soft_tokens_to_the_words_they_stand_for(tmp_path: Path) -> None:
    training = small_config(tmp_path).training.model_dump() | {
        "steps": 60,
        "validate_every": 60,
        "first_stage": {"objective": "align", "share": 0.95},
    }
    bridge = {"name": "pooled", "tokens_per_soft_token": 1, "hidden_size": 64, "look_ahead": 1}
    train_run(small_config(tmp_path, task="tinyworld_record1", bridge=bridge, training=training))
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in log if entry.get("stage") == "first"]
    assert losses[-1] < 0.6 * losses[0]


def test_aligning_is_refused_where_soft_tokens_stand_for_no_words(tmp_path: Path) -> None:
    training = small_config(tmp_path).training.model_dump() | {"first_stage": {"objective": "align"}}
    with pytest.raises(UsageError, match=r"perceiver.*stand for no words.*bridge.name=pooled"):
        train_run(small_config(tmp_path, bridge=BRIDGES[0], training=training))


def test_a_bridge_begins_where_another_ended(tmp_path: Path) -> None:
    first = small_config(tmp_path / "first")
    train_run(first)
    sender, receiver = load_pair(first)
    begun = new_bridge(small_config(tmp_path / "b", bridge=BRIDGES[1] | {"init": str(tmp_path / "first")}), sender, receiver)
    trained = Bridge.from_pretrained(tmp_path / "first/bridge")
    assert trained.config.init is None
    assert all(torch.equal(value, begun.state_dict()[name]) for name, value in trained.state_dict().items())
    other = BRIDGES[1] | {"hidden_size": 16, "init": str(tmp_path / "first")}
    with pytest.raises(MismatchError, match=r"bridge.init.*hidden_size: 32 there, 16 here.*pretrain-bridge"):
        new_bridge(small_config(tmp_path / "c", bridge=other), sender, receiver)
    with pytest.raises(ArtefactError, match="no bridge at"):
        new_bridge(small_config(tmp_path / "d", bridge=BRIDGES[1] | {"init": str(tmp_path / "none")}), sender, receiver)


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    first = train_run(small_config(tmp_path / "a"))
    second = train_run(small_config(tmp_path / "b", seed=2))
    assert first["weights_sha256"] != second["weights_sha256"]


@pytest.mark.parametrize("bridge", BRIDGES, ids=lambda settings: settings["name"])
def test_gradients_reach_only_the_bridge(tmp_path: Path, bridge: dict[str, Any]) -> None:
    from latentwire.data.readers import read_task
    from latentwire.data.task import load_task
    from latentwire.training.features import FeatureCache
    from latentwire.training.learners import BridgeLearner
    from latentwire.training.trainer import Trainer

    config = small_config(tmp_path, bridge=bridge)
    sender, receiver = load_pair(config)
    before = [parameter.clone() for model in (sender.model, receiver.model) for parameter in model.parameters()]
    built = new_bridge(config, sender, receiver)
    start = {name: tensor.clone() for name, tensor in built.state_dict().items()}
    rows = read_task(load_task("tinyworld_record1"), "train", max_rows=20).examples
    learner = BridgeLearner(built, receiver, FeatureCache(sender).states)
    trainer = Trainer(config, learner=learner, train=RowBundles(rows), validation=rows[:4], folder=tmp_path)
    for _ in range(3):
        trainer.train_step()
    after = [parameter for model in (sender.model, receiver.model) for parameter in model.parameters()]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in after)
    assert all(not torch.equal(start[name], tensor) for name, tensor in built.state_dict().items())


def test_the_best_validation_decides_which_weights_are_kept(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    summary = train_run(config)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    validations = [(entry["validation"], -entry["validation_loss"], entry["step"]) for entry in log if "validation" in entry]
    assert [entry[2] for entry in validations] == [4, 8, 12]
    assert summary["best_step"] == max(validations)[2]


def test_the_log_shows_signs_of_collapse(tmp_path: Path) -> None:
    train_run(small_config(tmp_path))
    entry = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert {"loss", "rms_ratio", "shuffled_gap", "effective_rank", "gradient_norm", "stage"} <= set(entry)
    assert 0.5 < entry["rms_ratio"] < 2
    assert entry["effective_rank"] > 1


def test_a_finished_run_is_reused_and_says_so(tmp_path: Path) -> None:
    train_run(small_config(tmp_path))
    lines: list[str] = []
    before = bytes_of(tmp_path)
    train_run(small_config(tmp_path), say=lines.append)
    assert "already holds" in lines[0]
    assert bytes_of(tmp_path) == before


def test_the_folder_of_another_config_is_refused_with_the_difference(tmp_path: Path) -> None:
    train_run(small_config(tmp_path))
    with pytest.raises(MismatchError, match=r"seed: 1 there, 5 here.*output_dir.*--overwrite"):
        train_run(small_config(tmp_path, seed=5))
    assert train_run(small_config(tmp_path, seed=5), overwrite=True)["steps"] == 12


def test_an_unfinished_run_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    with pytest.raises(StoppedEarlyError):
        train_run(small_config(tmp_path), hooks=StopAt(5).hooks())
    with pytest.raises(UsageError, match="--resume"):
        train_run(small_config(tmp_path))


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_checkpoint_is_named_and_not_used(tmp_path: Path, damage: str) -> None:
    with pytest.raises(StoppedEarlyError):
        train_run(small_config(tmp_path), hooks=StopAt(5).hooks())
    path = tmp_path / "checkpoint.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] if damage == "cut" else data[:-10] + bytes([data[-10] ^ 1]) + data[-9:])
    with pytest.raises(ArtefactError, match="cut or corrupt"):
        train_run(small_config(tmp_path), resume=True)


def test_notes_are_asked_only_of_tasks_that_have_them(tmp_path: Path, data_dir: Path) -> None:
    config = small_config(tmp_path, task="trec", data={"data_dir": str(data_dir), "train_rows": 30, "validation_rows": 10})
    with pytest.raises(DataError, match="objective=text"):
        train_run(config)


def test_the_artefact_loads_again(tmp_path: Path) -> None:
    summary = train_run(small_config(tmp_path))
    bridge = Bridge.from_pretrained(tmp_path / "bridge")
    assert bridge.num_params == summary["trainable_params"]
    assert bridge.pair is not None
    assert (bridge.pair.sender.name, bridge.pair.receiver.name) == ("nano-llama@1", "nano-mistral@2")
    card = (tmp_path / "bridge" / "README.md").read_text()
    assert bridge.pair.sender.fingerprint in card
    assert "tinyworld_record1, tinyworld_topic" in card


def test_every_row_is_seen_once_per_epoch_from_any_step() -> None:
    order = RowOrder(10, seed=3)
    first_epoch = [index for step in range(5) for index in order.batch(step, 2)]
    assert sorted(first_epoch) == list(range(10))
    assert RowOrder(10, seed=3).batch(7, 2) == order.batch(7, 2)
    assert [index for step in range(5, 10) for index in order.batch(step, 2)] != first_epoch


def test_a_loss_that_is_no_number_stops_the_run_before_the_weights_are_spoilt(tmp_path: Path) -> None:
    """The rate is far too high: the run says so, keeps its last sound checkpoint, and its log shows where it happened."""
    training = small_config(tmp_path).training.model_dump() | {"optimizer": "adamw", "lr": 1e30, "checkpoint_every": 1}
    with pytest.raises(NonFiniteLossError, match=r"no finite number at step \d+ of 12 .*last finite loss.*training.lr=1e\+29"):
        train_run(small_config(tmp_path, training=training))
    last = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert last["non_finite"] in ("loss", "gradient")
    assert last["step"] >= 2
    assert not (tmp_path / "train.json").exists()
    from latentwire.training.checkpoint import load_checkpoint

    state = load_checkpoint(tmp_path / "checkpoint.safetensors")
    assert state["step"] == last["step"] - 1


def test_the_config_of_a_run_is_a_config(tmp_path: Path) -> None:
    from latentwire.config import load_config

    train_run(small_config(tmp_path))
    again = load_config(tmp_path / "config.json")
    assert again.identity == small_config(tmp_path).identity
    assert load_config(tmp_path / "config.json", ["seed=5"]).seed == 5


def test_a_run_keeps_what_its_rows_are_like(tmp_path: Path) -> None:
    train_run(small_config(tmp_path))
    rows = {(entry["task"], entry["split"]): entry for entry in json.loads((tmp_path / "rows.json").read_text())}
    topic, record = rows["tinyworld_topic", "train"], rows["tinyworld_record1", "train"]
    assert (topic["rows"], topic["contexts_cut"], topic["options_lost"]) == (40, 0, 0)
    assert sum(topic["labels"].values()) == 40
    assert record["labels"] == {}
    assert 1 <= record["target_tokens"]["p50"] <= record["target_tokens"]["max"] <= record["max_new_tokens"]
    assert record["bits"] > 20
    assert record["sender_words_shown"] < 0.6


def test_weights_that_a_run_began_from_are_told_apart_by_what_they_hold(tmp_path: Path) -> None:
    begin = tmp_path / "begin"
    train_run(small_config(begin))
    run = small_config(tmp_path / "run", bridge={**BRIDGES[1], "init": str(begin)})
    first = train_run(run)
    assert train_run(run) == first
    train_run(small_config(begin, seed=2), overwrite=True)
    for resume in (False, True):
        with pytest.raises(MismatchError, match=r"began from other weights than bridge\.init"):
            train_run(run, resume=resume)
    again = train_run(run, overwrite=True)
    assert again["weights_sha256"] != first["weights_sha256"]
