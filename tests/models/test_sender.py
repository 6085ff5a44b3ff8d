from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from latentwire.errors import DataError, UsageError
from latentwire.models.receiver import load_receiver
from latentwire.models.sender import Sender, load_sender, lower_blocks
from latentwire.prompts import Prompt
from tests.conftest import DEPTH, FAMILIES, WIDTH

CONTEXTS = ["Maria left 47 apples in Lisbon.", "Tom has 12 red chairs.", "The code is 4 k 9."]


@cache
def sender_of(folder: str, layer: int, full: bool = False) -> Sender:
    return load_sender(folder, layer=layer, full=full)


@cache
def reference_states(folder: str) -> tuple[list[Tensor], Tensor]:
    """Hidden states 0..depth of the whole model without their begin-of-text token; the last one is taken before the norm."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(CONTEXTS, padding=True, padding_side="right", return_tensors="pt")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    last: list[Tensor] = []

    def keep(_module: object, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        last.append(output[0] if isinstance(output, tuple) else output)

    model.get_decoder().layers[-1].register_forward_hook(keep)
    with torch.no_grad():
        output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True)
    states = [*output.hidden_states[:-1], last[0]]
    return [state[:, 1:] for state in states], batch["attention_mask"][:, 1:].bool()


@pytest.mark.parametrize("full", [False, True], ids=["truncated", "full"])
@pytest.mark.parametrize("layer", range(DEPTH + 1))
@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_bit_equal_to_the_whole_model(family_folder: dict[str, str], family: str, layer: int, full: bool) -> None:
    expected, mask = reference_states(family_folder[family])
    read = sender_of(family_folder[family], layer, full).read(CONTEXTS)
    assert torch.equal(read.mask, mask)
    assert torch.equal(read.states[mask], expected[layer][mask])


@pytest.mark.parametrize("full", [False, True], ids=["truncated", "full"])
@pytest.mark.parametrize("family", FAMILIES)
def test_several_layers_are_those_of_the_whole_model_side_by_side(family_folder: dict[str, str], family: str, full: bool) -> None:
    expected, mask = reference_states(family_folder[family])
    layers = (0, 1, DEPTH)
    sender = load_sender(family_folder[family], layer=layers, full=full)
    assert sender.width == len(layers) * WIDTH
    read = sender.read(CONTEXTS)
    assert torch.equal(read.states[mask], torch.cat([expected[layer][mask] for layer in layers], dim=-1))


@pytest.mark.parametrize("family", FAMILIES)
def test_upper_blocks_and_head_are_not_loaded(family_folder: dict[str, str], family: str) -> None:
    from transformers import AutoModelForCausalLM

    whole = AutoModelForCausalLM.from_pretrained(family_folder[family], dtype=torch.float32)
    kept = {
        name.removeprefix("model."): parameter.numel()
        for name, parameter in whole.named_parameters()
        if not name.startswith(("lm_head.", "model.norm.", "model.layers.2.", "model.layers.3."))
    }
    loaded = {name: parameter.numel() for name, parameter in sender_of(family_folder[family], 2).model.named_parameters()}
    assert loaded == kept


def test_full_sender_carries_a_writer_and_the_truncated_one_does_not(family_folder: dict[str, str]) -> None:
    full = sender_of(family_folder["llama"], 2, True)
    assert sender_of(family_folder["llama"], 2).writer is None
    assert full.writer is not None
    assert len(full.writer.model.get_decoder().layers) == DEPTH
    assert full.model.layers[0] is full.writer.model.get_decoder().layers[0]
    prefix = full.writer.prefix([Prompt("Maria left 47 apples.", "\nNote:")])
    assert len(full.writer.generate_ids(prefix, max_new_tokens=3)[0]) <= 3


@pytest.mark.parametrize("full", [False, True], ids=["truncated", "full"])
@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_in_a_sender_takes_a_gradient(family_folder: dict[str, str], family: str, full: bool) -> None:
    sender = sender_of(family_folder[family], 2, full)
    modules = [sender.model] if sender.writer is None else [sender.model, sender.writer.model]
    assert not any(parameter.requires_grad for module in modules for parameter in module.parameters())
    assert not any(part.training for module in modules for part in module.modules())
    assert not sender.read(CONTEXTS).states.requires_grad


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_reads_the_same_alone_and_in_a_batch(family_folder: dict[str, str], family: str) -> None:
    sender = sender_of(family_folder[family], 3)
    together = sender.read([*CONTEXTS, "A much longer context with many words that makes every other row need padding at its end."])
    for row, context in enumerate(CONTEXTS):
        alone = sender.read([context])
        assert alone.mask.all()
        torch.testing.assert_close(together.states[row][together.mask[row]], alone.states[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["nano-llama", "nano-mistral"])
def test_begin_of_text_token_is_left_out(name: str) -> None:
    sender = load_sender(name, layer=1)
    tokens = len(sender.tokenizer(CONTEXTS[0], add_special_tokens=False)["input_ids"])
    assert sender.read(CONTEXTS[:1]).states.shape == (1, tokens, sender.width)


def test_half_of_the_depth_is_read_by_default(family_folder: dict[str, str]) -> None:
    sender = load_sender(family_folder["qwen3"])
    assert (sender.layer, sender.width) == (DEPTH // 2, WIDTH)


def test_states_come_in_the_dtype_asked_for(family_folder: dict[str, str]) -> None:
    assert load_sender(family_folder["llama"], layer=1, dtype="bfloat16").read(CONTEXTS).states.dtype == torch.bfloat16


@pytest.mark.parametrize("other", [{"layer": 1}, {"layer": 2, "dtype": "bfloat16"}])
def test_cache_key_tells_layers_and_dtypes_apart(family_folder: dict[str, str], other: dict[str, object]) -> None:
    key = sender_of(family_folder["llama"], 2).key
    assert load_sender(family_folder["llama"], layer=2).key == key
    assert load_sender(family_folder["llama"], **other).key != key  # type: ignore[arg-type]


def test_cache_key_tells_models_apart(family_folder: dict[str, str]) -> None:
    assert sender_of(family_folder["llama"], 2).key != sender_of(family_folder["mistral"], 2).key


@pytest.mark.parametrize("empty", ["", " \n\t"])
def test_empty_context_is_refused_by_its_place(family_folder: dict[str, str], empty: str) -> None:
    with pytest.raises(DataError, match=r"^context 1 is empty.*$"):
        sender_of(family_folder["llama"], 1).read([CONTEXTS[0], empty])


def test_too_long_context_is_refused_with_both_lengths(family_folder: dict[str, str]) -> None:
    with pytest.raises(DataError, match=r"^context 1 has \d+ tokens, .* reads at most 256; shorten it .*$") as caught:
        sender_of(family_folder["llama"], 1).read([CONTEXTS[0], "lamps " * 300])
    assert "\n" not in str(caught.value)


def test_longest_context_that_fits_is_read(family_folder: dict[str, str]) -> None:
    assert sender_of(family_folder["llama"], 1).read(["7 " * 254 + "7"]).mask.sum() == 255


@pytest.mark.parametrize("layer", [-1, DEPTH + 1])
@pytest.mark.parametrize("full", [False, True])
def test_layer_that_does_not_exist_is_refused(family_folder: dict[str, str], layer: int, full: bool) -> None:
    with pytest.raises(UsageError, match=rf"^sender layer {layer} does not exist: .* has blocks 1-{DEPTH} \(0 = embeddings\)$"):
        load_sender(family_folder["llama"], layer=layer, full=full)


def test_a_view_of_the_lower_blocks_runs_no_hook_of_the_whole_model() -> None:
    """accelerate puts a function in the place of a model's ``forward``; a copy of the model would run the model itself by it."""
    whole = load_receiver("nano-llama", device="cpu").model.get_decoder()
    ids = torch.tensor([[1, 5, 9, 30]])
    with torch.no_grad():
        wanted = whole(input_ids=ids, output_hidden_states=True).hidden_states[2]
        whole.forward = whole.forward
        found = lower_blocks(whole, 2)(input_ids=ids).last_hidden_state
    assert "forward" in vars(whole)
    assert torch.equal(found, wanted)
