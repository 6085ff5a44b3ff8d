"""What every bridge is: a float32 module from sender states to soft tokens at the scale of the receiver's embeddings.

Shapes: B rows, S sender tokens, K soft tokens, D_s / D_r sender / receiver width.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from latentwire.errors import ArtefactError, MismatchError
from latentwire.files import read_json, replacing, write_json
from latentwire.messages.settings import MessageSettings
from latentwire.models.products import with_fast_products
from latentwire.models.receiver import Receiver
from latentwire.models.sender import Layer, Sender, SenderStates
from latentwire.models.soft_tokens import SoftTokens
from latentwire.schema import Schema, validated

CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.json", "model.safetensors", "README.md"
SCHEMA_VERSION = 1


class BridgeConfig(Schema):
    """Settings of a bridge that do not depend on the pair of models."""

    name: str
    init: str | None = Field(None, description="folder of a trained bridge of the same shape and pair to begin with")
    gain: float = Field(1.0, gt=0, description="scale of soft tokens at first, in units of that of the receiver's embeddings")
    stride: int = Field(
        1, ge=1, description="positions of the receiver that a soft token takes up; R stands words where they stand in the text"
    )
    unfold: int = Field(
        0,
        ge=0,
        le=256,
        description="vectors, learned and the same for all messages, that the receiver reads behind each soft token; never sent",
    )
    unfold_start: Literal["listening", "drawn"] = Field(
        "listening", description="where these begin: in vectors that make the receiver take notice of soft tokens, or at random"
    )
    skip: int = Field(
        0, ge=0, description="sender tokens with which all contexts begin alike; the bridge does not read them, so none is sent"
    )

    @property
    def knows_at_first(self) -> bool:
        """Whether the bridge says something before any step of training."""
        return self.init is not None

    @property
    def sender_tokens_per_soft_token(self) -> int | None:
        """R where every R sender tokens give one soft token in their order, else None."""
        return None

    @property
    def fixed_soft_tokens(self) -> int | None:
        """K where every message has K soft tokens, else None."""
        return None

    def skipped(self, sender_tokens: int) -> int:
        """How many tokens of a context of so many the bridge does not read: ``skip``, and none of a context that has no others."""
        return self.skip if sender_tokens > self.skip else 0

    def soft_tokens_of(self, sender_tokens: int) -> int | None:
        """K for a context of so many sender tokens; None where the bridge does not say."""
        size = self.sender_tokens_per_soft_token
        return self.fixed_soft_tokens if size is None else -(-(sender_tokens - self.skipped(sender_tokens)) // size)

    @property
    def sees_groups(self) -> tuple[int, int] | None:
        """How many groups of R sender tokens before and behind its own a soft token sees; None: all of them."""
        return 0, 0

    @property
    def mixes_layers(self) -> bool:
        """Whether the bridge needs several hidden states of the sender."""
        return False

    @abstractmethod
    def build(self, ends: BridgeEnds) -> Bridge:
        """A freshly initialised bridge between models of these widths."""

    @property
    @abstractmethod
    def rate(self) -> str:
        """How many soft tokens a message has, in words."""

    def describe_rate(self) -> str:
        """How many soft tokens a message has and what the receiver reads beside them, in words."""
        skipped = f" behind the first {self.skip}" if self.skip else ""
        unfolded = f", unfolded by {self.unfold} vector{'s' if self.unfold > 1 else ''} each" if self.unfold else ""
        return self.rate + skipped + unfolded

    def num_params(self, ends: BridgeEnds) -> int:
        """Trainable parameters, counted without allocating them."""
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in self.build(ends).parameters())


class BridgeEnds(Schema):
    """What a bridge must know of the two models: their widths and the scale of the receiver's embeddings.

    ``sender_width`` is that of all ``sender_layers`` hidden states side by side.
    """

    sender_width: int
    sender_layers: int = 1
    receiver_width: int
    receiver_rms: float

    @model_validator(mode="after")
    def _whole_layers(self) -> BridgeEnds:
        if self.sender_width % self.sender_layers:
            raise ValueError(f"sender_width = {self.sender_width} is not that of {self.sender_layers} layers")
        return self


class ModelIdentity(Schema):
    """One of the two models, exactly enough to refuse another."""

    name: str
    revision: str | None
    fingerprint: str
    tokenizer_hash: str


class BridgePair(Schema):
    """The models a bridge was trained between, the sender layer it reads and the prompts it was trained with."""

    sender: ModelIdentity
    receiver: ModelIdentity
    sender_layer: Layer
    sender_prompt: str
    receiver_prompt: str
    #: ``plain``, or ``chat:`` with a hash of the template (``latentwire.models.chat.Prompter.style``)
    sender_style: str = "plain"
    receiver_style: str = "plain"

    def check(
        self,
        *,
        sender: ModelIdentity,
        receiver: ModelIdentity,
        sender_layer: Layer,
        sender_style: str = "plain",
        receiver_style: str = "plain",
    ) -> None:
        """Raises ``MismatchError`` that names both values when any part differs."""
        pairs = [
            ("sender weights", self.sender.fingerprint, sender.fingerprint, self.sender.name, sender.name),
            ("sender tokenizer", self.sender.tokenizer_hash, sender.tokenizer_hash, self.sender.name, sender.name),
            ("receiver weights", self.receiver.fingerprint, receiver.fingerprint, self.receiver.name, receiver.name),
            ("receiver tokenizer", self.receiver.tokenizer_hash, receiver.tokenizer_hash, self.receiver.name, receiver.name),
            ("sender layer", str(self.sender_layer), str(sender_layer), self.sender.name, sender.name),
            ("sender prompt style", self.sender_style, sender_style, self.sender.name, sender.name),
            ("receiver prompt style", self.receiver_style, receiver_style, self.receiver.name, receiver.name),
        ]
        for what, trained, given, trained_name, given_name in pairs:
            if trained != given:
                raise MismatchError(
                    f"this bridge was trained with {what} {trained} of {trained_name!r}, given are {given} of {given_name!r}; "
                    "load the models named in its config.json or train a bridge for this pair"
                )

    def check_models(self, sender: Sender, receiver: Receiver) -> None:
        """As ``check``, for loaded models."""
        self.check(
            sender=identity_of(sender.source),
            receiver=identity_of(receiver.source),
            sender_layer=sender.layer,
            sender_style=sender.prompter.style,
            receiver_style=receiver.prompter.style,
        )


class Bridge(nn.Module):
    """Base class. A subclass implements ``vectors``; scaling, saving and loading are the same for all.

    Args:
        config: the bridge's own settings.
        ends: widths and scale of the two models.
    """

    def __init__(self, config: BridgeConfig, ends: BridgeEnds) -> None:
        super().__init__()
        self.config, self.ends = config, ends
        self.pair: BridgePair | None = None
        #: how its messages are packed and what rides beside them; what it was trained with
        self.message = MessageSettings()
        #: learned; the longer a vector, the less of it the receiver's layers write over
        self.gain = nn.Parameter(torch.tensor(config.gain))
        #: places where the receiver's layers take apart what a soft token says; units of the scale of its embeddings
        self.unfold_embeddings = nn.Parameter(torch.randn(config.unfold, ends.receiver_width)) if config.unfold else None

    @abstractmethod
    def vectors(
        self, states: Float[Tensor, "B S D_s"], mask: Bool[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B K D_r"], Bool[Tensor, "B K"]]:
        """Unscaled soft tokens and the mask of real ones."""

    def forward(self, read: SenderStates) -> SoftTokens:
        """Soft tokens whose root mean square is ``gain`` times that of the receiver's embeddings."""
        # the sender may be on another device
        states, mask = _behind(read.states.to(self.gain.device).float(), read.mask.to(self.gain.device), self.config.skip)
        vectors, mask = self.vectors(states, mask)
        vectors = vectors * torch.rsqrt(vectors.pow(2).mean(-1, keepdim=True) + 1e-6)
        vectors = vectors * (self.ends.receiver_rms * self.gain) * mask[..., None]
        unfold = None if self.unfold_embeddings is None else self.unfold_embeddings * self.ends.receiver_rms
        return SoftTokens(vectors, mask, stride=self.config.stride, unfold=unfold)

    def with_finite_weights(self) -> Bridge:
        """This bridge. Raises ``ArtefactError`` where a weight is no finite number: nothing can be measured of it."""
        for name, weight in self.state_dict().items():
            if not bool(torch.isfinite(weight).all()):
                raise ArtefactError(
                    f"the weights {name!r} of this bridge are no finite numbers, so its training failed; "
                    "train it again with a lower training.lr"
                )
        return self

    @property
    def num_params(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    # ------------------------------------------------------------------------------------------------ save and load

    def save_pretrained(self, folder: str | Path, *, card: str | None = None) -> None:
        """Writes ``config.json``, ``model.safetensors`` and, where given, the card."""
        from safetensors.torch import save

        folder = Path(folder)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        with replacing(folder / WEIGHTS_FILE) as temporary:
            temporary.write_bytes(save(weights))
        if card is not None:
            with replacing(folder / CARD_FILE) as temporary:
                temporary.write_text(card, encoding="utf-8")
        write_json(
            folder / CONFIG_FILE,
            {
                "schema_version": SCHEMA_VERSION,
                "bridge": self.config.model_dump(exclude={"init"}),
                "ends": self.ends.model_dump(),
                "pair": self.pair.model_dump() if self.pair else None,
                "message": self.message.model_dump(),
            },
        )

    @staticmethod
    def from_pretrained(location: str | Path, *, revision: str | None = None, device: str | torch.device = "cpu") -> Bridge:
        """The bridge in a local folder or a Hub repository, in eval mode.

        Raises:
            ArtefactError: files are missing, cut or of another schema.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from latentwire.bridges import bridge_config

        folder = _local_folder(location, revision)
        content = read_json(folder / CONFIG_FILE, what="bridge config", mend="copy the bridge again, or train it again")
        if isinstance(content, dict) and "identity" in content and (folder / "bridge").is_dir():
            raise ArtefactError(f"{str(folder)!r} is a run; give the bridge in it, {str(folder / 'bridge')!r}")
        if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
            found = content.get("schema_version") if isinstance(content, dict) else None
            raise ArtefactError(f"{str(folder / CONFIG_FILE)!r} has schema {found!r}, this version reads {SCHEMA_VERSION}")
        missing = sorted({"bridge", "ends", "pair"} - set(content))
        if missing:
            raise ArtefactError(f"{str(folder / CONFIG_FILE)!r} is cut or corrupt: {missing[0]!r} is missing")
        config = bridge_config(content["bridge"], where=str(folder / CONFIG_FILE))
        bridge = config.build(validated(BridgeEnds, content["ends"], where=str(folder / CONFIG_FILE)))
        if content["pair"] is not None:
            bridge.pair = validated(BridgePair, content["pair"], where=str(folder / CONFIG_FILE))
        # bridges from before there was a choice say nothing about it
        bridge.message = validated(MessageSettings, content.get("message", {}), where=f"{folder / CONFIG_FILE}: message")
        try:
            bridge.load_state_dict(load_file(folder / WEIGHTS_FILE))
        except (SafetensorError, RuntimeError, OSError) as error:
            first_line = (str(error).splitlines() or [type(error).__name__])[0]
            raise ArtefactError(f"bridge weights {str(folder / WEIGHTS_FILE)!r} are cut or corrupt: {first_line}") from error
        return with_fast_products(bridge.to(device)).eval()

    def push_to_hub(self, repo_id: str, *, card: str | None = None, private: bool = False) -> str:
        """Uploads the artefact to the Hub; returns the address of the commit."""
        from tempfile import TemporaryDirectory

        from huggingface_hub import HfApi

        api = HfApi()
        api.create_repo(repo_id, private=private, exist_ok=True)
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, card=card)
            return str(api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload LatentWire bridge"))


def _behind(
    states: Float[Tensor, "B S D_s"], mask: Bool[Tensor, "B S"], skip: int
) -> tuple[Float[Tensor, "B T D_s"], Bool[Tensor, "B T"]]:
    """What stands behind the first ``skip`` tokens of each context, and all of a context that has no others."""
    if not skip:
        return states, mask
    length = mask.shape[1]
    # as long as the longest may be, without asking the device which it is
    places = torch.arange(max(length - skip, min(length, skip)), device=mask.device)
    # as long as it was before training hid some of its tokens
    tokens = (mask * torch.arange(1, length + 1, device=mask.device)).amax(dim=1, keepdim=True)
    places = places + torch.where(tokens > skip, skip, 0)
    inside = places.clamp(max=length - 1)
    mask = mask.gather(1, inside) & (places < length)
    return states.gather(1, inside[..., None].expand(-1, -1, states.shape[2])), mask


def _local_folder(location: str | Path, revision: str | None) -> Path:
    folder = Path(location).expanduser()
    if folder.is_dir():
        return folder
    text = str(location)
    if text.count("/") == 1 and not text.startswith((".", "/", "runs/")):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            return Path(snapshot_download(text, revision=revision, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE, CARD_FILE]))
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            first_line = str(error).splitlines()[0]
            raise ArtefactError(f"no bridge at {text!r}: no such folder, and the Hub says {first_line}") from error
    raise ArtefactError(f"no bridge at {text!r}: no such folder; train one with `latentwire train` or run `make demo`")


def identity_of(source: Any) -> ModelIdentity:
    """The identity of a resolved model (``latentwire.models.source.ModelSource``)."""
    return ModelIdentity(
        name=source.name, revision=source.revision, fingerprint=source.fingerprint, tokenizer_hash=source.tokenizer_hash
    )
