"""Where a language model comes from: an embedded name, a local folder, or a Hub id, always with a fingerprint."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentwire.errors import ArtefactError, ModelError, UnknownNameError
from latentwire.files import digest
from latentwire.hub import silence_told_once

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

EMBEDDED_FOLDER = Path(__file__).parent / "nano" / "weights"
#: bytes of a piece of a tensor
_PIECE = 1 << 16
#: what a model's folder needs to be read without network
FETCHED = ("*.json", "*.jinja", "*.safetensors", "tokenizer.model", "*.txt")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def embedded_names() -> list[str]:
    """Embedded models with their versions, for example ``nano-llama@1``."""
    return sorted(folder.name for folder in EMBEDDED_FOLDER.glob("*@*") if (folder / "config.json").is_file())


@dataclass(frozen=True)
class ModelSource:
    """One resolved model. ``location`` is what transformers loads: a folder or a Hub id."""

    name: str
    location: str
    revision: str | None

    @property
    def is_local(self) -> bool:
        return Path(self.location).is_dir()

    def load_arguments(self) -> dict[str, Any]:
        """Arguments common to every ``from_pretrained`` call; remote code is never run."""
        arguments: dict[str, Any] = {"trust_remote_code": False}
        if not self.is_local:
            arguments["revision"] = self.revision
        return arguments

    @cached_property
    def _whole_config(self) -> PretrainedConfig:
        from transformers import AutoConfig

        with explained(self):
            return AutoConfig.from_pretrained(self.location, **self.load_arguments())

    @cached_property
    def config(self) -> PretrainedConfig:
        # models that also see images keep the language model's numbers one level down
        return self._whole_config.get_text_config()

    @property
    def is_part_of_a_model(self) -> bool:
        """Whether the language model is a part of one that also sees images."""
        return self._whole_config is not self.config

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        from transformers import AutoTokenizer

        with explained(self):
            return AutoTokenizer.from_pretrained(self.location, **self.load_arguments())

    @cached_property
    def tokenizer_hash(self) -> str:
        """Changes when any text could be cut into other tokens."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        content = backend.to_str() if backend is not None else repr(sorted(self.tokenizer.get_vocab().items()))
        return digest(content, repr(self.tokenizer.special_tokens_map))[:16]

    @cached_property
    def fingerprint(self) -> str:
        """Changes when the weights do: the commit for a Hub model; for a folder parts of every tensor, small ones whole."""
        commit = getattr(self.config, "_commit_hash", None)
        if not self.is_local:
            return f"{self.location}@{commit or self.revision or 'main'}"
        parts: list[bytes | str] = [(Path(self.location) / "config.json").read_bytes()]
        for path in sorted(Path(self.location).glob("*.safetensors")):
            parts += _looked_at(path)
        return digest(*parts)[:16]


def _looked_at(path: Path) -> Iterator[bytes | str]:
    """Of a safetensors file: its size, its header, and the beginning, middle and end of every tensor.

    All of them are looked at, since a fine-tuned copy may differ in a few alone.
    """
    size = path.stat().st_size
    yield str(size)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > size:
            return  # cut; reading the weights says so
        header = file.read(length)
        yield header
        try:
            spans = sorted(entry["data_offsets"] for name, entry in json.loads(header).items() if name != "__metadata__")
        except (ValueError, KeyError, TypeError, AttributeError):
            return
        for first, end in spans:
            places = {first, max(first, (first + end - _PIECE) // 2), max(first, end - _PIECE)}
            for place in sorted(places):
                file.seek(8 + length + place)
                yield file.read(min(_PIECE, end - place))


def check_config(source: ModelSource) -> None:
    """Raises ``ModelError`` where the config lacks what LatentWire needs to know; nothing else is read."""
    config = source.config
    missing = [key for key in ("num_hidden_layers", "hidden_size", "max_position_embeddings") if not hasattr(config, key)]
    if missing:
        raise _unsupported(source, f"its config has no {missing[0]}")


def check_loaded(source: ModelSource, decoder: object, found: Mapping[str, Any]) -> None:
    """Looks at a loaded model and at what its loading says (``output_loading_info``).

    Raises:
        ModelError: weights were drawn at random, because the files have none for them; or the decoder is not built as blocks
            ``layers`` and a final ``norm``, which is where senders are cut.
    """
    missing = [part for part in ("layers", "norm") if not hasattr(decoder, part)]
    if missing:
        raise _unsupported(source, f"it has no {missing[0]!r}")
    if drawn := sorted(found["missing_keys"]):
        raise ModelError(
            f"the weights of {source.name!r} lack {len(drawn)} tensors, the first is {drawn[0]!r}; give a whole checkpoint"
        )


def _unsupported(source: ModelSource, why: str) -> ModelError:
    return ModelError(
        f"model {source.name!r} ({source.config.model_type}) is not built as LatentWire needs it ({why}); families that are: "
        "Llama, Mistral, Qwen, Gemma, Phi-3, SmolLM, OLMo, Granite"
    )


def resolve(name: str, revision: str | None = None) -> ModelSource:
    """Finds a model by embedded name (newest version when none is given), folder or Hub id.

    Raises:
        UnknownNameError: ``name`` is none of the three. ModelError: the folder holds no model.
    """
    embedded = embedded_names()
    if name in embedded:
        return ModelSource(name, str(EMBEDDED_FOLDER / name), None)
    versions = [known for known in embedded if known.split("@")[0] == name]
    if versions:
        newest = max(versions, key=lambda known: int(known.split("@")[1]))
        return ModelSource(newest, str(EMBEDDED_FOLDER / newest), None)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(f"folder {name!r} holds no config.json; give a folder written by save_pretrained")
        return ModelSource(name, str(folder), None)
    if _HUB_ID.fullmatch(name) and not name.startswith((".", "/")):
        return ModelSource(name, name, revision)
    raise UnknownNameError("model (no embedded name, no folder, no Hub id like org/name)", name, embedded)


def fetch_model(name: str, revision: str | None = None) -> str:
    """Downloads a Hub model's config, tokenizer and safetensors into the Hub cache; returns the folder."""
    from huggingface_hub import snapshot_download

    source = resolve(name, revision)
    if source.is_local:
        return source.location
    with explained(source):
        return str(snapshot_download(source.location, revision=revision, allow_patterns=list(FETCHED)))


@contextmanager
def explained(source: ModelSource) -> Iterator[None]:
    """Turns what transformers and the Hub raise into one line that says what to do."""
    from safetensors import SafetensorError
    from transformers.utils import logging

    # a truncated sender leaves the upper weights out on purpose; transformers would list every one of them
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with silence_told_once():
            yield
    except SafetensorError as error:
        raise ArtefactError(f"weights of {source.name!r} are cut or corrupt ({error}); fetch them again") from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        mend = (
            f"check the folder {source.location!r}"
            if source.is_local
            else "run `latentwire fetch CONFIG` on a node with network; gated models also need `hf auth login`"
        )
        raise ModelError(f"cannot load model {source.name!r}: {first_line}; {mend}") from error
    finally:
        logging.set_verbosity(verbosity)
