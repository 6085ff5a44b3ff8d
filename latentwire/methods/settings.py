"""What the baselines can be told beside the run's config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from latentwire.errors import UsageError
from latentwire.schema import Schema, validated


class MethodSettings(Schema):
    """What the baselines can be told; the bridge and the training settings come with the run's config."""

    shots: int = Field(5, ge=1, description="fewshot: solved examples in the prompt")
    relay_tokens: int = Field(64, ge=1, description="text_relay: sender tokens of a note at most")
    reasoning_tokens: int = Field(128, ge=1, description="cot_relay: sender tokens of a chain of thought at most")
    rank: int = Field(8, ge=1, description="lora, dora: rank of the adapters")
    virtual_tokens: int = Field(8, ge=1, description="prompt_tuning, prior: learned tokens")
    option_scores: Literal["all", "contenders"] = Field(
        "all", description="contenders: exact only for options that can still win; the others get a bound that they cannot exceed"
    )
    tuning_steps: int | None = Field(None, ge=1, description="lora, dora, prompt_tuning, prior: steps; default: the bridge's")
    adapter_lr: float = Field(1e-3, gt=0, description="lora, dora: peak learning rate (AdamW)")
    prompt_lr: float = Field(1e-2, gt=0, description="prompt_tuning, prior: peak learning rate (AdamW)")


def method_settings(overrides: Sequence[str], *, where: str = "--method_set") -> MethodSettings:
    """The settings with ``name=value`` applied; ``where`` is what errors call the place they stand in.

    Raises:
        UsageError: an override is not of that form. ConfigError: a name or value does not fit.
    """
    import yaml

    values = {}
    for override in overrides:
        name, separator, text = override.partition("=")
        if not separator:
            raise UsageError(f"{where} {override!r} does not fit; write name=value, for example shots=3")
        try:
            values[name.strip()] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UsageError(f"{where} {override!r} does not fit: {text!r} is not a YAML value") from None
    return validated(MethodSettings, values, where=where)
