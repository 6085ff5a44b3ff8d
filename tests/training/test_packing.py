from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentwire.bridges.attentive import AttentiveConfig
from latentwire.bridges.base import BridgeEnds
from latentwire.bridges.perceiver import PerceiverConfig
from latentwire.cli.app import main
from latentwire.config import RunConfig, load_config
from latentwire.data.readers import read_task
from latentwire.data.task import Example, load_task
from latentwire.errors import ArtefactError, DataError
from latentwire.models.receiver import Receiver, load_receiver
from latentwire.models.sender import Sender, load_sender
from latentwire.training.alignment import Alignment
from latentwire.training.learners import PackingLearner
from latentwire.training.packing import (
    MOST_PIECES,
    MOST_WORDS,
    Notes,
    Packing,
    drawn_shares,
    even_shares,
    load_packing,
    read_note,
    save_packing,
    sentence_shares,
)

CONFIG = Path(__file__).parents[2] / "configs/records.yaml"
SMALL = {
    "bridge": "{name: attentive, tokens_per_soft_token: 2, hidden_size: 24}",
    "data": "{train_rows: 8, validation_rows: 4}",
    "packing": "{steps: 2, batch_size: 2, validate_every: 2}",
    "pretraining.validation_rows": "2",
    "pretraining.training": "{steps: 2, batch_size: 2, align_to: packing, first_stage: {objective: align, share: 0.9}}",
    "training": "{steps: 2, batch_size: 2, align_to: packing, terms: {align: 1.0}}",
}


@pytest.fixture(scope="module")
def sender() -> Sender:
    return load_sender("nano-llama", layer=1, device="cpu")


def records(count: int, rows: int = 6) -> list[Example]:
    return list(read_task(load_task(f"tinyworld_record{count}"), "train", max_rows=rows).examples)


def arguments(folder: Path, **more: str) -> list[str]:
    settings = {**SMALL, "output_dir": str(folder), **more}
    return [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]


