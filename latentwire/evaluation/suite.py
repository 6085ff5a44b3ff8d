"""A suite: every method on every task under the same rows, budget and statistics, resumable method by method.

``<folder>/predictions/…``  what every method answered; a file whose identity still fits is kept and its method not run again
``<folder>/work/…``         what fitted methods need to go on after a kill
``<folder>/results.json``   all result rows; tables and comparisons are made from the predictions
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from latentwire.bridges.base import identity_of
from latentwire.config import RESULTS_FILE, RunConfig
from latentwire.data.budget import describe_cuts, fit_rows
from latentwire.data.readers import TaskRows, count_overlap, read_task
from latentwire.data.task import Task, load_task
from latentwire.errors import ArtefactError, StoppedEarlyError, UsageError
from latentwire.evaluation.controls import applicable
from latentwire.evaluation.evaluator import Advance, EvaluationSettings, Origin, describe, predict_all, prompt_hash
from latentwire.evaluation.predictions import Predictions, prediction_path, read_predictions, write_predictions
from latentwire.evaluation.results import ResultRow, Results, RunInfo, state_of, write_results
from latentwire.evaluation.rows import result_rows
from latentwire.files import digest
from latentwire.messages.settings import MessageSettings
from latentwire.methods import method_class
from latentwire.methods.base import FitData, Method, Parts
from latentwire.methods.settings import MethodSettings
from latentwire.models.device import hardware_summary
from latentwire.provenance import git_state, versions
from latentwire.training.run import digest_of_weights, load_pair

WORK_FOLDER = "work"
GOES_ON = "the same command goes on from there"


@dataclass(frozen=True)
class SuiteRequest:
    """What to run. ``config`` gives pair, bridge, training settings and data budget to all; its own tasks and seed are not used.

    ``max_rows`` limits the rows of the test split, the config's ``data`` those of train and validation. ``mine`` is asked
    before each unit of work (a method on a task with a seed); units that are somebody else's are left out.
    """

    config: RunConfig
    tasks: Sequence[str]
    methods: Sequence[str]
    seeds: Sequence[int]
    folder: Path
    max_rows: int | None = None
    device: str | None = None
    settings: MethodSettings = field(default_factory=MethodSettings)
    evaluation: EvaluationSettings = field(default_factory=lambda: EvaluationSettings(latency_rows=0))
    advance: Advance = lambda what, rows: None
    say: Callable[[str], None] = lambda line: None
    should_stop: Callable[[], bool] = lambda: False
    mine: Callable[[str], bool] = lambda unit: True


@dataclass(frozen=True)
class _TaskData:
    """One task with the rows that every method gets."""

    task: Task
    train: TaskRows
    validation: TaskRows
    test: TaskRows

    @cached_property
    def notes(self) -> list[str]:
        """What is to be known about the rows, for the result file."""
        shared, chosen_on = (count_overlap(self.train.examples, rows.examples) for rows in (self.test, self.validation))
        lines = [
            self.test.note,
            describe_cuts(self.test),
            f"{shared} rows also stand in train" if shared else "",
            f"{chosen_on} validation rows also stand in train" if chosen_on else "",
        ]
        return [line for line in lines if line]

    @property
    def key(self) -> str:
        rows = [prompt_hash(split.examples) for split in (self.train, self.validation, self.test)]
        return digest(self.task.name, *rows)


def run_suite(request: SuiteRequest) -> Results:
    """Runs what is missing and writes the results of all.

    Raises:
        UnknownNameError, UsageError: a task or method that does not exist, before anything is loaded.
        StoppedEarlyError: asked to stop; what is done is kept, the same command goes on.
    """
    parts, data, rows = fill(request)
    if not rows:
        raise UsageError("nothing to run: none of the methods fits any of the tasks; see `latentwire methods`")
    info = RunInfo(
        state=state_of(rows),
        config=request.config.model_dump(mode="json") | {"methods": request.settings.model_dump(mode="json")},
        seeds=list(request.seeds),
        git=git_state(),
        versions=versions(),
        models={
            "sender": identity_of(parts.sender.source).model_dump() | {"layer": parts.sender.layer},
            "receiver": identity_of(parts.receiver.source).model_dump(),
        },
        hardware=hardware_summary(parts.receiver.device),
        data_revisions={item.task.name: item.test.revision for item in data},
        partial=[item.task.name for item in data if not item.test.complete],
        notes={item.task.name: item.notes for item in data},
        prompt_hashes={item.task.name: prompt_hash(item.test.examples) for item in data},
    )
    return write_results(request.folder / RESULTS_FILE, info, rows)


def fill(request: SuiteRequest) -> tuple[Parts, list[_TaskData], list[ResultRow]]:
    """Makes every prediction file that is missing; returns the result rows of the units that are this process's."""
    classes = {name: method_class(name) for name in request.methods}
    tasks = [load_task(name, request.config.variant) for name in request.tasks]
    sender, receiver = load_pair(
        request.config, device=request.device, full_sender=any(method.writes for method in classes.values())
    )
    parts = Parts(
        sender, receiver, bridge_name=str(request.config.bridge["name"]), message=request.config.message, settings=request.settings
    )
    data = [_read(request, task, parts) for task in tasks]
    rows: list[ResultRow] = []
    for task_data in data:
        for line in (_budget(task_data), *task_data.notes):
            request.say(line)
        for name, method in classes.items():
            reason = method(parts).unsuitable(task_data.task)
            if reason is not None:
                request.say(f"{name}: left out, {reason}")
                continue
            for seed in request.seeds if method.seeded else request.seeds[:1]:
                if not request.mine(f"{task_data.task.name}-{name}-{seed}"):
                    continue
                for predictions in _answered(request, parts, task_data, name, method(parts), seed):
                    rows += result_rows(*predictions)
                if request.should_stop():
                    raise StoppedEarlyError(f"stopped after {name} on {task_data.task.name}; {GOES_ON}")
    return parts, data, rows


