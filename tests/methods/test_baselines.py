from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentwire.bridges.base import BridgeEnds
from latentwire.bridges.linear import LinearBridge, LinearConfig
from latentwire.config import RunConfig
from latentwire.data.readers import read_task
from latentwire.data.task import load_task
from latentwire.errors import DataError, UsageError
from latentwire.evaluation.evaluator import Origin, _record, describe
from latentwire.methods import build_method
from latentwire.methods.base import FitData, Parts, Prediction
from latentwire.methods.ensemble import Ensemble
from latentwire.methods.fewshot import FewShot
from latentwire.methods.label_byte import LabelByte
from latentwire.methods.linear_probe import LinearProbe, pooled_states, some_of_each
from latentwire.methods.lora import Lora
from latentwire.methods.prompt_tuning import PromptTuning
from latentwire.methods.self_bridge import SelfBridge
from latentwire.models.receiver import Receiver, load_receiver
from latentwire.models.sender import Sender, load_sender
from latentwire.models.source import resolve
from latentwire.prompts import Prompt
from latentwire.training import ridge as ridge_module
from latentwire.training.alignment import overlap
from latentwire.training.ridge import fit_ridge
from latentwire.training.run import train_run
from latentwire.training.tuning import PromptLearner
from tests.methods.conftest import SETTINGS, small_config

MakeData = Callable[..., FitData]


def test_a_linear_probe_finds_what_is_linearly_there(parts: Parts, fit_data: MakeData) -> None:
    data = fit_data("tinyworld_topic", rows=150)
    probe = LinearProbe(parts)
    info = probe.fit(data)
    rows = read_task(data.task, "test", max_rows=60).examples
    right = [a.option == row.label for a, row in zip(probe.predict(rows, max_new_tokens=1), rows, strict=True)]
    assert sum(right) / len(right) > 0.85
    assert info["layer"] in range(parts.sender.source.config.num_hidden_layers + 1)
    assert info["pooling"] in ("mean", "last")


def test_a_label_no_train_row_has_is_never_predicted_and_does_not_break_the_probe(parts: Parts, fit_data: MakeData) -> None:
    data = fit_data("tinyworld_topic", rows=60)
    known = [row for row in data.train if row.label != 2]
    probe = LinearProbe(parts)
    probe.fit(replace(data, train=known))
    found = probe.predict(read_task(data.task, "test", max_rows=20).examples, max_new_tokens=1)
    assert 2 not in {prediction.option for prediction in found}


def test_pooled_states_are_those_of_the_whole_model_one_text_at_a_time(parts: Parts) -> None:
    texts = ["The coach praised the team.", "A much longer line about the market, the profit and the bank of Lisbon."]
    together = pooled_states(parts.sender, texts)
    model, tokenizer = parts.sender.writer.model, parts.sender.tokenizer  # type: ignore[union-attr]
    for index, text in enumerate(texts):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        hidden = model.model(input_ids=ids, output_hidden_states=True).hidden_states
        for layer, states in enumerate(hidden):
            torch.testing.assert_close(torch.tensor(together[index, layer, 0]), states[0, 1:].mean(0), atol=1e-4, rtol=1e-3)
            torch.testing.assert_close(torch.tensor(together[index, layer, 1]), states[0, -1], atol=1e-4, rtol=1e-3)


def test_the_label_byte_takes_the_better_source_on_validation(parts: Parts, fit_data: MakeData) -> None:
    data = fit_data("tinyworld_topic", rows=60)
    method = LabelByte(parts)
    info = method.fit(data)
    assert info["validation"][info["label_from"]] == max(info["validation"].values())
    rows = read_task(data.task, "test", max_rows=6).examples
    labels = method.sources[method.chosen].predict(rows, max_new_tokens=4)
    sent = method.predict(rows, max_new_tokens=4)
    assert [prediction.message_bytes for prediction in sent] == [len(label.text.encode()) for label in labels]


