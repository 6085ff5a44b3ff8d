"""What a run folder says about the run, without loading a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentwire.errors import ArtefactError, LatentWireError
from latentwire.files import digest, read_json

CONFIG_FILE, RESULTS_FILE = "config.json", "results.json"


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


def line_of(settings: Mapping[str, Any]) -> str:
    """Hash of what the seeds of one line have in common: all but the seed, the folder, and which stage one they began from."""
    decisive = {key: value for key, value in settings.items() if key not in ("seed", "output_dir")}
    bridge = decisive.get("bridge") or {}
    return digest(json.dumps({**decisive, "bridge": {**bridge, "init": bool(bridge.get("init"))}}, sort_keys=True))


def line_of_predictions(path: Path) -> str | None:
    """The line of the run that a prediction file (``<run>/predictions/<task>/…``) belongs to; None where no file says so."""
    run_folder = path.resolve().parents[2]
    for name, keys in ((RESULTS_FILE, ("run", "config")), (CONFIG_FILE, ("config",))):
        try:
            content: Any = read_json(run_folder / name, what="run file")
            for key in keys:
                content = content[key]
            return line_of(content)
        except (LatentWireError, KeyError, TypeError, AttributeError):
            continue
    return None
