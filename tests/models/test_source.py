from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from latentwire.errors import ArtefactError, LatentWireError, ModelError, UnknownNameError
from latentwire.models.receiver import load_receiver
from latentwire.models.sender import load_sender
from latentwire.models.source import FETCHED, explained, resolve
from latentwire.prompts import Prompt

LOADERS: list[Callable[..., Any]] = [load_sender, load_receiver]


@pytest.fixture
def own_folder(family_folder: dict[str, str], tmp_path: Path) -> Path:
    return Path(shutil.copytree(family_folder["llama"], tmp_path / "model"))


@pytest.mark.parametrize("name", ["nano-llama", "nano-mistral"])
def test_embedded_name_without_a_version_is_the_newest(name: str) -> None:
    source = resolve(name)
    assert source.name.startswith(f"{name}@")
    assert resolve(source.name) == source


def test_hub_id_is_taken_with_its_revision_before_anything_is_fetched() -> None:
    source = resolve("meta-llama/Llama-3.1-8B-Instruct", "abc")
    assert (source.location, source.revision, source.is_local) == ("meta-llama/Llama-3.1-8B-Instruct", "abc", False)
    assert source.load_arguments() == {"trust_remote_code": False, "revision": "abc"}


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("name", ["nano-lama", "nano-llama@99"])
def test_unknown_name_suggests_the_nearest(load: Callable[..., Any], name: str) -> None:
    with pytest.raises(UnknownNameError, match=rf"^unknown model .*'{name}'; did you mean nano-llama@\d+") as caught:
        load(name)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("load", LOADERS)
def test_hub_model_that_is_not_here_says_how_to_fetch_it(load: Callable[..., Any]) -> None:
    with pytest.raises(ModelError, match=r"^cannot load model 'latentwire-tests/absent': .*latentwire fetch CONFIG") as caught:
        load("latentwire-tests/absent")
    assert "\n" not in str(caught.value)


def test_a_hub_that_does_not_answer_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    tries = logging.getLogger("huggingface_hub.utils._http")
    with explained(resolve("org/name")):
        for number in range(1, 6):
            tries.warning("'%s' thrown while requesting HEAD %s", "no network", "https://hub/org/name")
            tries.warning(f"Retrying in 1s [Retry {number}/5].")
    assert [record.getMessage() for record in caplog.records] == [
        "the Hub does not answer, trying again for half a minute; without network set HF_HUB_OFFLINE=1"
    ]
    tries.warning("another matter")
    assert caplog.records[-1].getMessage() == "another matter"


