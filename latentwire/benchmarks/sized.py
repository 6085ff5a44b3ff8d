"""A sized pair made on the spot: random models of more weight than the embedded pair, with its tokenizers and an untrained bridge.

For cost only: what such a pair answers means nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from latentwire.bridges.base import WEIGHTS_FILE
from latentwire.config import ARTEFACT_FOLDER, CONFIG_FILE, RunConfig, build_config
from latentwire.errors import UsageError
from latentwire.evaluation.run_folder import run_settings
from latentwire.files import write_json
from latentwire.models.source import resolve
from latentwire.training.run import load_pair, new_bridge

#: the paper's: eight soft tokens, whatever the context
BRIDGE: dict[str, Any] = {"name": "perceiver", "soft_tokens": 8}


@dataclass(frozen=True)
class EndSize:
    """Shape of one random model."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int = 16_384


@dataclass(frozen=True)
class PairSize:
    """A pair: sender (Llama) and receiver (Mistral)."""

    sender: EndSize
    receiver: EndSize
    sender_layer: int


#: 100 M → 60 M parameters
FULL = PairSize(EndSize(768, 2048, 14, 12, 12), EndSize(640, 1728, 12, 10, 10), 7)
#: for tests
SMALL = PairSize(EndSize(64, 128, 4, 4, 4, 1024), EndSize(48, 96, 3, 4, 4, 1024), 2)


def make_sized_pair(
    folder: Path, size: PairSize = FULL, *, task: str = "tinyworld_record1", say: Callable[[str], None] = lambda line: None
) -> Path:
    """Writes models, config and bridge into ``folder``, a run folder for every command; such a pair that is there is kept.

    Raises ``UsageError`` where the folder holds another run.
    """
    if (folder / CONFIG_FILE).exists():
        settings = run_settings(folder)
        if settings.get("sender", {}).get("model") != str(folder / "sender"):
            raise UsageError(f"{str(folder)!r} holds a run; leave out --sized to measure it, or give another folder for the pair")
        if (folder / ARTEFACT_FOLDER / WEIGHTS_FILE).is_file():
            return folder
    say(f"making a random pair in {folder}")
    names = {
        "sender": _model(folder / "sender", "nano-llama", size.sender),
        "receiver": _model(folder / "receiver", "nano-mistral", size.receiver),
    }
    config = build_config(
        {
            "task": task,
            "sender": {"model": names["sender"], "layer": size.sender_layer},
            "receiver": {"model": names["receiver"]},
            "bridge": BRIDGE,
        },
        where="sized pair",
    )
    _bridge(config, folder)
    return folder


def _model(folder: Path, tokenizer_of: str, size: EndSize) -> str:
    """A random model in the family of an embedded one, with its tokenizer; returns the folder's name."""
    from transformers import AutoModelForCausalLM

    source = resolve(tokenizer_of)
    config = type(source.config)(
        **{
            **{key: getattr(source.config, key) for key in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")},
            **vars(size),
            "tie_word_embeddings": True,
        }
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=0.1)
    model.save_pretrained(folder)
    source.tokenizer.save_pretrained(folder)
    return str(folder)


def _bridge(config: RunConfig, folder: Path) -> None:
    sender, receiver = load_pair(config, device="cpu")
    bridge = new_bridge(config, sender, receiver)
    write_json(
        folder / CONFIG_FILE, {"identity": config.identity, "config": config.model_dump(mode="json", exclude={"output_dir": True})}
    )
    bridge.save_pretrained(folder / ARTEFACT_FOLDER)
