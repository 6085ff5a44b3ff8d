"""Checkpoints without pickle: one safetensors file holds the tensors, its metadata the numbers, both or neither on disk.

Anything with ``state_dict`` / ``load_state_dict`` made of dictionaries, lists, numbers, strings and tensors fits, the
optimisers of torch among them. Restoring gives back the same bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from latentwire.errors import ArtefactError
from latentwire.files import digest, replacing

_TENSOR = "__tensor__"


def _flatten(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        tensors[path] = value.detach().to("cpu").contiguous().clone()
        return {_TENSOR: path}
    if isinstance(value, dict):
        # integer keys (optimiser state) would come back from JSON as strings, hence pairs
        return {"__items__": [[key, _flatten(item, f"{path}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_flatten(item, f"{path}/{index}", tensors) for index, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__} at {path!r}")


def _restore(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, dict):
        if _TENSOR in value:
            return tensors[value[_TENSOR]]
        return {key: _restore(item, tensors) for key, item in value["__items__"]}
    if isinstance(value, list):
        return [_restore(item, tensors) for item in value]
    return value


def _tensor_digest(tree: str, tensors: dict[str, torch.Tensor]) -> str:
    return digest(tree, *(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes() for name in sorted(tensors)))


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes ``state`` whole or not at all."""
    from safetensors.torch import save

    tensors: dict[str, torch.Tensor] = {}
    tree = json.dumps(_flatten(state, "", tensors))
    # one key only: safetensors writes several in random order, and equal states shall give equal bytes
    data = save(tensors, metadata={"state": json.dumps({"digest": _tensor_digest(tree, tensors), "tree": tree})})
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state that ``save_checkpoint`` wrote. Raises ``ArtefactError`` where the file is missing, cut or changed."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        data = path.read_bytes()
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = json.loads(header["__metadata__"]["state"])
        tree = metadata["tree"]
        intact = metadata["digest"] == _tensor_digest(tree, tensors)
    except FileNotFoundError:
        raise ArtefactError(f"checkpoint {str(path)!r} does not exist; train without --resume first") from None
    except (SafetensorError, ValueError, KeyError):
        intact = False
    if not intact:
        raise ArtefactError(f"checkpoint {str(path)!r} is cut or corrupt; delete it and train again without --resume")
    state: dict[str, Any] = _restore(json.loads(tree), tensors)
    return state
