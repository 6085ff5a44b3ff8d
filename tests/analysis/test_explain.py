from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from latentwire.analysis.explain import Explanation, explain
from latentwire.analysis.message_views import attention_on, gradient_times_state, nearest_vocabulary, occluded, readable_ids
from latentwire.bridges import bridge_config
from latentwire.bridges.base import Bridge, BridgeEnds
from latentwire.data.readers import read_task
from latentwire.data.task import load_task
from latentwire.messages.settings import MessageSettings
from latentwire.messages.spans import find_spans, joined
from latentwire.models.receiver import Receiver, load_receiver
from latentwire.models.sender import Sender, load_sender
from latentwire.models.soft_tokens import SoftTokens
from latentwire.prompts import Prompt
from latentwire.report.explanation import head_lines


@pytest.fixture(scope="module")
def sender() -> Sender:
    return load_sender("nano-llama", layer=1, device="cpu")


def bridge_between(sender: Sender, receiver: Receiver, **settings: object) -> Bridge:
    torch.manual_seed(0)
    ends = BridgeEnds(sender_width=sender.width, receiver_width=receiver.width, receiver_rms=receiver.embedding_rms)
    return bridge_config(settings).build(ends).eval()


def explained(sender: Sender, receiver: Receiver, task_name: str, row: int = 0, **settings: object) -> Explanation:
    task = load_task(task_name)
    example = read_task(task, "test", max_rows=row + 1).examples[row]
    bridge = bridge_between(sender, receiver, **settings)
    return explain(task, example, split="test", sender=sender, bridge=bridge, receiver=receiver)


def test_a_soft_token_that_is_a_word_is_near_that_word(receiver: Receiver) -> None:
    ids = readable_ids(receiver)[[100, 700]]
    words = 3 * receiver.embed(ids)
    found, noise = nearest_vocabulary(receiver, torch.cat([words, torch.randn(1, receiver.width)]))
    assert [near[0].cosine for near in found[:2]] == pytest.approx([1, 1], abs=1e-4)
    assert found[0][0].token == receiver.tokenizer.decode(ids[:1]).strip()
    assert all(len(near) == 5 for near in found)
    assert 0.1 < noise < 0.6
    assert receiver.end_id not in readable_ids(receiver).tolist()


