"""Shared fixtures. All annotations of shapes are checked at run time while the tests run."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from latentwire.models.receiver import Receiver

install_import_hook("latentwire", "beartype.beartype")

# No test touches the user's cache, a GPU or the network: set here for what runs before any fixture of a function does
# (fixtures of a module; huggingface_hub, which reads its variable once)
_CACHE = TemporaryDirectory(prefix="latentwire-tests-")
os.environ |= {"LATENTWIRE_CACHE": _CACHE.name, "LATENTWIRE_DEVICE": "cpu", "HF_HUB_OFFLINE": "1"}

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma3", "phi3")
WIDTH, DEPTH = 32, 4


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test caches no other finds."""
    monkeypatch.setenv("LATENTWIRE_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def receiver() -> Receiver:
    """The embedded receiver, loaded for the module."""
    from latentwire.models.receiver import load_receiver

    return load_receiver("nano-mistral", device="cpu")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real benchmark rows: LATENTWIRE_DATA, else a folder beside the checkout; tests that need them skip without."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("LATENTWIRE_DATA") or beside)
    if not folder.is_dir():
        pytest.skip("no benchmark rows: set LATENTWIRE_DATA to a folder with <set>/<split>.jsonl[.gz]")
    return folder


@pytest.fixture(scope="session")
def family_folder(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A small random model of every supported family, saved with the tokenizer of nano-llama: family → folder."""
    import torch
    import transformers as t

    from latentwire.models.source import resolve

    tokenizer = resolve("nano-llama").tokenizer
    classes = {
        "llama": (t.LlamaConfig, t.LlamaForCausalLM),
        "mistral": (t.MistralConfig, t.MistralForCausalLM),
        "qwen2": (t.Qwen2Config, t.Qwen2ForCausalLM),
        "qwen3": (t.Qwen3Config, t.Qwen3ForCausalLM),
        "gemma3": (t.Gemma3TextConfig, t.Gemma3ForCausalLM),
        "phi3": (t.Phi3Config, t.Phi3ForCausalLM),
    }
    folders = {}
    for family, (config_class, model_class) in classes.items():
        torch.manual_seed(0)
        head_dim = {"head_dim": 8} if family in ("gemma3", "qwen3") else {}
        config = config_class(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=64,
            num_hidden_layers=DEPTH,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
            **head_dim,
        )
        folder = tmp_path_factory.mktemp("families") / family
        model_class(config).eval().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        folders[family] = str(folder)
    return folders
