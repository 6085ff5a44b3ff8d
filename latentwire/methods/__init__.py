"""Methods: everything that answers a task. One file each, one line here each; all run through one evaluator.

To add one: write ``latentwire/methods/NAME.py`` with a ``Method`` subclass, add its line below, describe it in
``docs/architecture.md``. The contract tests run over everything in this table.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from latentwire.errors import UnknownNameError

if TYPE_CHECKING:
    from latentwire.methods.base import Method, Parts

#: name → class, loaded on first use
METHODS: dict[str, str] = {
    "receiver_only": "latentwire.methods.receiver_only:ReceiverOnly",
    "receiver_text": "latentwire.methods.receiver_text:ReceiverText",
    "text_relay": "latentwire.methods.text_relay:TextRelay",
    "bridge": "latentwire.methods.bridge:BridgeMethod",
}


def build_method(name: str, parts: Parts) -> Method:
    """The method ``name`` over the loaded models. Raises ``UnknownNameError``."""
    if name not in METHODS:
        raise UnknownNameError("method", name, METHODS)
    module, _, attribute = METHODS[name].partition(":")
    method: Method = getattr(import_module(module), attribute)(parts)
    return method
