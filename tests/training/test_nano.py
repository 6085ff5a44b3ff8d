from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from latentwire.errors import DataError, MismatchError, UsageError
from latentwire.files import file_digest
from latentwire.models.receiver import load_receiver
from latentwire.training.nano.export import export_model
from latentwire.training.nano.pretrain import RECIPES, Pretrainer
from latentwire.training.nano.stream import IGNORE, PlainText, encode_documents

PROSE = "It was the best of times, it was the worst of times; the {} road ran past {} houses and a mill. "


@pytest.fixture
def text_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    words = ["old", "long", "quiet", "seven", "nine", "grey"]
    (folder / "prose.txt").write_text("".join(PROSE.format(words[i % 6], words[i % 5]) for i in range(4000)))
    (folder / "prose_test.txt").write_text("never read")
    return folder


@pytest.mark.parametrize("model", sorted(RECIPES))
def test_pretraining_resumes_to_the_same_bytes(model: str, text_dir: Path, tmp_path: Path) -> None:
    text = PlainText(text_dir)
    recipe = replace(RECIPES[model], steps=5, circuit_steps=2, ramp_steps=2, tokenizer_documents=4000)
    whole = Pretrainer(recipe, text, tmp_path / "whole")
    assert whole.run(report=lambda line: None, every=5)
    parts = Pretrainer(recipe, text, tmp_path / "parts")
    assert not parts.run(report=lambda line: None, every=5, should_stop=lambda: parts.step == 3)
    resumed = Pretrainer(recipe, text, tmp_path / "parts", resume=True)
    resumed.run(report=lambda line: None, every=5)
    for name, tensor in whole.model.state_dict().items():
        assert tensor.equal(resumed.model.state_dict()[name]), name
    assert whole.text_tokens > 0


def test_an_exported_model_loads_like_any_other_and_has_a_card(text_dir: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPES["nano-llama"], steps=1, tokenizer_documents=4000)
    trainer = Pretrainer(recipe, PlainText(text_dir), tmp_path / "run")
    trainer.run(report=lambda line: None)
    figures = export_model(trainer, tmp_path / "nano-llama@7", name="nano-llama@7", n=4)
    receiver = load_receiver(str(tmp_path / "nano-llama@7"), device="cpu")
    assert receiver.width == 128
    assert figures["weights_sha256"] == file_digest(tmp_path / "nano-llama@7" / "model.safetensors")
    assert "| record3 | 0.0% | 0.0% |" in (tmp_path / "nano-llama@7" / "README.md").read_text()
    with pytest.raises(UsageError, match="next version"):
        export_model(trainer, tmp_path / "nano-llama@7", name="nano-llama@7", n=4)


def test_a_checkpoint_of_another_recipe_is_refused(text_dir: Path, tmp_path: Path) -> None:
    text = PlainText(text_dir)
    recipe = replace(RECIPES["nano-llama"], steps=1, tokenizer_documents=4000)
    Pretrainer(recipe, text, tmp_path).run(report=lambda line: None)
    with pytest.raises(MismatchError, match=r"lr: 0\.003 there, 0\.1 here"):
        Pretrainer(replace(recipe, lr=0.1), text, tmp_path, resume=True)


def test_official_evaluation_files_and_the_held_out_end_are_never_read(text_dir: Path) -> None:
    from random import Random

    text = PlainText(text_dir)
    assert len(text.texts) == 1
    border = int(len(text.texts[0]) * 0.98)
    for seed in range(200):
        assert text.texts[0].find(text.excerpt(Random(seed), 300)) < border


def test_a_folder_without_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--text_dir"):
        PlainText(tmp_path / "missing")


def test_only_targets_are_predicted_and_answers_end_with_the_end_token() -> None:
    from latentwire.models.source import resolve

    tokenizer = resolve("nano-llama").tokenizer
    [(ids, targets)] = encode_documents(
        tokenizer, [[("Two apples.", False), ("\nQuestion: How many?\nAnswer:", False), (" 2\0", True)]]
    )
    wanted = [token for token in targets if token != IGNORE]
    assert tokenizer.decode(wanted[:-1]).strip() == "2"
    assert wanted[-1] == tokenizer.eos_token_id
    assert ids[0] == tokenizer.bos_token_id
