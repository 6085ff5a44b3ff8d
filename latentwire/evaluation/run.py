"""Evaluation of a trained run: load its pair and bridge, run the methods over the test rows, write the result file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from latentwire.bridges.base import WEIGHTS_FILE, Bridge, identity_of
from latentwire.config import ARTEFACT_FOLDER, CONFIG_FILE, RESULTS_FILE, RunConfig, build_config
from latentwire.data.budget import describe_cuts, fit_rows
from latentwire.data.readers import read_task
from latentwire.data.task import Example, Task, load_task
from latentwire.errors import ArtefactError, UsageError
from latentwire.evaluation.evaluator import Advance, EvaluationSettings, Origin, answer_task, prompt_hash
from latentwire.evaluation.predictions import find_predictions, read_header, write_predictions
from latentwire.evaluation.results import ResultRow, Results, RunInfo, read_results, state_of, write_results
from latentwire.evaluation.rows import result_rows
from latentwire.evaluation.run_folder import run_settings
from latentwire.files import digest, file_digest
from latentwire.messages.settings import Precision
from latentwire.methods import build_method, method_class
from latentwire.methods.base import Method, Parts
from latentwire.methods.bridge import BridgeMethod
from latentwire.models.device import hardware_summary
from latentwire.provenance import git_state, versions
from latentwire.training.run import load_pair, load_prompters

#: what a trained run is held against; all other methods learn or cost more, and are `latentwire compare`'s
WITHOUT_FIT = ("receiver_only", "receiver_text", "text_relay", "bridge")


def saved_config(run_folder: Path) -> RunConfig:
    """The config a run was trained with. Raises ``ArtefactError`` where the folder holds no run."""
    config = build_config(run_settings(run_folder), where=str(run_folder / CONFIG_FILE))
    return config.model_copy(update={"output_dir": str(run_folder)})


def load_parts(config: RunConfig, bridge: Bridge | None, *, device: str | None, writer: bool) -> Parts:
    """The pair of a config with its bridge. Raises ``MismatchError`` where the bridge was trained for another pair."""
    sender, receiver = load_pair(config, device=device, full_sender=writer)
    if bridge is not None:
        if bridge.pair is not None:
            bridge.pair.check_models(sender, receiver)
        bridge = bridge.to(receiver.device)
    return Parts(sender, receiver, bridge)


@dataclass(frozen=True)
class EvaluationRequest:
    """What to evaluate. ``tasks`` and ``methods``: None takes those of the run, and all.

    ``precisions``: the bridge once for each of these number formats; None: as it was trained.
    ``sender`` and ``receiver`` may name the run's models at another place; other models are refused. ``out`` is where the
    result file goes (default: into the run folder); the predictions go beside it.
    """

    run_folder: Path
    tasks: Sequence[str] | None = None
    methods: Sequence[str] | None = None
    precisions: Sequence[Precision] | None = None
    split: str = "test"
    data_dir: str | None = None
    max_rows: int | None = None
    device: str | None = None
    sender: str | None = None
    receiver: str | None = None
    settings: EvaluationSettings = field(default_factory=EvaluationSettings)
    out: Path | None = None

    @property
    def result_path(self) -> Path:
        return self.out or self.run_folder / RESULTS_FILE


def evaluate_run(request: EvaluationRequest, *, advance: Advance = lambda what, rows: None) -> Results:
    """Evaluates the bridge of a run with the baselines and controls; writes every prediction and the result file.

    Raises:
        UsageError: a method that learns from train rows, or number formats without the bridge. ArtefactError: the folder holds
            no trained bridge. DataError: rows that cannot be read. MismatchError: the models are not those of the run.
    """
    config = saved_config(request.run_folder)
    for end, name in (("sender", request.sender), ("receiver", request.receiver)):
        if name is not None:
            config = config.model_copy(update={end: getattr(config, end).model_copy(update={"model": name})})
    bridge = Bridge.from_pretrained(request.run_folder / ARTEFACT_FOLDER)
    chosen = list(request.methods or WITHOUT_FIT)
    if request.precisions is not None and BridgeMethod.name not in chosen:
        raise UsageError(
            f"--precision is for the bridge, and only {', '.join(chosen)} would run; add --method bridge or leave it out"
        )
    rows_of: list[tuple[Task, Sequence[Example]]] = []
    partial, revisions, hashes, notes = [], {}, {}, {}
    sender_end, receiver_end = load_prompters(config)
    for name in request.tasks or config.task:
        task = load_task(name, config.variant)
        # the rows of an evaluation never depend on the run's seed
        read = read_task(task, request.split, data_dir=request.data_dir or config.data.data_dir, max_rows=request.max_rows)
        read = fit_rows(task, read, sender=sender_end, receiver=receiver_end)
        rows_of.append((task, read.examples))
        revisions[task.name], hashes[task.name] = read.revision, prompt_hash(read.examples)
        notes[task.name] = [line for line in (read.note, describe_cuts(read)) if line]
        partial += [] if read.complete else [task.name]
    classes = [method_class(name) for name in chosen]
    for method in classes:
        if method.fits and not issubclass(method, BridgeMethod):
            raise UsageError(f"method {method.name!r} learns from train rows; run it with `latentwire compare`")
    parts = load_parts(config, bridge, device=request.device, writer=any(method.writes for method in classes))
    built = [method for name in chosen for method in _built(name, parts, request.precisions)]
    weights = file_digest(request.run_folder / ARTEFACT_FOLDER / WEIGHTS_FILE)
    rows: list[ResultRow] = []
    for task, examples in rows_of:
        origin = Origin(
            request.split,
            config.seed,
            data_revision=revisions[task.name],
            partial=task.name in partial,
            identity=digest(weights, hashes[task.name])[:16],
        )
        for predictions in answer_task(task, examples, built, settings=request.settings, origin=origin, advance=advance):
            write_predictions(request.result_path.parent, *predictions)
            rows += result_rows(*predictions)
    _remove_outdated(request.result_path.parent, {task.name: digest(weights, hashes[task.name])[:16] for task, _ in rows_of})
    models = {
        "sender": identity_of(parts.sender.source).model_dump() | {"layer": parts.sender.layer},
        "receiver": identity_of(parts.receiver.source).model_dump(),
        "bridge": {"params": bridge.num_params, "weights_sha256": weights},
    }
    kept, before = _still_true(request.result_path, models, rows, hashes)
    rows += kept
    for name in dict.fromkeys(row["task"] for row in kept if row["task"] not in hashes):
        revisions[name], hashes[name] = before["data_revisions"][name], before["prompt_hashes"][name]
        notes[name] = before["notes"].get(name, [])
        partial += [name] if name in before["partial"] else []
    info = RunInfo(
        state=state_of(rows),
        config=config.model_dump(mode="json"),
        seeds=[config.seed],
        git=git_state(),
        versions=versions(),
        models=models,
        hardware=hardware_summary(parts.receiver.device),
        data_revisions=revisions,
        partial=partial,
        notes=notes,
        prompt_hashes=hashes,
    )
    return write_results(request.result_path, info, rows)


def _still_true(
    path: Path, models: dict[str, Any], new: Sequence[ResultRow], hashes: Mapping[str, str]
) -> tuple[list[ResultRow], RunInfo | dict[str, Any]]:
    """What the result file of the same bridge and code holds and is not measured anew, other tasks and other methods over the very
    same rows; and what that file says of its run.
    """
    try:
        old = read_results(path)
    except ArtefactError:
        return [], {}
    run, measured = old["run"], {(row["task"], row["method"]) for row in new}
    if (run["models"], run["git"]) != (json.loads(json.dumps(models)), git_state()):
        return [], run
    known = run["prompt_hashes"]
    kept = [
        row
        for row in old["rows"]
        if (row["task"], row["method"]) not in measured and hashes.get(row["task"], known[row["task"]]) == known[row["task"]]
    ]
    return kept, run


def _built(name: str, parts: Parts, precisions: Sequence[Precision] | None) -> list[Method]:
    """The method, or the bridge once for each precision."""
    if name != BridgeMethod.name or parts.bridge is None or precisions is None:
        return [build_method(name, parts)]
    trained = parts.bridge.message
    messages = [trained.model_copy(update={"precision": precision}) for precision in dict.fromkeys(precisions)]
    return [build_method(name, replace(parts, message=message)) for message in messages]


def _remove_outdated(folder: Path, identities: Mapping[str, str]) -> None:
    """Removes predictions of these tasks that an earlier evaluation made of other rows or another bridge: a table of the folder
    must not mix them in.
    """
    for path in find_predictions(folder):
        try:
            header = read_header(path)
        except ArtefactError:  # whoever reads it will say what is wrong with it
            continue
        if identities.get(header["task"], header["identity"]) != header["identity"]:
            path.unlink()