@pytest.mark.parametrize("load", LOADERS)
def test_folder_without_a_config_is_refused(load: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^folder '.*' holds no config.json; give a folder written by save_pretrained$"):
        load(str(tmp_path))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scribble(path: Path) -> None:
    path.write_bytes(b"\xff" * 64 + path.read_bytes()[64:])


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("harm", [cut, scribble])
def test_broken_weights_are_reported_in_one_line(load: Callable[..., Any], harm: Callable[[Path], None], own_folder: Path) -> None:
    harm(own_folder / "model.safetensors")
    with pytest.raises(ArtefactError, match=r"^weights of '.*' are cut or corrupt \(.*\); fetch them again$") as caught:
        load(str(own_folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize(
    ("file", "harm"),
    [("config.json", cut), ("tokenizer.json", cut), ("tokenizer.json", remove), ("model.safetensors", remove)],
    ids=["config cut", "tokenizer cut", "tokenizer missing", "weights missing"],
)
def test_broken_folder_is_reported_in_one_line(
    load: Callable[..., Any], file: str, harm: Callable[[Path], None], own_folder: Path
) -> None:
    harm(own_folder / file)
    if (file, harm) == ("tokenizer.json", remove):
        (own_folder / "tokenizer_config.json").unlink()
    with pytest.raises(LatentWireError, match=r"^cannot load model '.*") as caught:
        load(str(own_folder))
    assert "\n" not in str(caught.value)
    assert str(own_folder) in str(caught.value)


def test_unknown_architecture_is_reported_in_one_line(own_folder: Path) -> None:
    config = json.loads((own_folder / "config.json").read_text())
    (own_folder / "config.json").write_text(json.dumps({**config, "model_type": "telegraph"}))
    with pytest.raises(ModelError, match=r"^cannot load model .*telegraph") as caught:
        load_sender(str(own_folder))
    assert "\n" not in str(caught.value)


def test_fingerprint_follows_the_weights_and_not_the_folder(family_folder: dict[str, str], own_folder: Path) -> None:
    original = resolve(family_folder["llama"])
    assert resolve(str(own_folder)).fingerprint == original.fingerprint
    assert resolve(family_folder["mistral"]).fingerprint != original.fingerprint
    weights = own_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    assert resolve(str(own_folder)).fingerprint != original.fingerprint


def test_tokenizer_hash_tells_the_two_nano_tokenizers_apart(family_folder: dict[str, str]) -> None:
    assert resolve("nano-llama").tokenizer_hash != resolve("nano-mistral").tokenizer_hash
    assert resolve("nano-llama").tokenizer_hash == resolve("nano-llama").tokenizer_hash
    assert resolve(family_folder["gemma3"]).tokenizer_hash == resolve(family_folder["phi3"]).tokenizer_hash


def test_fingerprint_follows_a_tensor_in_the_middle(tmp_path: Path) -> None:
    """As of a copy that was tuned in some layers: the file's size, header and ends stay as they are."""
    import transformers as t

    torch.manual_seed(0)
    config = t.LlamaConfig(
        vocab_size=4096, hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
        bos_token_id=1, eos_token_id=2, tie_word_embeddings=False,
    )  # fmt: skip
    model = t.LlamaForCausalLM(config)
    prints = []
    for name in ("first", "again", "tuned"):
        if name == "tuned":
            with torch.no_grad():
                model.model.layers[1].self_attn.q_proj.weight[64, 64] += 1e-3
        model.save_pretrained(tmp_path / name)
        prints.append(resolve(str(tmp_path / name)).fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_what_is_fetched_holds_all_that_a_folder_needs(tmp_path: Path) -> None:
    from fnmatch import fnmatch

    tokenizer = resolve("nano-llama").tokenizer
    tokenizer.chat_template = "{{ messages }}"
    tokenizer.save_pretrained(tmp_path)
    names = [path.name for path in tmp_path.iterdir()]
    assert "chat_template.jinja" in names
    assert [name for name in names if not any(fnmatch(name, pattern) for pattern in FETCHED)] == []


@pytest.mark.parametrize("load", LOADERS)
def test_weights_that_the_files_lack_are_not_drawn(load: Callable[..., Any], own_folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = own_folder / "model.safetensors"
    tensors = load_file(weights)
    tensors.pop("model.layers.0.mlp.up_proj.weight")
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 tensors, the first is '.*layers\.0\.mlp\.up_proj\.weight'"):
        load(str(own_folder))


@pytest.mark.parametrize(
    ("config", "named"),
    [("GPT2Config", "GPT2LMHeadModel"), ("GPTNeoXConfig", "GPTNeoXForCausalLM"), ("BloomConfig", "BloomForCausalLM")],
)
def test_families_that_are_built_otherwise_are_named(config: str, named: str, tmp_path: Path) -> None:
    import transformers as t

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 2048}
    getattr(t, named)(getattr(t, config)(**sizes)).save_pretrained(tmp_path)
    resolve("nano-llama").tokenizer.save_pretrained(tmp_path)
    for load in LOADERS:
        with pytest.raises(ModelError, match="is not built as LatentWire needs it"):
            load(str(tmp_path), device="cpu")


def test_a_tokenizer_without_an_end_is_named(own_folder: Path) -> None:
    tokenizer = resolve("nano-llama").tokenizer
    tokenizer.eos_token = None
    tokenizer.save_pretrained(own_folder)
    with pytest.raises(ModelError, match="has no end-of-text token"):
        load_receiver(str(own_folder)).answer_ids(Prompt("", "What?"), "47")


@pytest.mark.parametrize("layer", [0, 2, 4])
def test_the_language_model_inside_one_that_sees_images_is_read_as_it_is(layer: int, tmp_path: Path) -> None:
    import transformers as t

    text = {
        "vocab_size": 2048, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "sliding_window": 64,
    }  # fmt: skip
    vision = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    torch.manual_seed(0)
    t.Gemma3ForConditionalGeneration(t.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)).save_pretrained(
        tmp_path
    )
    resolve("nano-llama").tokenizer.save_pretrained(tmp_path)
    whole = load_sender(str(tmp_path), layer=layer, full=True, device="cpu").read(["Maria left 47 apples."]).states
    for _ in range(2):
        assert torch.equal(load_sender(str(tmp_path), layer=layer, device="cpu").read(["Maria left 47 apples."]).states, whole)
