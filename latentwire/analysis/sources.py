"""What a measurement of a trained bridge says about where its numbers come from: the same in all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from latentwire.bridges.base import WEIGHTS_FILE, identity_of
from latentwire.config import ARTEFACT_FOLDER, RunConfig
from latentwire.files import file_digest
from latentwire.methods.base import Parts
from latentwire.models.device import hardware_summary
from latentwire.provenance import git_state, versions


def bridge_provenance(run_folder: Path, config: RunConfig, parts: Parts) -> dict[str, Any]:
    """Config, seeds, git, versions, models (with the hash of the bridge's weights) and hardware, as JSON."""
    assert parts.bridge is not None
    dtype = str(parts.receiver.dtype).removeprefix("torch.")
    return {
        "config": config.model_dump(mode="json"),
        "seeds": [config.seed],
        "git": git_state(),
        "versions": versions(),
        "models": {
            "sender": identity_of(parts.sender.source).model_dump() | {"layer": parts.sender.layer},
            "receiver": identity_of(parts.receiver.source).model_dump() | {"dtype": dtype},
            "bridge": {
                "name": parts.bridge.config.name,
                "rate": parts.bridge.config.describe_rate(),
                "params": parts.bridge.num_params,
                "weights_sha256": file_digest(run_folder / ARTEFACT_FOLDER / WEIGHTS_FILE),
            },
        },
        "hardware": hardware_summary(parts.receiver.device),
    }
