"""Self-bridge: the receiver as its own sender. What it gains over the receiver alone needs no second model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from latentwire.bridges import bridge_config
from latentwire.errors import UsageError
from latentwire.methods.base import FitData, Parts
from latentwire.methods.bridge import BridgeMethod
from latentwire.models.sender import as_layers, load_sender


class SelfBridge(BridgeMethod):
    """The same bridge with the receiver as its own sender: what is left to a second model?"""

    name = "self_bridge"

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.bridge = None  # a bridge from the other sender cannot read this one

    @property
    def label(self) -> str:
        return f"{self.name}{self.message.suffix}"

    def fit(self, data: FitData) -> dict[str, Any]:
        """Reads the receiver at half of its depth, or at the config's layer where the receiver has it.

        It begins from fresh weights: a bridge that ``bridge.init`` names was trained for the other sender.
        """
        own = data.config.receiver
        depth: int = self.parts.receiver.source.config.num_hidden_layers
        layer = data.config.sender.layer
        layer = layer if layer is not None and max(as_layers(layer)) <= depth else None
        self.sender = load_sender(
            own.model, layer=layer, revision=own.revision, device=data.device or own.device, dtype=own.dtype,
            prompt_style=data.config.prompt_style,
        )  # fmt: skip
        settings = data.config.sender.model_copy(
            update={"model": own.model, "revision": own.revision, "device": own.device, "layer": layer}
        )
        bridge = {**data.config.bridge, "init": None}
        if not data.config.training.steps and not bridge_config(bridge).knows_at_first:
            raise UsageError("self_bridge begins with a drawn bridge, and training.steps = 0 leaves it so; give 1 or more")
        changed = {"sender": settings, "bridge": bridge}
        return super().fit(replace(data, config=data.config.model_copy(update=changed)))
