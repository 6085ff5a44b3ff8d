"""What a run folder says about the run, without loading a model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from latentwire.config import ARTEFACT_FOLDER, CONFIG_FILE, RESULTS_FILE, ModelSettings, RunConfig, SenderSettings
from latentwire.errors import ArtefactError, LatentWireError
from latentwire.files import digest, read_json


def run_settings(run_folder: Path) -> dict[str, Any]:
    """The config of a trained run as it was written. Raises ``ArtefactError`` where the folder is no run's."""
    path = run_folder / CONFIG_FILE
    if not path.is_file():
        raise ArtefactError(f"{str(run_folder)!r} holds no run (no {CONFIG_FILE}); train one with `latentwire train CONFIG`")
    content = read_json(path, what="run config")
    if isinstance(content, dict) and isinstance(content.get("config"), dict):
        settings: dict[str, Any] = content["config"]
        return settings
    if isinstance(content, dict) and {"bridge", "ends"} <= set(content):
        raise ArtefactError(f"{str(run_folder)!r} is a bridge and no run; give the folder of its run, {str(run_folder.parent)!r}")
    raise ArtefactError(f"{str(path)!r} is no config of a run; give a folder that `latentwire train` wrote")


def is_run(folder: Path) -> bool:
    """Whether the folder's config is that of a run, and not that of an artefact."""
    if not (folder / CONFIG_FILE).is_file():
        return False
    content = read_json(folder / CONFIG_FILE, what="run config")
    return isinstance(content, dict) and "identity" in content


def run_folder_of(location: Path) -> Path:
    """The run folder that is meant: ``location``, or the one above where that is the bridge in a run."""
    return location.parent if location.name == ARTEFACT_FOLDER and is_run(location.parent) else location


def line_of(settings: Mapping[str, Any]) -> str:
    """Hash of what the runs of one line have in common, all that was set but the seed and the folder."""
    decisive = _not_default({key: value for key, value in settings.items() if key not in ("seed", "output_dir")}, _defaults())
    bridge = settings.get("bridge") or {}
    if bridge.get("init"):
        # every seed begins from a stage one of its own: that there was one decides, not where it lies
        decisive["bridge"] = {**bridge, "init": True}
    return digest(repr(sorted(decisive.items())))[:12]


@cache
def _defaults() -> dict[str, Any]:
    """The settings of a run that nothing was set in, bridge aside."""
    nothing = RunConfig(task=("",), sender=SenderSettings(model=""), receiver=ModelSettings(model=""))
    return nothing.model_dump(mode="json", exclude={"bridge"})


def _not_default(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from the defaults: a setting that came later and was left alone makes no other run."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        default = defaults.get(key)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            value, default = _not_default(value, default), {}
        if value != default:
            found[key] = value
    return found


def line_of_run(run_folder: Path) -> str | None:
    """The line of a run or comparison; None where no file in its folder says what was set."""
    for name, keys in ((RESULTS_FILE, ("run", "config")), (CONFIG_FILE, ("config",))):
        try:
            content: Any = read_json(run_folder / name, what="run file")
            for key in keys:
                content = content[key]
            return line_of(content)
        except (LatentWireError, KeyError, TypeError, AttributeError):
            continue
    return None
