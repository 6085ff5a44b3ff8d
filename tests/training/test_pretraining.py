from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import torch

from latentwire.config import PretrainingSettings, RunConfig, build_config
from latentwire.data.tinyworld.lexicon import HELD_OUT, SEEN
from latentwire.errors import ConfigError, DataError, StoppedEarlyError, UnknownNameError
from latentwire.files import file_digest
from latentwire.models.chat import Prompter
from latentwire.models.source import resolve
from latentwire.training.pretraining import TextBundles, TextWriter, prepare_texts
from latentwire.training.run import load_pair, train_run
from tests.training.test_trainer import StopAt


def small_config(folder: Path, **pretraining: object) -> RunConfig:
    training = {
        "steps": 6, "batch_size": 4, "optimizer": "muon", "lr": 0.01, "warmup_steps": 1, "validate_every": 3, "checkpoint_every": 2,
        "log_every": 1, "questions_per_message": 3, "first_stage": {"objective": "align", "share": 0.4},
    }  # fmt: skip
    settings = {"validation_rows": 6, "context_tokens": 24, "target_tokens": 16, "training": training} | pretraining
    content = {
        "task": "tinyworld_record1",
        "sender": {"model": "nano-llama", "layer": 1},
        "receiver": {"model": "nano-mistral"},
        "bridge": {"name": "pooled", "hidden_size": 32},
        "pretraining": settings,
        "output_dir": str(folder),
    }
    return build_config(content, where="test").stage_one


def writer(**settings: object) -> TextWriter:
    prompters = [Prompter(resolve(name)) for name in ("nano-llama", "nano-mistral")]
    return TextWriter(PretrainingSettings.model_validate(settings), prompters[0], prompters[1])


def test_a_stopped_stage_one_ends_with_the_same_bytes(tmp_path: Path) -> None:
    whole = train_run(small_config(tmp_path / "whole"), prepare=prepare_texts)
    with pytest.raises(StoppedEarlyError):
        train_run(small_config(tmp_path / "parts"), prepare=prepare_texts, hooks=StopAt(3).hooks())
    parts = train_run(small_config(tmp_path / "parts"), prepare=prepare_texts, resume=True)
    assert whole["weights_sha256"] == parts["weights_sha256"]
    assert file_digest(tmp_path / "whole/stage1/log.jsonl") == file_digest(tmp_path / "parts/stage1/log.jsonl")


def test_the_task_does_not_matter_in_stage_one(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    assert config.identity == config.model_copy(update={"task": ("tinyworld_topic",)}).stage_one.identity


def test_control_tokens_say_what_is_to_be_written_and_are_not_part_of_the_bridge(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    sender, receiver = load_pair(config)
    from latentwire.training.parallel import Team
    from latentwire.training.run import new_bridge

    bridge = new_bridge(config, sender, receiver)
    prepared = prepare_texts(config, sender, receiver, bridge, Team(), lambda line: None)
    rows = [row for index in range(40) for row in prepared.train[index][:1]]
    one_each = [next(row for row in rows if row.field == lesson) for lesson in ("repeat", "note", "asked")]
    soft = prepared.learner.soft_tokens(one_each)
    plain = bridge(sender.read([row.sender_prompt for row in one_each]))
    added = (soft.tokens_per_row - plain.tokens_per_row).tolist()
    assert added == [4, 4, 0]
    tails = [soft.vectors[index][soft.mask[index]][-4:] for index in range(2)]
    assert not torch.allclose(tails[0], tails[1])
    assert "control_embeddings" not in dict(bridge.named_parameters())


def test_row_i_depends_on_the_seed_and_i_alone() -> None:
    first, second = (TextBundles(writer(), 50, seed=3, questions=4) for _ in range(2))
    assert [first[7], first[2]] == [second[7], second[2]]
    assert first[7] != TextBundles(writer(), 50, seed=4, questions=4)[7]


def test_plain_text_is_repeated_or_continued_word_for_word(tmp_path: Path) -> None:
    words = [f"word{number}" for number in range(3000)]
    (tmp_path / "book.txt").write_text(" ".join(words))
    drawn = [
        writer(texts=[str(tmp_path)], context_tokens=12, target_tokens=8).draw(Random(seed), str(seed), 1, held_out=False)[0]
        for seed in range(30)
    ]
    assert {row.field for row in drawn} == {"repeat", "go_on"}
    for row in drawn:
        joined = row.sender_prompt if row.field == "repeat" else f"{row.sender_prompt} {row.answer}"
        assert joined.replace(" ", "").startswith(row.answer.replace(" ", "")) or row.field == "go_on"
        assert joined.replace(" ", "") in "".join(words)


def test_scenes_are_those_asked_for_and_never_show_held_out_words() -> None:
    held_out = {*HELD_OUT.names, *HELD_OUT.places}
    drawn = [
        writer(scenes=["record1"], lessons={"go_on": 0, "repeat": 0}).draw(Random(seed), str(seed), 1, held_out=False)[0]
        for seed in range(200)
    ]
    names = {str(row.note).split()[0] for row in drawn}
    assert held_out.isdisjoint(word for row in drawn for word in str(row.note).split())
    # half of them are of no class
    assert 50 < sum(name not in SEEN.names for name in (str(row.note).split()[0] for row in drawn)) < 150, names


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no plain text.*missing"):
        writer(texts=[str(tmp_path / "missing")])
    with pytest.raises(UnknownNameError, match="tiny-world scene 'record9'"):
        writer(scenes=["record9"])
    with pytest.raises(ConfigError, match="all lessons have the share 0"):
        small_config(tmp_path, lessons={"repeat": 0, "go_on": 0, "note": 0})
