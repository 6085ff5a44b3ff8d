"""What the experiments of a config or suite ask of a place: memory, disk, packages, models, rows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from latentwire.config import RunConfig
from latentwire.data.readers import read_task
from latentwire.data.task import load_task
from latentwire.errors import LatentWireError
from latentwire.experiments.work.place import PROBLEM, Needs
from latentwire.experiments.work.plan import Suite, expand, runs_of
from latentwire.models.source import EMBEDDED_FOLDER, ModelSource, resolve
from latentwire.training.plan import RunPlan, plan_run

#: method → the package it needs besides LatentWire's own
PACKAGES = {
    "lora": "peft",
    "dora": "peft",
    "prompt_tuning": "peft",
    "prior": "peft",
    "linear_probe": "sklearn",
    "label_byte": "sklearn",
}
MODULES = ("torch", "transformers", "safetensors", "datasets")
#: what a token of a text takes in the cache of sender states, at most: rows of a task, tokens of a row
CACHED_ROWS, CACHED_TOKENS = 3000, 100
HUB_TIMEOUT_S = 8.0

Note = tuple[str, str]


def needs_of(runs: Sequence[RunConfig], *, root: Path, device: str | None, methods: Sequence[str] = (), count: int = 1) -> Needs:
    """What ``count`` experiments over these runs ask for. Models and rows that cannot be had become notes."""
    notes = _models(runs)
    plans: list[RunPlan] = []
    # counting the parameters of a large model takes seconds, and tasks share their models
    distinct = {str((run.sender, run.receiver, run.bridge)): run for run in runs}
    for run in () if notes else distinct.values():
        try:
            plans.append(plan_run(run, device=device))
        except LatentWireError as error:
            notes.append((PROBLEM, str(error)))
    notes += _rows(runs)
    return Needs(
        root=root,
        run_bytes=count * max((plan.checkpoint_disk_bytes + 2 * plan.artefact_disk_bytes for plan in plans), default=0),
        cache_bytes=sum(map(_cache_bytes, plans)),
        gpu_bytes=_gpu_bytes(runs, plans, device),
        modules=(*MODULES, *sorted({PACKAGES[name] for name in methods if name in PACKAGES})),
        notes=tuple(dict.fromkeys(notes)),
    )


def suite_needs(suite: Suite, *, root: Path) -> Needs:
    """What all experiments of a suite ask for."""
    return needs_of(runs_of(suite), root=root, device=suite.device, methods=suite.methods, count=len(expand(suite)))


def _gpu_bytes(runs: Sequence[RunConfig], plans: Sequence[RunPlan], device: str | None) -> int | None:
    """None where a CPU will do: asked for, or embedded models only."""
    if not plans:
        return None
    embedded = all(Path(resolve(*end).location).parent == EMBEDDED_FOLDER for run in runs for end in _ends(run))
    if (device or os.environ.get("LATENTWIRE_DEVICE") or "").startswith(("cpu", "mps")) or embedded:
        return None
    return max(plan.sender_memory_bytes + plan.receiver_memory_bytes + plan.bridge_training_memory_bytes for plan in plans)


def _cache_bytes(plan: RunPlan) -> int:
    """Sender states of the rows, in 16 bits."""
    return CACHED_ROWS * CACHED_TOKENS * 2 * int(resolve(plan.sender).config.hidden_size)


def _ends(run: RunConfig) -> list[tuple[str, str | None]]:
    return [(run.sender.model, run.sender.revision), (run.receiver.model, run.receiver.revision)]


def _models(runs: Sequence[RunConfig]) -> list[Note]:
    """Weights that are neither here nor to be had from the Hub."""
    notes: list[Note] = []
    for name, revision in dict.fromkeys(end for run in runs for end in _ends(run)):
        try:
            source = resolve(name, revision)
        except LatentWireError as error:
            notes.append((PROBLEM, str(error)))
            continue
        if not source.is_local and (problem := _unreachable(source)) is not None:
            notes.append((PROBLEM, problem))
    return notes


def _unreachable(source: ModelSource) -> str | None:
    """Why the weights of a Hub model cannot be loaded here, or None."""
    from huggingface_hub import try_to_load_from_cache

    weights = ("model.safetensors.index.json", "model.safetensors")
    if any(isinstance(try_to_load_from_cache(source.location, name, revision=source.revision), str) for name in weights):
        return None
    fetch = "run `latentwire fetch CONFIG` on a node with network"
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return f"model {source.name!r} is not in the Hub cache and HF_HUB_OFFLINE is set; {fetch}"
    why = _hub_refuses(source)
    if why in (401, 403):
        return f"model {source.name!r} is locked (HTTP {why}); accept its terms on the Hub, then `hf auth login`"
    return None if why is None else f"model {source.name!r} is not in the Hub cache and the Hub does not give it ({why}); {fetch}"


def _hub_refuses(source: ModelSource) -> int | str | None:
    """HTTP status or reason why the Hub does not give the model's config; None where it does. One try, a few seconds."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    from huggingface_hub import get_token, hf_hub_url

    token = get_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = Request(hf_hub_url(source.location, "config.json", revision=source.revision), headers=headers, method="HEAD")
    try:
        with urlopen(request, timeout=HUB_TIMEOUT_S):
            return None
    except HTTPError as error:
        return error.code
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


def _rows(runs: Sequence[RunConfig]) -> list[Note]:
    """Rows of local files that are missing or damaged. Hub data sets are left to the models' check of the network."""
    notes: list[Note] = []
    for name, run in {name: item for item in runs for name in item.task}.items():
        task = load_task(name, run.variant)
        if task.config.source.generated is not None or run.data.data_dir is None:
            continue
        try:
            read_task(task, "test", data_dir=run.data.data_dir, max_rows=1)
        except LatentWireError as error:
            notes.append((PROBLEM, str(error)))
    return notes
