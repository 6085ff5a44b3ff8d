"""Methods: everything that answers a task. One file each, one line here each; all run through one evaluator.

To add one: write ``latentwire/methods/NAME.py`` with a ``Method`` subclass, add its line below, describe it in
``docs/methods.md``. The contract tests run over everything in this table.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from latentwire.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from latentwire.methods.base import Method, Parts

#: name → class, loaded on first use
METHODS: dict[str, str] = {
    "receiver_only": "latentwire.methods.receiver_only:ReceiverOnly",
    "receiver_text": "latentwire.methods.receiver_text:ReceiverText",
    "sender_text": "latentwire.methods.sender_text:SenderText",
    "fewshot": "latentwire.methods.fewshot:FewShot",
    "text_relay": "latentwire.methods.text_relay:TextRelay",
    "cot_relay": "latentwire.methods.cot_relay:CotRelay",
    "answer_text": "latentwire.methods.answer_text:AnswerText",
    "label_byte": "latentwire.methods.label_byte:LabelByte",
    "linear_probe": "latentwire.methods.linear_probe:LinearProbe",
    "ensemble": "latentwire.methods.ensemble:Ensemble",
    "prior": "latentwire.methods.prior:Prior",
    "prompt_tuning": "latentwire.methods.prompt_tuning:PromptTuning",
    "lora": "latentwire.methods.lora:Lora",
    "dora": "latentwire.methods.dora:Dora",
    "ridge": "latentwire.methods.ridge:Ridge",
    "self_bridge": "latentwire.methods.self_bridge:SelfBridge",
    "bridge": "latentwire.methods.bridge:BridgeMethod",
}


def method_class(name: str) -> type[Method]:
    """The class behind a name of the table, or behind ``module:Class`` for a user's own method.

    Raises:
        UnknownNameError: no such method. UsageError: no such module or class.
    """
    module, separator, attribute = METHODS.get(name, name).partition(":")
    if not separator:
        raise UnknownNameError("method", name, METHODS)
    from latentwire.methods.base import Method

    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"method {name!r} cannot be loaded ({error}); write module:Class, importable from here") from None
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise UsageError(f"method {name!r} is no subclass of latentwire.methods.base.Method")
    return found


def build_method(name: str, parts: Parts) -> Method:
    """The method ``name`` over the loaded models; errors as in ``method_class``."""
    return method_class(name)(parts)