def _read(request: SuiteRequest, task: Task, parts: Parts) -> _TaskData:
    settings = request.config.data
    splits = {}
    for split, limit in (("train", settings.train_rows), ("validation", settings.validation_rows), ("test", request.max_rows)):
        rows = read_task(
            task, split, data_dir=settings.data_dir, max_rows=limit,
            made_up_words=settings.made_up_words, made_up_from=settings.made_up_from,
        )  # fmt: skip
        splits[split] = fit_rows(task, rows, sender=parts.sender.prompter, receiver=parts.receiver.prompter)
    return _TaskData(task, **splits)


def _budget(data: _TaskData) -> str:
    """The data budget, the same for all methods."""
    return (
        f"{data.task.name}: {len(data.train.examples):,} rows to learn from, {len(data.validation.examples):,} to choose on, "
        f"{len(data.test.examples):,} to report on{'' if data.test.complete else ' (a part of the split)'}"
    )


def _answered(request: SuiteRequest, parts: Parts, data: _TaskData, name: str, method: Method, seed: int) -> Iterator[Predictions]:
    """Predictions of one method and its controls: those on disk where they still fit, else made now."""
    possible = applicable(method.controls, len(data.test.examples)) if request.evaluation.with_controls else ()
    controls = (None, *possible)
    origin = Origin(
        data.test.split,
        seed,
        data_revision=data.test.revision,
        partial=not data.test.complete,
        identity=_identity(request, parts, data, name, method, seed),
    )
    kept = [_kept(request, data, method, control, origin) for control in controls]
    if all(predictions is not None for predictions in kept):
        request.say(f"{method.label} on {data.task.name}{f', seed {seed}' if method.seeded else ''}: kept")
        yield from (predictions for predictions in kept if predictions is not None)
        return
    fit = {}
    if method.fits:
        request.say(f"{method.label} on {data.task.name}{f', seed {seed}' if method.seeded else ''}: fitting")
        fit_data = FitData(
            task=data.task,
            train=data.train.examples,
            validation=data.validation.examples,
            seed=seed,
            config=request.config,
            folder=request.folder / WORK_FOLDER / data.task.name / f"{name.replace(':', '-')}-{origin.identity}",
            device=request.device,
            say=request.say,
            should_stop=request.should_stop,
        )
        try:
            fit = method.fit(fit_data)
        except StoppedEarlyError as error:
            raise StoppedEarlyError(f"{method.label} on {data.task.name}: {str(error).partition(';')[0]}; {GOES_ON}") from None
    origin = Origin(origin.split, seed, origin.data_revision, origin.partial, origin.identity, fit)
    for control in controls:
        records = predict_all(data.task, data.test.examples, method, control, request.evaluation, advance=request.advance)
        predictions = describe(data.task, data.test.examples, records, method, control, origin=origin)
        write_predictions(request.folder, *predictions)
        yield predictions


def _kept(request: SuiteRequest, data: _TaskData, method: Method, control: str | None, origin: Origin) -> Predictions | None:
    """What an earlier run left for exactly this method, control, seed and rows."""
    seed = origin.seed if method.seeded else None
    path = prediction_path(request.folder, data.task.name, method.label, seed=seed, control=control)
    if not path.is_file():
        return None
    try:
        found = read_predictions(path)
    except ArtefactError as error:
        request.say(f"{error}; made again")
        return None
    return found if found.header["identity"] == origin.identity else None


def _identity(request: SuiteRequest, parts: Parts, data: _TaskData, name: str, method: Method, seed: int) -> str:
    """Hash of all that decides the predictions of a method: methods that learn nothing do not depend on the training settings."""
    config = request.config
    models = [model.source.fingerprint for model in (parts.sender, parts.receiver)]
    decisive = [str(parts.sender.layer), config.prompt_style, request.settings.model_dump_json()]
    decisive += [str(data.task.config.max_new_tokens)]
    # quantised weights are computed with in another format than they are kept in
    decisive += [f"{part.dtype} {end.dtype}" for part, end in ((parts.sender, config.sender), (parts.receiver, config.receiver))]
    if method.fits:
        decisive += [config.packing.model_dump_json()] if config.training.needs_packing else []
        decisive += [digest_of_weights(config) or ""] if config.bridge.get("init") else []
        decisive += [config.training.model_dump_json(), repr(sorted(config.bridge.items())), str(seed)]
        decisive += [config.message.model_dump_json()] if config.message != MessageSettings() else []
    return digest(data.key, name, *models, *decisive)[:16]
