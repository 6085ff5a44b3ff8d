"""How a message crosses: the number format of its soft tokens, and which words ride beside them as text."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from latentwire.errors import UnknownNameError
from latentwire.schema import Schema

Precision = Literal["auto", "float32", "bf16", "int8", "int4"]
PRECISIONS: tuple[Precision, ...] = ("auto", "float32", "bf16", "int8", "int4")

DEFAULT_BYTES = 32


class MessageSettings(Schema):
    """Stored with a trained bridge, so that whoever sends through it sends what it was trained with."""

    precision: Precision = Field("auto", description="number format of soft tokens; auto: that of the receiver")
    verbatim: Literal["off", "rules", "budget"] = Field(
        "off", description="words beside the soft tokens: none, by rule, or those that surprise the receiver most"
    )
    verbatim_bytes: int = Field(DEFAULT_BYTES, ge=1, description="budget: UTF-8 bytes of verbatim text at most")

    @field_validator("verbatim", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: Any) -> Any:
        # YAML reads a bare `off` as false
        return "off" if value is False else value

    @model_validator(mode="after")
    def _a_limit_needs_a_budget(self) -> MessageSettings:
        if self.verbatim != "budget" and self.verbatim_bytes != DEFAULT_BYTES:
            raise ValueError(
                f"verbatim_bytes = {self.verbatim_bytes} limits verbatim=budget only, and verbatim is {self.verbatim}; "
                "set verbatim=budget, or leave verbatim_bytes out"
            )
        return self

    @property
    def suffix(self) -> str:
        """What a method's label says beyond the default: ``+rules``, ``+budget32``, ``@int8``."""
        text = {"off": "", "rules": "+rules", "budget": f"+budget{self.verbatim_bytes}"}[self.verbatim]
        return text + ("" if self.precision == "auto" else f"@{self.precision}")

    def describe(self) -> str:
        """One line for people."""
        numbers = "the receiver's number format" if self.precision == "auto" else self.precision
        text = {
            "off": "no verbatim text",
            "rules": "verbatim text by rules",
            "budget": f"at most {self.verbatim_bytes} bytes of verbatim text",
        }[self.verbatim]
        return f"{numbers}, {text}"


def as_precision(name: str) -> Precision:
    """The precision of this name. Raises ``UnknownNameError`` where there is none."""
    for precision in PRECISIONS:
        if name == precision:
            return precision
    raise UnknownNameError("precision", name, PRECISIONS)