def test_adapters_train_a_copy_and_leave_the_shared_receiver_as_it_is(parts: Parts, fit_data: MakeData) -> None:
    before = {name: part.clone() for name, part in parts.receiver.model.state_dict().items()}
    method = Lora(parts)
    info = method.fit(fit_data("tinyworld_topic", steps=6))
    after = parts.receiver.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    trained = [name for name, part in method.reader.model.named_parameters() if part.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    assert info["trainable_params"] == sum(p.numel() for p in method.reader.model.parameters() if p.requires_grad)
    frozen = {
        name.replace(".base_layer", ""): part for name, part in method.reader.model.named_parameters() if not part.requires_grad
    }
    assert all(torch.equal(before[name], part) for name, part in frozen.items())
    moved = [part.abs().sum() for name, part in method.reader.model.named_parameters() if "lora_B" in name]
    assert all(float(total) > 0 for total in moved)


def test_learned_tokens_are_the_same_for_every_row_and_the_only_thing_trained(parts: Parts, fit_data: MakeData) -> None:
    before = parts.receiver.embed.weight.clone()
    method = PromptTuning(parts)
    data = fit_data("tinyworld_topic", steps=4)
    assert method.fit(data)["trainable_params"] == parts.settings.virtual_tokens * parts.receiver.width
    soft = method.learner.soft_tokens(data.train[:3])
    assert torch.equal(soft.vectors[0], soft.vectors[2])
    assert torch.equal(before, parts.receiver.embed.weight)


@pytest.mark.parametrize("name", ["lora", "prompt_tuning"])
def test_the_receivers_side_can_have_other_steps_than_the_bridge(name: str, parts: Parts, fit_data: MakeData) -> None:
    data = fit_data("tinyworld_topic", steps=4)
    assert build_method(name, parts).fit(data)["steps"] == 4
    shorter = replace(parts, settings=parts.settings.model_copy(update={"tuning_steps": 2}))
    assert build_method(name, shorter).fit(replace(data, folder=data.folder / "shorter"))["steps"] == 2


def test_the_prior_cannot_tell_rows_apart(parts: Parts, fit_data: MakeData) -> None:
    method = build_method("prior", parts)
    method.fit(fit_data("tinyworld_topic"))
    rows = read_task(load_task("tinyworld_topic"), "test", max_rows=6).examples
    scores = [prediction.scores for prediction in method.predict(rows, max_new_tokens=1)]
    assert all(row == pytest.approx(scores[0], abs=1e-4) for row in scores)


def test_shots_come_from_train_with_every_label_and_stand_before_the_question(parts: Parts, fit_data: MakeData) -> None:
    method = FewShot(parts)
    data = fit_data("tinyworld_topic")
    chosen = method.fit(data)["shots"]
    by_id = {row.id: row for row in data.train}
    assert len({by_id[row_id].label for row_id in chosen}) == 3
    row = read_task(data.task, "test", max_rows=1).examples[0]
    [prompt] = method.prompts([row])
    text = prompt.text
    assert text.endswith(row.receiver_prompt_aware.text)
    assert all(f"{by_id[i].receiver_prompt_aware.text} {by_id[i].answer}\n\n" in text for i in chosen)
    assert method.fit(replace(data, seed=2))["shots"] != chosen


def test_of_shots_that_do_not_fit_the_longest_are_left_out(parts: Parts, fit_data: MakeData) -> None:
    method = FewShot(parts)
    data = fit_data("tinyworld_topic")
    method.fit(data)
    row = read_task(data.task, "test", max_rows=1).examples[0]
    words = (900, 200, 300)
    method.shots = [
        replace(shot, receiver_prompt_aware=Prompt(f"{count} " * count, "?"))
        for shot, count in zip(method.shots, words, strict=True)
    ]
    most = parts.receiver.max_tokens
    [prompt] = method.prompts([row])
    assert parts.receiver.count_tokens(prompt) < most
    assert [count for count in words if f"{count} {count} " in prompt.text] in ([200], [200, 300])
    method.shots = [replace(shot, receiver_prompt_aware=Prompt("word " * most, "?")) for shot in method.shots]
    with pytest.raises(DataError, match="not one solved row fits"):
        method.prompts([row])


def test_an_ensemble_averages_probabilities(parts: Parts) -> None:
    rows = read_task(load_task("tinyworld_topic"), "test", max_rows=3).examples
    found = build_method("ensemble", parts).predict(rows, max_new_tokens=1)
    readers = [build_method(name, parts).predict(rows, max_new_tokens=1) for name in ("sender_text", "receiver_text")]
    for index, prediction in enumerate(found):
        beliefs = [torch.tensor(reader[index].scores).softmax(-1) for reader in readers]
        torch.testing.assert_close(torch.tensor(prediction.scores).exp(), sum(beliefs) / 2, atol=1e-5, rtol=1e-4)


def test_ensemble_scores_are_finite_where_beliefs_underflow(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = read_task(load_task("tinyworld_topic"), "test", max_rows=1).examples
    method = build_method("ensemble", parts)
    assert isinstance(method, Ensemble)
    spread = tuple(-200.0 * option for option in range(len(rows[0].options)))
    for reader in method.readers:
        monkeypatch.setattr(reader, "predict", lambda rows, **_: [Prediction("", 0, spread, 0, 0) for _ in rows])
    [found] = method.predict(rows, max_new_tokens=1)
    assert found.scores == pytest.approx(spread)


def test_overlap_counts_shared_characters() -> None:
    shares = overlap([(0, 4), (4, 9)], [(0, 2), (2, 6), (6, 9)])
    assert shares.tolist() == [[2.0, 2.0, 0.0], [0.0, 2.0, 3.0]]


def test_ridge_maps_words_to_the_receivers_own_embeddings(parts: Parts) -> None:
    """Between a model and itself at layer 0 the map exists, up to the norm in front of it."""
    sender = load_sender("nano-mistral", layer=0, device="cpu")
    rows = read_task(load_task("tinyworld_record1"), "train", max_rows=300).examples
    texts = [row.sender_prompt for row in rows]

    def fitted(source: Sender) -> dict[str, Any]:
        ends = BridgeEnds(sender_width=source.width, receiver_width=parts.receiver.width, receiver_rms=parts.receiver.embedding_rms)
        bridge = LinearBridge(LinearConfig(), ends)
        return fit_ridge(bridge, source, parts.receiver, train=texts[:250], validation=texts[250:])

    own, other = fitted(sender), fitted(parts.sender)
    assert own["validation_r2"] > 0.9
    assert 0.3 < other["validation_r2"] < own["validation_r2"]


def test_self_bridge_begins_from_fresh_weights_where_the_bridge_is_pretrained(
    parts: Parts, fit_data: MakeData, tmp_path: Path
) -> None:
    data = fit_data("tinyworld_topic")
    first = train_run(data.config.model_copy(update={"output_dir": str(tmp_path / "first")}))
    assert first["steps"] == 3
    bridge = {**data.config.bridge, "init": str(tmp_path / "first")}
    pretrained = replace(data, config=data.config.model_copy(update={"bridge": bridge}))
    fresh = build_method("self_bridge", parts).fit(data)
    again = build_method("self_bridge", parts).fit(replace(pretrained, folder=tmp_path / "again"))
    assert again["validation"] == fresh["validation"]


def test_a_probe_looks_at_rows_of_every_label_whatever_their_order() -> None:
    labels = np.repeat(np.arange(20), 300)
    some = some_of_each(labels, 100, seed=1)
    assert set(labels[some].tolist()) == set(range(20))
    assert len(some) <= 120
    assert (np.diff(some) > 0).all()
    assert some_of_each(labels[:50], 100, seed=1).tolist() == list(range(50))


def test_a_probe_of_one_label_is_refused(parts: Parts, fit_data: MakeData) -> None:
    data = fit_data("tinyworld_topic", rows=60)
    with pytest.raises(DataError, match="train rows have one label"):
        LinearProbe(parts).fit(replace(data, train=[row for row in data.train if row.label == 1]))


def test_all_that_load_a_model_of_their_own_read_prompts_as_the_others(
    fit_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = resolve("nano-mistral").tokenizer
    tokenizer.chat_template = (
        "[INST] {{ messages[0].content }} [/INST]{% if messages|length > 1 %} {{ messages[1].content }}{% endif %}"
    )
    shutil.copytree(resolve("nano-mistral").location, tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    config = small_config(receiver={"model": str(tmp_path / "model")}, prompt_style="plain")
    data = replace(fit_data("tinyworld_topic"), config=config)
    own = Parts(
        load_sender("nano-llama", layer=1, full=True, device="cpu"),
        load_receiver(str(tmp_path / "model"), device="cpu", prompt_style="plain"), bridge_name="pooled", settings=SETTINGS,
    )  # fmt: skip
    lora, itself = Lora(own), SelfBridge(own)
    lora.fit(data)
    itself.fit(replace(data, folder=tmp_path / "self"))
    assert lora.reader.prompter.style == itself.sender.prompter.style == "plain"


def test_learned_tokens_begin_as_the_model_reads_its_words(family_folder: dict[str, str]) -> None:
    """Gemma scales what its table holds."""
    receiver = load_receiver(family_folder["gemma3"], device="cpu")
    learner = PromptLearner(receiver, tokens=200, aware=False, seed=1)
    with torch.no_grad():
        vectors = learner.module(torch.arange(200))
        read = receiver.embed(torch.arange(receiver.embed.num_embeddings))
    assert vectors.pow(2).mean().sqrt().item() == pytest.approx(read.pow(2).mean().sqrt().item(), rel=0.1)


def test_what_crosses_is_weighed_alike_whoever_reads(parts: Parts, fit_data: MakeData) -> None:
    rows = read_task(load_task("tinyworld_topic"), "test", max_rows=2).examples
    tuned = build_method("prompt_tuning", parts)
    tuned.fit(fit_data("tinyworld_topic"))
    methods = {"prompt_tuning": tuned} | {name: build_method(name, parts) for name in ("receiver_text", "sender_text", "ensemble")}
    found = {name: method.predict(rows, max_new_tokens=1) for name, method in methods.items()}
    for place, row in enumerate(rows):
        text = (len(parts.receiver.tokenizer(row.sender_prompt, add_special_tokens=False)["input_ids"]), len(row.sender_prompt))
        sizes = {name: (own[place].message_tokens, own[place].message_bytes) for name, own in found.items()}
        # the one model that answers alone is told nothing; an ensemble's receiver reads the text and gets the beliefs
        assert sizes == {
            "receiver_text": text,
            "prompt_tuning": text,
            "sender_text": (0, 0),
            "ensemble": (text[0], text[1] + 4 * len(row.options)),
        }


def test_a_bridge_that_is_compared_learns_from_the_rows_the_others_have(
    parts: Parts, fit_data: MakeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = fit_data("tinyworld_record1", questions_per_message=3, option_objective="answer")
    asked = []

    def stopped(config: RunConfig, **_: object) -> None:
        asked.append(config)
        raise UsageError("far enough")

    monkeypatch.setattr("latentwire.methods.bridge.train_run", stopped)
    with pytest.raises(UsageError, match="far enough"):
        build_method("bridge", parts).fit(data)
    assert asked[0].training.questions_per_message == 1
    assert asked[0].training.steps == data.config.training.steps


def test_ridge_reads_texts_from_all_over_the_rows(parts: Parts, fit_data: MakeData, monkeypatch: pytest.MonkeyPatch) -> None:
    data = fit_data("tinyworld_topic", rows=40)
    read: list[list[str]] = []
    monkeypatch.setattr("latentwire.training.ridge.MOST_TEXTS", 10)
    known = ridge_module.aligned

    def watched(sender: Sender, receiver: Receiver, bridge: LinearBridge, texts: Sequence[str]) -> object:
        read.append(list(texts))
        return known(sender, receiver, bridge, texts)

    monkeypatch.setattr(ridge_module, "aligned", watched)
    build_method("ridge", parts).fit(data)
    texts = list(dict.fromkeys(row.sender_prompt for row in data.train))
    assert len(read[0]) <= 10
    assert texts.index(read[0][-1]) > len(texts) / 2


@pytest.mark.parametrize(("name", "broken"), [("fewshot", False), ("label_byte", False), ("linear_probe", True)])
def test_only_what_was_trained_may_not_give_one_answer_to_all(name: str, broken: bool, parts: Parts) -> None:
    task = load_task("tinyworld_topic")
    rows = read_task(task, "test", max_rows=40).examples
    record = [_record(Prediction(rows[0].options[0], 0, None, 0, 0), row, ["accuracy"]) for row in rows]
    found = describe(task, rows, record, build_method(name, parts), None, origin=Origin(split="test"))
    assert bool(found.header["problems"]) == broken
