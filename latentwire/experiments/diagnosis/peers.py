"""Runs that worked on the same task or with the same bridge, and in which settings they differ.

Standard library only, Python 3.9.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentwire.experiments.diagnosis.files import RunFiles, flattened, read_config, read_run
from latentwire.experiments.diagnosis.outputs import main_outputs
from latentwire.experiments.registry.model import Experiment, State

#: settings that give a run its place, not its result
PLACE_KEYS = ("output_dir", "seed")
MOST_PEERS = 40


@dataclass(frozen=True)
class Peer:
    """A completed run. ``score`` is its headline on the test split, else its validation; ``differences`` key → (here, there)."""

    name: str
    same_task: bool
    same_bridge: bool
    score: float
    chance: float
    folder: str
    differences: dict[str, tuple[Any, Any]]
    trainable_params: int | None = None

    @property
    def works(self) -> bool:
        return self.score > self.chance + 0.05


def tasks_of(config: Mapping[str, Any]) -> list[str]:
    """The tasks of a run config."""
    task = config.get("task", [])
    return [task] if isinstance(task, str) else [str(name) for name in task]


def bridge_of(config: Mapping[str, Any]) -> str:
    """The name of a config's bridge, empty where it says none."""
    bridge = config.get("bridge")
    return str(bridge.get("name", "")) if isinstance(bridge, Mapping) else ""


def config_differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted key → (value here, value there) for all settings that differ, those of the place aside; None stands for not set."""
    ours, theirs = flattened(here), flattened(there)
    keys = [*ours, *(key for key in theirs if key not in ours)]
    return {
        key: (_plain(ours.get(key)), _plain(theirs.get(key)))
        for key in keys
        if key not in PLACE_KEYS and _plain(ours.get(key)) != _plain(theirs.get(key))
    }


def find_peers(experiment: Experiment, run: RunFiles, others: Mapping[str, Experiment]) -> list[Peer]:
    """Completed runs of the same task or bridge, those with the fewest differing settings first."""
    found = []
    for other in others.values():
        config = other.config or read_config(other, run.root)
        same_task = bool(set(tasks_of(config)) & set(tasks_of(run.config)))
        same_bridge = bridge_of(config) != "" and bridge_of(config) == bridge_of(run.config)
        if other.name == experiment.name or other.state is not State.COMPLETED or not (same_task or same_bridge):
            continue
        found.append((other, same_task, same_bridge))
    found.sort(key=lambda item: (not item[1], not item[2], item[0].name))
    peers = [_peer(*item, run=run, root=run.root) for item in found[:MOST_PEERS]]
    return sorted((peer for peer in peers if peer), key=lambda peer: (not peer.same_task, len(peer.differences), -peer.score))


def _peer(other: Experiment, same_task: bool, same_bridge: bool, *, run: RunFiles, root: Path) -> Peer | None:
    files = read_run(other, root)
    outputs = main_outputs(files)
    if outputs:
        score, chance = outputs[0].value, outputs[0].chance
    elif isinstance(files.summary.get("validation"), (int, float)):
        labels = files.rows_of("validation").get("labels") or {}
        score = float(files.summary["validation"])
        chance = max(labels.values()) / sum(labels.values()) if labels else 0.0
    else:
        return None
    differences = config_differences(run.config, files.config)
    parameters = files.summary.get("trainable_params")
    return Peer(other.name, same_task, same_bridge, score, chance, files.folder, differences, parameters)


def _plain(value: Any) -> Any:
    """One form for what JSON and Python write differently."""
    if isinstance(value, (list, tuple)):
        items = [_plain(item) for item in value]
        return items[0] if len(items) == 1 else items
    return value
