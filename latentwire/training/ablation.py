"""Ablations: the runs that one command trains, each differing from the base in one setting (or in all combinations).

A run of an ablation is an ordinary run in a folder of its own, named after what it changes, so that a command that was stopped
goes on where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean

from latentwire.config import RunConfig, load_config
from latentwire.errors import UsageError

BASE = "base"


@dataclass(frozen=True)
class Variation:
    """One way of training, with one config per seed."""

    name: str
    overrides: tuple[str, ...]
    configs: tuple[RunConfig, ...]


def variations(
    config: str | Path, overrides: Sequence[str], vary: Sequence[str], seeds: Sequence[int], folder: Path, *, grid: bool = False
) -> list[Variation]:
    """The base and what differs from it: every value of every ``key=value,value`` alone, or with ``grid`` every combination.

    Raises:
        UsageError: a ``vary`` has no values. ConfigError: a key or value does not fit; nothing has been trained by then.
    """
    axes = [_axis(text) for text in vary]
    combinations: list[tuple[str, ...]] = [()]
    combinations += list(product(*axes)) if grid else [(value,) for axis in axes for value in axis]
    found = []
    for changed in combinations:
        name = " ".join(changed) or BASE
        configs = [load_config(config, [*overrides, *changed, f"seed={seed}"]) for seed in seeds]
        placed = [
            item.model_copy(update={"output_dir": str(folder / _folder_name(changed) / f"seed{item.seed}")}) for item in configs
        ]
        found.append(Variation(name, changed, tuple(placed)))
    return found


def _axis(text: str) -> list[str]:
    """``a.b=1,2`` as ``a.b=1`` and ``a.b=2``; commas inside brackets do not separate."""
    key, separator, values = text.partition("=")
    if not separator or not values.strip():
        raise UsageError(f"--vary {text!r} names no values; write --vary key.path=value,value")
    if key.strip() == "seed":
        raise UsageError(f"--vary {text!r} does not fit: every variation runs with all seeds; write --seeds {values.strip()}")
    depth, parts = 0, [""]
    for character in values:
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [f"{key.strip()}={value.strip()}" for value in parts]


def _folder_name(changed: Sequence[str]) -> str:
    name = "+".join(changed) or BASE
    return "".join(character if character.isalnum() or character in "._=+-" else "_" for character in name)


def ablation_rows(done: Mapping[str, Sequence[float]]) -> list[dict[str, object]]:
    """One entry per variation: mean validation score, its difference from the base in points, and every seed's value."""
    base = mean(done[BASE])
    return [
        {
            "variation": name,
            "validation": round(mean(scores), 5),
            "difference_points": round(100 * (mean(scores) - base), 2),
            "by_seed": [round(score, 5) for score in scores],
        }
        for name, scores in done.items()
    ]
