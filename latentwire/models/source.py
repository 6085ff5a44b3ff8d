"""Where a language model comes from: an embedded name, a local folder, or a Hub id, always with a fingerprint."""

from __future__ import annotations

import re
from collections.abc import Iterator
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
    def config(self) -> PretrainedConfig:
        from transformers import AutoConfig

        with explained(self):
            config = AutoConfig.from_pretrained(self.location, **self.load_arguments())
        # models that also see images keep the language model's numbers one level down
        return config.get_text_config()

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
        """Changes when the weights do: the commit for a Hub model, the files' headers and ends for a folder."""
        commit = getattr(self.config, "_commit_hash", None)
        if not self.is_local:
            return f"{self.location}@{commit or self.revision or 'main'}"
        parts: list[bytes | str] = [(Path(self.location) / "config.json").read_bytes()]
        for path in sorted(Path(self.location).glob("*.safetensors")):
            with path.open("rb") as file:
                head = file.read(1 << 16)
                file.seek(max(0, path.stat().st_size - (1 << 20)))
                parts += [str(path.stat().st_size), head, file.read()]
        return digest(*parts)[:16]


def resolve(name: str, revision: str | None = None) -> ModelSource:
    """Finds a model by embedded name (newest version when none is given), folder or Hub id.

    Raises:
        UnknownNameError: ``name`` is none of the three.
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
        return str(
            snapshot_download(
                source.location, revision=revision, allow_patterns=["*.json", "*.safetensors", "tokenizer.model", "*.txt"]
            )
        )


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
