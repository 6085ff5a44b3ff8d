"""Models whose layers see only the latest positions score options as the same models read each option alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import transformers as t

from latentwire.models.receiver import Receiver, load_receiver
from latentwire.models.source import resolve
from latentwire.models.windows import Windows
from latentwire.prompts import Prompt
from tests.models.test_receiver import OPTIONS, PROMPTS, one_by_one, ragged

WINDOW = 6
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "sliding_window": WINDOW,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
MIXED = {"layer_types": ["sliding_attention", "full_attention"] * 2}
#: in all layers, by one mask or by kind; in some
MODELS = {
    "mistral": (t.MistralConfig, t.MistralForCausalLM, {}),
    "phi3": (t.Phi3Config, t.Phi3ForCausalLM, {}),
    "gemma3 everywhere": (t.Gemma3TextConfig, t.Gemma3ForCausalLM, {"head_dim": 8}),
    "gemma3": (t.Gemma3TextConfig, t.Gemma3ForCausalLM, {"head_dim": 8, **MIXED}),
    "qwen2": (t.Qwen2Config, t.Qwen2ForCausalLM, {"use_sliding_window": True, **MIXED}),
}


@pytest.fixture(scope="module", params=MODELS)
def receiver(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Receiver:
    """With a head that makes options differ clearly."""
    config_class, model_class, own = MODELS[request.param]
    folder = tmp_path_factory.mktemp("windows")
    tokenizer = resolve("nano-llama").tokenizer
    torch.manual_seed(0)
    model_class(config_class(vocab_size=len(tokenizer), **{**SHAPE, **own})).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    found = load_receiver(str(folder), device="cpu")
    head = found.model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight * 20, requires_grad=False)
    return found


@pytest.mark.parametrize("stride", [1, 3])
@torch.no_grad()
def test_options_score_as_each_alone(receiver: Receiver, stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    soft = replace(ragged(receiver), stride=stride)
    prefix, tries = receiver.prefix(PROMPTS, soft), receiver.tries(PROMPTS, OPTIONS)
    assert prefix.mask.shape[1] > 2 * WINDOW
    together = receiver.score_options(prefix, tries)
    for row, scores in enumerate(together):
        expected = one_by_one(receiver, prefix[[row]], PROMPTS[row], OPTIONS[row])
        torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-5)
    monkeypatch.setattr(receiver, "windows", Windows())
    unlimited = receiver.score_options(prefix, tries)
    assert any((one - other).abs().max() > 0.01 for one, other in zip(together, unlimited, strict=True))


@torch.no_grad()
def test_what_is_read_before_keeps_the_window(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [PROMPTS[0], PROMPTS[0], PROMPTS[0]]
    prefix, tries = receiver.prefix(prompts), receiver.tries(prompts, [OPTIONS[0], OPTIONS[2], OPTIONS[0]])
    found = []
    for least in (10**9, 4):
        monkeypatch.setattr("latentwire.models.past.SHARED_TOKENS", least)
        found.append([*receiver.score_options(prefix, tries), receiver.score_contenders(prefix, tries)[0].max()])
    assert receiver.with_shared_start_read(prefix).past is not None
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_a_pass_shorter_than_the_window_is_told_what_any_model_is(receiver: Receiver) -> None:
    prompts = [PROMPTS[0]]
    prefix, tries = receiver.prefix(prompts), receiver.tries(prompts, [OPTIONS[0]])
    _, bias, positions = receiver.tree_inputs(prefix, tries)
    roomy, none = Windows(4096, some=True), Windows()
    plain = none.kept(bias["full_attention"] if isinstance(bias, dict) else bias, positions, len(tries[0].tokens))
    assert roomy.kept(plain, positions, len(tries[0].tokens)) is plain


def test_windows_that_a_config_leaves_unused_are_none() -> None:
    assert Windows.of(t.Qwen2Config(sliding_window=64)) == Windows()
    assert Windows.of(t.LlamaConfig()) == Windows()
    assert Windows.of(t.MistralConfig(sliding_window=None)) == Windows()
    assert Windows.of(t.MistralConfig(sliding_window=64)) == Windows(64)
    assert Windows.of(resolve("nano-mistral").config) == Windows(4096)


@torch.no_grad()
def test_rows_of_other_lengths_behind_a_shared_beginning_keep_the_window(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = "Solved rows: one is two; three is four; five is six. "
    prompts = [Prompt(start + "a " * count, " What?") for count in (1, 4, 9)]
    tries = receiver.tries(prompts, [OPTIONS[0]] * 3)
    monkeypatch.setattr("latentwire.models.past.SHARED_TOKENS", 4)
    together, written = (
        receiver.score_options(receiver.prefix(prompts), tries),
        receiver.generate(receiver.prefix(prompts), max_new_tokens=6),
    )
    for row, prompt in enumerate(prompts):
        alone = receiver.prefix([prompt])
        torch.testing.assert_close(together[row], receiver.score_options(alone, tries[row : row + 1])[0], atol=1e-4, rtol=1e-4)
        assert written[row] == receiver.generate(alone, max_new_tokens=6)[0]
