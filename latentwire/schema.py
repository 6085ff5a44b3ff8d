"""Configuration objects: frozen, closed to unknown keys, and clear about what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from latentwire.errors import ConfigError, suggestion

Model = TypeVar("Model", bound="Schema")


class Schema(BaseModel):
    """Base of every configuration object."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def validated(schema: type[Model], value: Mapping[str, Any], *, where: str) -> Model:
    """``schema`` built from ``value``. Raises ``ConfigError`` with one line about the first problem."""
    try:
        return schema.model_validate(dict(value))
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = _known_keys(schema, first["loc"][:-1])
            raise ConfigError(f"{where}: unknown key {path!r}; {suggestion(str(first['loc'][-1]), known)}") from None
        if first["type"] == "missing":
            raise ConfigError(f"{where}: key {path!r} is missing") from None
        # a rule over several keys has no path, and its input is the whole mapping
        given = f"{path} = {first['input']!r} does not fit: " if path else ""
        raise ConfigError(f"{where}: {given}{_in_plain_words(first)}") from None


def _in_plain_words(error: Any) -> str:
    """What pydantic found, without the names of Python's types where a user wrote YAML."""
    kind = str(error["type"])
    if kind in ("tuple_type", "list_type"):
        return "write a list, such as [a, b]"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return "it is a group of settings; set one of its keys"
    if kind == "string_type" and isinstance(error["input"], bool):
        return "YAML reads a bare yes, no, on or off as true or false; put it in quotes"
    return str(error["msg"]).removeprefix("Value error, ")


def _known_keys(schema: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Keys allowed at ``path`` inside ``schema``."""
    for part in path:
        field = schema.model_fields.get(str(part))
        annotation = field.annotation if field else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        nested = [item for item in candidates if isinstance(item, type) and issubclass(item, BaseModel)]
        if not nested:
            return []
        schema = nested[0]
    return list(schema.model_fields)


@dataclass(frozen=True)
class Setting:
    """One setting under its dotted name: what it may be, in words, its default and what it does."""

    name: str
    allowed: str
    default: Any
    what: str


def settings_in(schema: type[BaseModel], prefix: str = "") -> list[Setting]:
    """Every setting of ``schema`` in its order, groups taken apart."""
    found = []
    for key, field in schema.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found += settings_in(kind, f"{prefix}{key}.")
        else:
            default = "required" if field.is_required() else field.get_default(call_default_factory=True)
            found.append(Setting(f"{prefix}{key}", _allowed(field), default, field.description or ""))
    return found


#: how bounds are written
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
_KINDS = {int: "whole number", float: "number", str: "text", bool: "true | false"}


def _allowed(field: FieldInfo) -> str:
    """For example ``whole number ≥ 1 | null``."""
    signs = [(item, key) for item in field.metadata for key in _BOUNDS if hasattr(item, key)]
    bounds = " and ".join(f"{_BOUNDS[key]} {getattr(item, key)}" for item, key in signs)
    several = get_origin(field.annotation) in (Union, UnionType)
    kinds = get_args(field.annotation) if several else (field.annotation,)
    return " | ".join("null" if kind is type(None) else f"{_in_words(kind)} {bounds}".rstrip() for kind in kinds)


def _in_words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " | ".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        return f"list of {_KINDS[get_args(kind)[0]]}s"
    return _KINDS.get(kind, "group")
