from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from latentwire.errors import DataError, MismatchError, UsageError
from latentwire.files import file_digest
from latentwire.models.receiver import load_receiver
from latentwire.training.nano.export import export_model
from latentwire.training.nano.pretrain import Pretrainer
from latentwire.training.nano.recipe import RECIPES, Phase, Recipe
from latentwire.training.nano.stream import IGNORE, PlainText, encode_documents

WORLD = RECIPES["nano-llama"].phases[-1].shares
ONE_STEP = Phase("only", WORLD, steps=1)
PROSE = "It was the best of times, it was the worst of times; the {} road ran past {} houses and a mill. "


@pytest.fixture
def text_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    words = ["old", "long", "quiet", "seven", "nine", "grey"]
    (folder / "prose.txt").write_text("".join(PROSE.format(words[i % 6], words[i % 5]) for i in range(4000)))
    (folder / "prose_test.txt").write_text("never read")
    return folder


def short_recipe(model: str, *phases: Phase) -> Recipe:
    return replace(RECIPES[model], phases=phases or (ONE_STEP,), tokenizer_documents=4000)


@pytest.mark.parametrize("model", sorted(RECIPES))
def test_pretraining_resumes_to_the_same_bytes(model: str, text_dir: Path, tmp_path: Path) -> None:
    text = PlainText(text_dir)
    recipe = short_recipe(
        model,
        Phase("gated", {"copy": 1}, steps=9, least_steps=2, gate={"look_up": 0.0}),
        Phase("last", WORLD, steps=3, text_every=2),
    )
    whole = Pretrainer(recipe, text, tmp_path / "whole")
    assert whole.run(report=lambda line: None, every=2)
    parts = Pretrainer(recipe, text, tmp_path / "parts")
    assert not parts.run(report=lambda line: None, every=2, should_stop=lambda: parts.step == 3)
    resumed = Pretrainer(recipe, text, tmp_path / "parts", resume=True)
    resumed.run(report=lambda line: None, every=2)
    for name, tensor in whole.model.state_dict().items():
        assert tensor.equal(resumed.model.state_dict()[name]), name
    assert (whole.step, whole.text_tokens > 0, whole.finished) == (5, True, True)


def test_a_phase_ends_at_its_gate_or_at_its_last_step_and_the_last_one_cools_down(text_dir: Path, tmp_path: Path) -> None:
    open_gate = Phase("open", {"copy": 1}, steps=9, least_steps=1, gate={"look_up": 0.0})
    closed_gate = Phase("closed", {"copy": 1}, steps=3, gate={"look_up": 2.0})
    trainer = Pretrainer(
        short_recipe("nano-llama", open_gate, closed_gate, Phase("last", WORLD, steps=4)), PlainText(text_dir), tmp_path
    )
    lines: list[str] = []
    phases: list[int] = []

    def watch() -> bool:
        phases.append(trainer.phase_at)
        return False

    trainer.run(report=lines.append, should_stop=watch, every=1)
    assert phases == [1, 1, 1, 2, 2, 2, 2, 3]
    assert [line for line in lines if "ends" in line][1] == "nano-llama phase 'closed' ends after 3 steps"


def test_the_learning_rate_falls_to_zero_in_the_last_phase_only(text_dir: Path, tmp_path: Path) -> None:
    trainer = Pretrainer(
        short_recipe("nano-llama", Phase("a", WORLD, steps=3), Phase("b", WORLD, steps=4)), PlainText(text_dir), tmp_path
    )
    factors = []
    for trainer.step in range(7):
        trainer.phase_at, trainer.phase_from = (0, 0) if trainer.step < 3 else (1, 3)
        factors.append(trainer.learning_rate_factor())
    assert factors == [1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]


def test_an_exported_model_loads_like_any_other_and_has_a_card(text_dir: Path, tmp_path: Path) -> None:
    recipe = short_recipe("nano-llama")
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
    recipe = short_recipe("nano-llama")
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
    with pytest.raises(DataError, match="give a folder that holds some"):
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


def test_a_text_file_is_read_whatever_its_name(text_dir: Path) -> None:
    assert PlainText(text_dir / "prose_test.txt").texts == ["never read"]
    assert "never read" not in PlainText(text_dir).texts