def test_a_note_is_read_by_record_word_and_token(receiver: Receiver) -> None:
    first, second = read_note("Karson Torbon 11 black tables; Ia Oslo 7 hats", receiver)
    spelled = [(place // MOST_PIECES, receiver.tokenizer.decode([token])) for place, token in first]
    for word, text in enumerate(["Karson", "Torbon", "11", "black"]):
        assert "".join(piece for row, piece in spelled if row == word).strip() == text
    assert "".join(piece for row, piece in spelled if row == MOST_WORDS - 1).strip() == "tables"
    # without a colour the last word stands at the last place all the same
    assert {place // MOST_PIECES for place, _ in second} == {0, 1, 2, MOST_WORDS - 1}
    assert len(read_note("Antidisestablishmentarianism", receiver)) == 1


@given(st.integers(0, 60), st.integers(1, 9))
def test_records_share_all_soft_tokens_almost_evenly(soft_tokens: int, count: int) -> None:
    found = even_shares(soft_tokens, count)
    assert sum(found) == soft_tokens
    assert len(found) == count
    assert max(found) - min(found) <= 1


def test_each_record_gets_the_soft_tokens_that_begin_in_its_sentence() -> None:
    text = "Anna has 3.5 hats. In Oslo, Bo has 2 cups!"
    assert sentence_shares(text, [0, 8, 16, 18, 30, 41], records=2) == (3, 3)
    assert sentence_shares(text, [0, 8], records=2) == (2, 0)
    # where they do not match, all get like shares
    assert sentence_shares(text, [0, 8, 16], records=3) is None
    assert sentence_shares("no end", [0, 3], records=1) is None


def test_the_shares_of_a_row_follow_its_sentences(sender: Sender, receiver: Receiver) -> None:
    notes = Notes(AttentiveConfig(tokens_per_soft_token=2), sender, receiver)
    for row in records(3):
        ends = [0, *(place + 1 for place, letter in enumerate(row.sender_prompt) if letter == ".")]
        encoded = sender.tokenizer(row.sender_prompt, add_special_tokens=False, return_offsets_mapping=True)
        starts = [start for start, _ in encoded["offset_mapping"]][::2]
        wanted = [sum(begin <= start < end for start in starts) for begin, end in pairwise(ends)]
        assert notes.shares(row) == tuple(wanted)
        assert sum(notes.shares(row)) == notes.length(row)
    # a fixed number of soft tokens stands in no sentence
    assert Notes(PerceiverConfig(soft_tokens=8), sender, receiver).shares(records(3)[0]) == (2, 3, 3)


@pytest.mark.parametrize("bridge", [AttentiveConfig(tokens_per_soft_token=2), PerceiverConfig(soft_tokens=8)])
def test_a_packed_note_is_as_long_as_the_message(
    bridge: AttentiveConfig | PerceiverConfig, sender: Sender, receiver: Receiver
) -> None:
    torch.manual_seed(0)
    rows = [*records(1), *records(3)]
    notes = Notes(bridge, sender, receiver)
    packing = Packing(receiver, notes.sizes(rows, most=8), gain=2.0)
    soft = notes.packed(packing, rows)
    lengths = [-(-len(sender.tokenizer(row.sender_prompt, add_special_tokens=False)["input_ids"]) // 2) for row in rows]
    assert soft.tokens_per_row.tolist() == (lengths if isinstance(bridge, AttentiveConfig) else [8] * len(rows))
    rms = soft.vectors[soft.mask].pow(2).mean(-1).sqrt()
    torch.testing.assert_close(rms, torch.full_like(rms, 2 * receiver.embedding_rms), rtol=0.01, atol=0)
    assert soft.vectors[~soft.mask].abs().sum() == 0
    # a row's note is said alike in any company
    alone = notes.packed(packing, rows[-1:])
    torch.testing.assert_close(soft.vectors[-1, : lengths[-1] if isinstance(bridge, AttentiveConfig) else 8], alone.vectors[0])


def test_a_word_is_said_in_the_same_way_whoever_has_it(sender: Sender, receiver: Receiver) -> None:
    torch.manual_seed(0)
    packing = Packing(receiver, [12])
    first, second = (packing([read_note(text, receiver)], [[12]]).vectors[0] for text in ("Anna Oslo 11 hats", "Anna Oslo 12 hats"))
    alike = torch.cosine_similarity(first, second, dim=-1)
    assert alike.min() < 0.9  # the count says something
    assert (alike > 0.9).sum() >= 10  # and next to nothing elsewhere


def test_records_of_a_length_that_was_never_learned_take_the_nearest(receiver: Receiver) -> None:
    packing = Packing(receiver, [4, 5])
    note = read_note("Anna Oslo 11 hats", receiver)
    for count in (1, 3, 9):
        soft = packing([note], [[count]])
        assert soft.tokens_per_row.tolist() == [count]
        assert soft.vectors.isfinite().all()


def test_of_many_soft_tokens_those_behind_all_say_the_same(sender: Sender, receiver: Receiver) -> None:
    rows = records(1)
    notes = Notes(AttentiveConfig(tokens_per_soft_token=1), sender, receiver)
    packing = Packing(receiver, notes.sizes(rows, most=8))
    assert packing.sizes == [8]
    # learned from its first step on, though it begins with zeros
    notes.packed(packing, rows).vectors.sum().backward()
    assert packing.nothing.grad is not None
    assert packing.nothing.grad.abs().min() > 0
    torch.nn.init.normal_(packing.nothing)
    soft = notes.packed(packing, rows)
    assert soft.tokens_per_row.tolist() == [notes.length(row) for row in rows]
    behind = soft.vectors[:, 8:][soft.mask[:, 8:]]
    assert len(behind) > len(rows)
    torch.testing.assert_close(behind, behind[:1].expand_as(behind))
    torch.testing.assert_close(behind[0].pow(2).mean().sqrt(), torch.tensor(receiver.embedding_rms), rtol=0.01, atol=0)
    assert (soft.vectors[:, :8] - behind[0]).abs().amax(-1).min() > 0.01


def test_what_is_inside_a_bridge_makes_no_other_packing() -> None:
    def identity(more: str = "") -> str:
        bridge = f"bridge={{name: attentive, {more}}}"
        return load_config(
            "configs/nano.yaml", [bridge, "training.align_to=packing", "training.terms.align=1"]
        ).packing_run.identity

    assert identity("pointers: 4") == identity("pointers: 8, hidden_size: 96") == identity()
    assert identity("tokens_per_soft_token: 4") != identity() != identity("gain: 2")


def test_how_a_packing_is_learned_makes_another_packing_and_another_bridge() -> None:
    def identities(*more: str) -> list[str]:
        config = load_config("configs/packed.yaml", more)
        return [config.identity, config.stage_one.identity, config.packing_run.identity]

    usual = identities()
    for setting in ("packing.redrawn=0.5", "packing.most_said=3", "packing.steps=7"):
        assert not set(identities(setting)) & set(usual)
    assert identities("packing.redrawn=0", "packing.most_said=8") == usual


def test_some_messages_are_learned_with_other_numbers_of_soft_tokens(sender: Sender, receiver: Receiver) -> None:
    torch.manual_seed(0)
    rows = records(3, rows=60)
    notes = Notes(AttentiveConfig(tokens_per_soft_token=4), sender, receiver)
    packing = Packing(receiver, notes.sizes(rows, most=3))
    assert packing.sizes == [2, 3]
    learner = PackingLearner(packing, notes, redrawn=0.5)
    own = torch.tensor([notes.length(row) for row in rows])
    packing.train()
    found = learner.soft_tokens(rows).tokens_per_row
    assert 10 < (found != own).sum() < 40
    assert found[found != own].min() >= 6
    assert found[found != own].max() <= 9
    packing.eval()
    assert torch.equal(learner.soft_tokens(rows).tokens_per_row, own)
    # each number of soft tokens is drawn about as often
    drawn = torch.tensor([drawn_shares([2, 3], 2) for _ in range(500)])
    assert 400 < (drawn == 2).sum() < 600


def test_gradients_reach_the_maps_and_the_gain(sender: Sender, receiver: Receiver) -> None:
    rows = records(2)
    notes = Notes(AttentiveConfig(tokens_per_soft_token=2), sender, receiver)
    packing = Packing(receiver, notes.sizes(rows, most=8))
    soft = notes.packed(packing, rows)
    (soft.vectors * torch.randn(soft.vectors.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
    # no record has soft tokens that say nothing
    learned = [parameter for name, parameter in packing.named_parameters() if name != "nothing"]
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in learned)


def test_a_bridge_is_drawn_to_what_the_packing_makes_of_the_notes(sender: Sender, receiver: Receiver) -> None:
    torch.manual_seed(0)
    rows = [*records(1), *records(2)]
    bridge = AttentiveConfig(tokens_per_soft_token=2).build(
        BridgeEnds(sender_width=sender.width, receiver_width=receiver.width, receiver_rms=receiver.embedding_rms)
    )
    notes = Notes(bridge.config, sender, receiver)
    packing = Packing(receiver, notes.sizes(rows, most=8)).requires_grad_(False)
    alignment = Alignment(sender, receiver, bridge, rows, packing=packing)
    packed = notes.packed(packing, rows)
    assert alignment.loss(rows, packed).item() < 1e-9
    assert alignment.loss(rows, packed.shifted()).item() > 0.3
    states = sender.read([row.sender_prompt for row in rows])
    before = alignment.loss(rows, bridge(states))
    before.backward()
    with torch.no_grad():
        for parameter in bridge.parameters():
            if parameter.grad is not None:
                parameter -= 0.05 * parameter.grad
    assert alignment.loss(rows, bridge(states)).item() < before.item()


def test_rows_without_a_note_are_refused(sender: Sender, receiver: Receiver) -> None:
    notes = Notes(AttentiveConfig(), sender, receiver)
    with pytest.raises(DataError, match="has no notes, so there is nothing to pack"):
        notes.of(replace(records(1)[0], note=None))
    with pytest.raises(DataError, match="is empty"):
        notes.of(replace(records(1)[0], note=" ; "))


def test_a_saved_packing_comes_back_and_a_broken_one_is_refused(receiver: Receiver, tmp_path: Path) -> None:
    packing = Packing(receiver, [3, 4], gain=1.5)
    save_packing(packing, tmp_path)
    file = tmp_path / "packing.safetensors"
    again = load_packing(file, receiver)
    note = read_note("Anna Oslo 11 hats", receiver)
    assert torch.equal(packing([note], [[3]]).vectors, again([note], [[3]]).vectors)
    assert not any(parameter.requires_grad for parameter in again.parameters())
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ArtefactError, match="cut, corrupt or of another receiver"):
        load_packing(file, receiver)


def test_stage_one_learns_the_packing_first_and_the_task_finds_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert main(["pretrain-bridge", str(CONFIG), *arguments(folder)]) == 0
    weights = folder / "packing/packing.safetensors"
    first = weights.read_bytes()
    capsys.readouterr()
    assert main(["train", str(CONFIG), *arguments(folder), "--pretrain"]) == 0
    assert "already holds this packing" in capsys.readouterr().err
    assert weights.read_bytes() == first
    assert load_config(folder / "packing/config.json").training.steps == 2
    # a task that begins with that stage one from another folder finds its packing too
    assert main(["train", str(CONFIG), *arguments(tmp_path / "other"), "--set", f"bridge.init={folder / 'stage1'}"]) == 0
    # other settings are another packing
    assert main(["pretrain-bridge", str(CONFIG), *arguments(folder, packing="{steps: 3}")]) == 1
    assert "holds a run of another config (training.steps: 2 there, 3 here" in capsys.readouterr().err
    assert main(["pretrain-bridge", str(CONFIG), *arguments(folder, packing="{steps: 3}"), "--overwrite"]) == 0
    assert weights.read_bytes() != first


def test_without_a_packing_there_is_nothing_to_be_drawn_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(CONFIG), *arguments(tmp_path / "run")]) == 1
    said = capsys.readouterr()
    assert "packing.safetensors' does not exist; learn it with" in said.err
    assert "rows:" not in said.out + said.err, "it is told before rows are read, which takes minutes"


def test_a_packing_that_was_stopped_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    from latentwire.errors import StoppedEarlyError
    from latentwire.training.packing_run import learn_packing
    from latentwire.training.trainer import Hooks

    def config(name: str, redrawn: float) -> RunConfig:
        overrides = [f"{key}={value}" for key, value in SMALL.items()]
        return load_config(
            CONFIG, [*overrides, "packing.most_said=5", f"packing.redrawn={redrawn}", f"output_dir={tmp_path / name}"]
        )

    def weights(name: str) -> bytes:
        return (tmp_path / name / "packing/packing.safetensors").read_bytes()

    learn_packing(config("whole", 1.0), device="cpu")
    with pytest.raises(StoppedEarlyError):
        learn_packing(config("cut", 1.0), device="cpu", hooks=Hooks(should_stop=lambda: True))
    learn_packing(config("cut", 1.0), device="cpu")
    assert weights("whole") == weights("cut")
    # the settings reach what is learned
    learn_packing(config("not drawn", 0.0), device="cpu")
    assert weights("not drawn") != weights("whole")
    assert max(load_packing(tmp_path / "whole/packing/packing.safetensors", load_receiver("nano-mistral", device="cpu")).sizes) == 5


def test_packed_notes_stand_as_the_soft_tokens_of_their_bridge(sender: Sender, receiver: Receiver) -> None:
    rows = records(1)
    notes = Notes(AttentiveConfig(tokens_per_soft_token=2, stride=2), sender, receiver)
    assert notes.packed(Packing(receiver, notes.sizes(rows, most=8)), rows).stride == 2


def test_a_bridge_begins_with_what_unfolds_its_packing(sender: Sender, receiver: Receiver, tmp_path: Path) -> None:
    from latentwire.training.alignment import alignment_for
    from latentwire.training.run import new_bridge

    rows = records(1)
    overrides = [f"{key}={value}" for key, value in SMALL.items()]
    config = load_config(CONFIG, [*overrides, f"output_dir={tmp_path / 'run'}", "bridge.unfold=3"])
    assert config.packing_run.bridge["unfold"] == 3
    notes = Notes(AttentiveConfig(tokens_per_soft_token=2, unfold=3), sender, receiver)
    packing = Packing(receiver, notes.sizes(rows, most=8), unfold=3)
    soft = notes.packed(packing, rows)
    answers = [receiver.answer_ids(row.receiver_prompt, row.answer) for row in rows]
    log_probs, _ = receiver.answer_log_probs(receiver.prefix([row.receiver_prompt for row in rows], soft), answers)
    log_probs.sum().backward()
    learned = packing.unfold_embeddings
    assert learned is not None
    assert learned.grad is not None
    assert (learned.grad.norm(dim=1) > 0).all()
    save_packing(packing, config.packing_folder)
    bridge = new_bridge(config, sender, receiver)
    assert bridge.unfold_embeddings is not None
    assert not torch.equal(bridge.unfold_embeddings, learned)
    alignment = alignment_for(config, sender, receiver, bridge, rows)
    assert torch.equal(bridge.unfold_embeddings, learned)
    assert alignment is not None
    assert alignment.packing is not None
    assert alignment.packing.unfold_embeddings is not None
    assert not alignment.packing.unfold_embeddings.requires_grad


def test_a_packing_of_other_settings_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert main(["pretrain-bridge", str(CONFIG), *arguments(folder)]) == 0
    begin = ["--set", f"bridge.init={folder / 'stage1'}"]
    for more, named in (
        (["--set", "packing.redrawn=0.9"], "packing.redrawn: 0.0 there, 0.9 here"),
        (["--set", "bridge.unfold=2"], "bridge.unfold: None there, 2 here"),
    ):
        capsys.readouterr()
        assert main(["train", str(CONFIG), *arguments(tmp_path / "task"), *begin, *more]) == 1
        said = capsys.readouterr().err
        assert "was learned with other settings" in said
        assert named in said
    assert not (tmp_path / "task/train.json").exists()


def test_ablations_and_comparisons_learn_what_they_are_drawn_to(tmp_path: Path) -> None:
    settings = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    ablated = ["ablate", str(CONFIG), *settings, "--vary", "training.lr=0.01", "--out", str(tmp_path / "ablation")]
    assert main(ablated) == 0
    assert len(list((tmp_path / "ablation").rglob("packing.safetensors"))) == 2
    compared = ["compare", str(CONFIG), *settings, "--tasks", "tinyworld_record1", "--methods", "bridge,self_bridge"]
    assert main([*compared, "--max_samples", "3", "--out", str(tmp_path / "comparison")]) in (0, 3)
    assert len(list((tmp_path / "comparison").rglob("packing.safetensors"))) == 2
