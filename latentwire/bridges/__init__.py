"""Bridges: small trained modules from sender states to soft tokens. One file each, one line here each.

To add one: write ``latentwire/bridges/NAME.py`` with a config and a ``Bridge`` subclass, add its line below, describe it
in ``docs/architecture.md``. The contract tests run over everything in this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from latentwire.errors import UnknownNameError

if TYPE_CHECKING:
    from latentwire.bridges.base import BridgeConfig

#: name → config class, loaded on first use
BRIDGES: dict[str, str] = {
    "perceiver": "latentwire.bridges.perceiver:PerceiverConfig",
    "pooled": "latentwire.bridges.pooled:PooledConfig",
    "attentive": "latentwire.bridges.attentive:AttentiveConfig",
    "multi_layer": "latentwire.bridges.multi_layer:MultiLayerConfig",
    "linear": "latentwire.bridges.linear:LinearConfig",
}


def bridge_config(settings: Mapping[str, Any], *, where: str = "bridge") -> BridgeConfig:
    """The config named by ``settings["name"]`` with the other settings as its fields.

    Raises:
        UnknownNameError: no such bridge. ConfigError: a setting does not fit.
    """
    from latentwire.schema import validated

    name = str(settings.get("name", "perceiver"))
    if name not in BRIDGES:
        raise UnknownNameError("bridge", name, BRIDGES)
    module, _, attribute = BRIDGES[name].partition(":")
    config_class = getattr(import_module(module), attribute)
    config: BridgeConfig = validated(config_class, {**settings, "name": name}, where=f"{where} {name!r}")
    return config