def test_occlusion_finds_the_group_and_the_one_before_it(sender: Sender, receiver: Receiver) -> None:
    read = sender.read(["Maria left 47 apples in Lisbon."])
    length = read.states.shape[1]
    moved = occluded(bridge_between(sender, receiver, name="pooled", tokens_per_soft_token=2), read)
    assert moved.shape == (-(-length // 2), length)
    for index, own in enumerate(moved):
        seen = set(range(max(0, 2 * index - 2), min(length, 2 * index + 2)))
        # a batch of many rows may round in another way than the one row it is compared with
        assert set((own > 1e-5).nonzero()[:, 0].tolist()) == seen


def test_occlusion_does_not_depend_on_how_many_are_hidden_at_once(
    sender: Sender, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = sender.read(["Maria left 47 apples in Lisbon."])
    bridge = bridge_between(sender, receiver, name="perceiver", soft_tokens=3)
    whole = occluded(bridge, read)
    assert (whole > 0).all()
    monkeypatch.setattr("latentwire.analysis.message_views._COPIES_BYTES", 1)
    torch.testing.assert_close(occluded(bridge, read), whole)


def test_gradients_of_a_pooled_bridge_stay_in_what_it_sees(sender: Sender, receiver: Receiver) -> None:
    read = sender.read(["Maria left 47 apples in Lisbon."])
    shares = gradient_times_state(bridge_between(sender, receiver, name="pooled", look_back=0), read)
    torch.testing.assert_close(shares, torch.eye(read.states.shape[1]))


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3", "gemma3", "phi3"])
def test_attention_is_shared_out_completely_and_the_model_is_put_back(family: str, family_folder: dict[str, str]) -> None:
    model = load_receiver(family_folder[family], device="cpu")
    before = model.model.config._attn_implementation
    soft = SoftTokens(torch.randn(1, 3, model.width), torch.ones(1, 3, dtype=torch.bool))
    own, how, _, elsewhere = attention_on(model, Prompt("Read:", "\nQuestion: How many?\nAnswer:"), soft, [5, 6, 2])
    assert (how, len(own)) == ("attention", 3)
    assert sum(own) + elsewhere == pytest.approx(1, abs=1e-3)
    assert min(own) > 0
    assert model.model.config._attn_implementation == before


def test_attention_is_that_of_the_right_places(receiver: Receiver) -> None:
    """The same numbers as from the model's own call, place by place."""
    prompt, soft = Prompt("", "\nAnswer:"), SoftTokens(receiver.embed(torch.tensor([[40, 41]])), torch.ones(1, 2, dtype=torch.bool))
    own, *_ = attention_on(receiver, prompt, soft, [7, receiver.end_id])
    before, after = receiver.prompter.prefix_ids(prompt)
    ids = torch.tensor([[*before, 40, 41, *after, 7]])
    eager = load_receiver("nano-mistral", device="cpu")
    eager.model.set_attn_implementation("eager")
    with torch.no_grad():
        layers = eager.model(input_ids=ids, output_attentions=True).attentions
    expected = torch.stack([layer[0, :, -2:, len(before) : len(before) + 2].mean(dim=(0, 1)) for layer in layers]).mean(dim=0)
    assert own == pytest.approx(expected.tolist(), abs=1e-5)


def test_without_attention_weights_gradients_say_it(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ValueError(f"no {name}")

    monkeypatch.setattr(receiver.model, "set_attn_implementation", refuse)
    soft = SoftTokens(torch.randn(1, 4, receiver.width), torch.ones(1, 4, dtype=torch.bool))
    own, how, *_ = attention_on(receiver, Prompt("", "\nAnswer:"), soft, [5, receiver.end_id])
    assert (how, len(own)) == ("gradient", 4)
    assert sum(own) == pytest.approx(1, abs=1e-4)


def test_effects_are_differences_of_log_likelihoods(sender: Sender, receiver: Receiver) -> None:
    found = explained(sender, receiver, "tinyworld_record1", name="perceiver", soft_tokens=4, hidden_size=24, heads=2)
    assert len(found.soft_tokens) == 4
    assert all(story.group is None and story.gradient_sources for story in found.soft_tokens)
    task = load_task("tinyworld_record1")
    row = read_task(task, "test", max_rows=1).examples[0]
    bridge = bridge_between(sender, receiver, name="perceiver", soft_tokens=4, hidden_size=24, heads=2)
    with torch.no_grad():
        soft = bridge(sender.read([row.sender_prompt]))
        ids = [receiver.answer_ids(row.receiver_prompt, row.answer)]
        whole, without = (
            receiver.answer_log_probs(receiver.prefix([row.receiver_prompt], SoftTokens(vectors, mask)), ids)[0].sum().item()
            for vectors, mask in ((soft.vectors, soft.mask), (soft.vectors[:, [0, 1, 3]], soft.mask[:, [0, 1, 3]]))
        )
    assert found.gold_log_likelihood == pytest.approx(whole, abs=1e-3)
    assert found.soft_tokens[2].gold_effect == pytest.approx(without - whole, abs=1e-3)


def test_the_predicted_answer_is_the_greedy_one_and_stays_itself(sender: Sender, receiver: Receiver) -> None:
    """A message of the words themselves: the receiver answers right, and without its number it cannot."""
    task = load_task("tinyworld_record1")
    row = next(row for row in read_task(task, "test", max_rows=40).examples if row.field == "colour")

    class Words(Bridge):
        def forward(self, read):  # type: ignore[no-untyped-def]
            ids = receiver.tokenizer(row.sender_prompt, add_special_tokens=False)["input_ids"]
            return SoftTokens(receiver.embed(torch.tensor([ids])), torch.ones(1, len(ids), dtype=torch.bool))

    words = Words(bridge_config({"name": "perceiver"}), bridge_between(sender, receiver).ends)
    read = sender.read([row.sender_prompt])
    assert (occluded(words, read) == 0).all()
    found = _explained_without_gradient(task, row, sender, words, receiver)
    assert found.predicted == row.answer
    colour = next(story for story in found.soft_tokens if story.neighbours[0].token == row.answer)
    assert colour.changes_answer
    assert colour.gold_effect < -1
    assert colour.gold_effect == min(story.gold_effect for story in found.soft_tokens)
    assert sum(story.changes_answer for story in found.soft_tokens) < len(found.soft_tokens) / 2


def _explained_without_gradient(task, row, sender, bridge, receiver):  # type: ignore[no-untyped-def]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("latentwire.analysis.explain.gradient_times_state", lambda bridge, read: occluded(bridge, read))
        return explain(task, row, split="test", sender=sender, bridge=bridge, receiver=receiver)


def test_options_and_a_message_of_one_soft_token(sender: Sender, receiver: Receiver) -> None:
    found = explained(sender, receiver, "tinyworld_topic", name="perceiver", soft_tokens=1, hidden_size=24, heads=2)
    assert found.predicted in load_task("tinyworld_topic").config.options.list  # type: ignore[union-attr]
    (story,) = found.soft_tokens
    # leaving out the only soft token is leaving out the message
    assert story.gold_effect == pytest.approx(found.gold_without_message - found.gold_log_likelihood, abs=1e-4)


def test_text_beside_the_soft_tokens_is_shown_and_weighed(sender: Sender, receiver: Receiver) -> None:
    task = load_task("tinyworld_record1")
    row = read_task(task, "test", max_rows=1).examples[0]
    bridge = bridge_between(sender, receiver)
    bridge.message = MessageSettings(verbatim="rules")
    found = explain(task, row, split="test", sender=sender, bridge=bridge, receiver=receiver)
    assert found.verbatim == joined(find_spans(row.sender_prompt))
    with torch.no_grad():
        prefix = receiver.prefix([row.receiver_prompt], bridge(sender.read([row.sender_prompt])))
        (alone,) = receiver.answer_log_probs(prefix, [receiver.answer_ids(row.receiver_prompt, row.answer)])[0].sum(dim=1).tolist()
    assert found.gold_without_verbatim == pytest.approx(alone, abs=1e-4)
    assert found.attention_on_verbatim > 0
    shares = [story.attention for story in found.soft_tokens]
    assert sum(shares) + found.attention_on_verbatim + found.attention_elsewhere == pytest.approx(1, abs=1e-4)
    head = "\n".join(head_lines(found))
    assert repr(found.verbatim) in head
    assert "the others make up" not in head


def test_an_answer_is_right_as_the_metric_has_it(sender: Sender, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    task = load_task("tinyworld_record1")
    row = read_task(task, "test", max_rows=1).examples[0]
    bridge = bridge_between(sender, receiver)
    found = explain(task, row, split="test", sender=sender, bridge=bridge, receiver=receiver)
    assert not found.right
    other = replace(row, answers=(row.answer, found.predicted))
    assert explain(task, other, split="test", sender=sender, bridge=bridge, receiver=receiver).right
