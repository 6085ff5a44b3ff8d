"""From a suite file (``configs/paper.yaml``) to its experiments: every bridge and method on every task with every seed.

A suite names a run config and what varies. Training and evaluating one bridge is one experiment, every baseline method is
one, and so is the evaluation of a trained bridge on a task that it never saw. Each becomes one ``latentwire`` command that
goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from latentwire.config import RunConfig, load_config, read_mapping
from latentwire.data.task import Task, load_task
from latentwire.errors import ConfigError, UnknownNameError
from latentwire.files import digest
from latentwire.methods import method_class
from latentwire.methods.settings import method_settings
from latentwire.schema import Schema, validated

if TYPE_CHECKING:
    from latentwire.experiments.registry.registry import Registry

RESULT_FILE = "results.json"
#: methods that train for as many steps as a bridge
TRAINED = ("bridge", "lora", "dora", "prompt_tuning", "prior", "self_bridge")
#: methods that write a text token by token for every row
WRITING = ("text_relay", "cot_relay", "answer_text")


class Cost(Schema):
    """What an experiment takes on the hardware that the suite is meant for; the order of work follows from it."""

    start_s: float = Field(90.0, ge=0, description="loading of models and rows")
    step_s: float = Field(0.4, ge=0, description="one training step")
    row_s: float = Field(0.02, ge=0, description="one answered row")
    written_row_s: float = Field(0.8, ge=0, description="one row of a method that writes a text first")
    rows: int = Field(1000, ge=1, description="rows of a test split where max_samples does not say")


class Transfer(Schema):
    """Evaluation of bridges trained on one task on rows of others."""

    bridge: str
    trained_on: str
    evaluated_on: tuple[str, ...]


class Extra(Schema):
    """Any other command that writes a result file with numbers, for example a benchmark."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    command: tuple[str, ...] = Field(min_length=1)
    result_file: str
    needs: tuple[str, ...] = Field((), description="experiments of the suite that come first, as <task>-<bridge>-seed<seed>")
    expected_s: float = Field(600.0, ge=0)


class Suite(Schema):
    """A suite file. ``overrides`` apply to all runs, the others to those of one task or bridge; all read like ``--set``."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]*$")
    config: str = Field(description="the run config that all experiments start from")
    tasks: tuple[str, ...] = Field(min_length=1)
    bundles: dict[str, tuple[str, ...]] = Field(default_factory=dict, description="words for several tasks that share one bridge")
    pretrain: bool = Field(False, description="begin bridges from stage one")
    seeds: tuple[int, ...] = Field((42,), min_length=1)
    bridges: dict[str, dict[str, Any]] = Field(default_factory=dict)
    methods: tuple[str, ...] = ()
    transfer: tuple[Transfer, ...] = ()
    extra: tuple[Extra, ...] = ()
    overrides: tuple[str, ...] = ()
    task_overrides: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    bridge_overrides: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    method_overrides: tuple[str, ...] = ()
    max_samples: int | None = Field(None, ge=1, description="read only so many test rows")
    device: str | None = None
    threads: int | None = Field(None, ge=1, description="CPU threads of an experiment; equal threads give equal bytes")
    cost: Cost = Cost()

    @field_validator("bridges")
    @classmethod
    def _labels_are_words(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for label, settings in value.items():
            if not label.replace("_", "").isalnum():
                raise ValueError(f"bridge label {label!r} does not fit; use letters, digits and _")
            if "name" not in settings:
                raise ValueError(f"bridge {label!r} has no name; write {{name: perceiver, soft_tokens: 8}}")
        return value

    def members(self, task: str) -> tuple[str, ...]:
        """The tasks that share a bridge under this name of ``tasks``."""
        return self.bundles.get(task, (task,))

    @property
    def single_tasks(self) -> tuple[str, ...]:
        """Every task, those of bundles one by one."""
        return tuple(dict.fromkeys(member for task in self.tasks for member in self.members(task)))


@dataclass(frozen=True)
class PlannedExperiment:
    """One experiment as the registry keeps it; paths are relative to the folder that holds ``runs/``."""

    name: str
    config: dict[str, Any]
    command: tuple[str, ...]
    run_folder: str
    expected_s: float
    result_file: str = ""
    run: RunConfig | None = field(default=None, repr=False, compare=False)

    @property
    def config_hash(self) -> str:
        """Changes when anything does that could change a number of the result."""
        return digest(json.dumps(self.config, sort_keys=True))[:16]

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "config_hash": self.config_hash,
            "expected_s": self.expected_s,
            "run_folder": self.run_folder,
            "result_file": self.result_file,
            "command": list(self.command),
            "config": self.config,
        }


def is_suite(path: str | Path) -> bool:
    """Whether the YAML file is a suite and not the config of one run."""
    content = read_mapping(Path(path).expanduser(), what="suite")
    return "tasks" in content and "config" in content


def load_suite(path: str | Path) -> Suite:
    """The suite in a YAML file, its names checked.

    Raises:
        ConfigError: the file does not fit. UnknownNameError: a task, method or bridge that does not exist.
    """
    path = Path(path).expanduser()
    if not is_suite(path):
        raise ConfigError(
            f"{str(path)!r} is no suite (it has no `tasks` and `config`); one run is trained with `latentwire train {path}`, "
            "a ready suite is configs/paper_nano.yaml"
        )
    suite = validated(Suite, read_mapping(path, what="suite"), where=f"suite {str(path)!r}")
    for task in (*suite.tasks, *suite.task_overrides):
        for member in suite.members(task):
            load_task(member)
    for label in suite.bridge_overrides:
        if label not in suite.bridges:
            raise UnknownNameError("bridge of the suite", label, suite.bridges)
    for method in suite.methods:
        if method == "bridge":
            raise ConfigError(f"suite {str(path)!r}: bridges stand under `bridges`, not under `methods`")
        method_class(method)
    method_settings(suite.method_overrides, where=f"suite {str(path)!r}: method_overrides")
    for transfer in suite.transfer:
        if transfer.bridge not in suite.bridges:
            raise UnknownNameError("bridge of the suite", transfer.bridge, suite.bridges)
        if transfer.trained_on not in suite.tasks:
            raise UnknownNameError("task of the suite", transfer.trained_on, suite.tasks)
        for task in transfer.evaluated_on:
            load_task(task)
    return suite


def expand(suite: Suite) -> list[PlannedExperiment]:
    """Every experiment of the suite, longest first.

    Raises:
        ConfigError: the run config or an override does not fit, or two experiments would get one name.
    """
    found = [*_bridge_experiments(suite), *_method_experiments(suite), *_transfers(suite), *_extras(suite)]
    names = [item.name for item in found]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise ConfigError(f"suite {suite.name!r}: two experiments would be called {double!r}; rename a bridge, task or extra")
    for extra in suite.extra:
        for need in extra.needs:
            if f"{suite.name}-{need}" not in names:
                raise UnknownNameError("experiment of the suite", need, [name.removeprefix(f"{suite.name}-") for name in names])
        _check_own_folder(suite, extra, [item.run_folder for item in found if item.name != f"{suite.name}-{extra.name}"])
    return sorted(found, key=lambda item: (-item.expected_s, item.name))


def _check_own_folder(suite: Suite, extra: Extra, others: Sequence[str]) -> None:
    """Raises ``ConfigError`` where the folder of the extra's result is not its own: a re-run moves it away."""
    path = PurePosixPath(extra.result_file)
    folder, example = path.parent, f"runs/{suite.name}/{extra.name}/{path.name}"
    if path.is_absolute() or ".." in path.parts or folder.parts[:2] != ("runs", suite.name) or len(folder.parts) < 3:
        raise ConfigError(
            f"suite {suite.name!r}: result_file {extra.result_file!r} of extra {extra.name!r} does not lie in a folder of its own, "
            f"which a re-run could move away; write it to {example}"
        )
    for other in map(PurePosixPath, others):
        if folder == other or folder in other.parents or other in folder.parents:
            raise ConfigError(
                f"suite {suite.name!r}: result_file {extra.result_file!r} of extra {extra.name!r} lies in or around "
                f"{str(other)!r}, the folder of another experiment; write it to {example}"
            )


def register(registry: Registry, experiments: Sequence[PlannedExperiment]) -> None:
    """Writes the experiments into the registry; those it has already stay as they are."""
    for item in experiments:
        registry.plan(
            item.name,
            config=item.config,
            config_hash=item.config_hash,
            command=item.command,
            run_folder=item.run_folder,
            result_file=item.result_file,
            expected_s=item.expected_s,
        )
    registry.rebuild_view()


def _bridge_experiments(suite: Suite) -> Iterator[PlannedExperiment]:
    for task in suite.tasks:
        for label in suite.bridges:
            for seed in suite.seeds:
                bridge = _bridge(suite, label)
                short = f"{_stem(task)}-{label}-seed{seed}"
                folder = f"runs/{suite.name}/{short}"
                overrides = [*_overrides(suite, task), *bridge, f"seed={seed}"]
                run = load_config(suite.config, [*overrides, f"output_dir={folder}"])
                run = run.after_stage_one if suite.pretrain else run
                rows = [] if suite.max_samples is None else ["--eval_samples", str(suite.max_samples)]
                more = ["--pretrain"] if suite.pretrain else []
                command = (
                    "train",
                    suite.config,
                    *_set(overrides),
                    *_set([f"output_dir={folder}"]),
                    *more,
                    "--resume",
                    "--eval",
                    *rows,
                )
                yield _planned(suite, short, command, run, kind="bridge", method="bridge", bridge=label)


def _method_experiments(suite: Suite) -> Iterator[PlannedExperiment]:
    for task_name in suite.single_tasks:
        task = load_task(task_name, load_config(suite.config, _overrides(suite, task_name)).variant)
        for method in suite.methods:
            if _unsuitable(method, task):
                continue
            seeded = method_class(method).seeded
            for seed in suite.seeds if seeded else suite.seeds[:1]:
                short = f"{_stem(task_name)}-{method}" + (f"-seed{seed}" if seeded else "")
                overrides = _overrides(suite, task_name)
                run = load_config(suite.config, [*overrides, f"seed={seed}"])
                command = (
                    *("compare", suite.config, "--tasks", task_name, "--methods", method, "--seeds", str(seed)),
                    *("--out", f"runs/{suite.name}/{short}", *_set(overrides)),
                    *(part for setting in suite.method_overrides for part in ("--method_set", setting)),
                    *([] if suite.max_samples is None else ["--max_samples", str(suite.max_samples)]),
                )
                settings = list(suite.method_overrides)
                yield _planned(suite, short, command, run, kind="method", method=method, method_settings=settings)


def _transfers(suite: Suite) -> Iterator[PlannedExperiment]:
    for transfer in suite.transfer:
        for task in transfer.evaluated_on:
            for seed in suite.seeds:
                trained = f"{_stem(transfer.trained_on)}-{transfer.bridge}-seed{seed}"
                short = f"{_stem(task)}-{transfer.bridge}_of_{_stem(transfer.trained_on)}-seed{seed}"
                overrides = [*_overrides(suite, transfer.trained_on), *_bridge(suite, transfer.bridge), f"seed={seed}"]
                command = (
                    *("telepathy/eval_telepathy.py", "--checkpoint", f"runs/{suite.name}/{trained}", "--dataset", task),
                    *("--output_dir", f"runs/{suite.name}/{short}", "--method", "bridge"),
                    *([] if suite.max_samples is None else ["--max_samples", str(suite.max_samples)]),
                )
                run = load_config(suite.config, overrides)
                kind = {"kind": "transfer", "method": "bridge", "bridge": transfer.bridge, "evaluated_on": task}
                yield _planned(suite, short, command, run, needs=[f"{suite.name}-{trained}"], **kind)


def _extras(suite: Suite) -> Iterator[PlannedExperiment]:
    for extra in suite.extra:
        needs = [f"{suite.name}-{need}" for need in extra.needs]
        yield PlannedExperiment(
            name=f"{suite.name}-{extra.name}",
            config={"experiment": _about(suite, kind="extra", method=extra.name, command=list(extra.command), needs=needs)},
            command=extra.command,
            run_folder=Path(extra.result_file).parent.as_posix(),
            expected_s=extra.expected_s,
            result_file=extra.result_file,
        )


def _planned(suite: Suite, short: str, command: Sequence[str], run: RunConfig, *, method: str, **about: Any) -> PlannedExperiment:
    device = [] if suite.device is None else ["--device", suite.device]
    program = "python" if command[0].endswith(".py") else "latentwire"
    folder = f"runs/{suite.name}/{short}"
    trains = method in TRAINED and about["kind"] != "transfer"
    return PlannedExperiment(
        name=f"{suite.name}-{short}",
        config=run.model_dump(mode="json", exclude={"output_dir"}) | {"experiment": _about(suite, method=method, **about)},
        command=(program, *command, *device),
        run_folder=folder,
        expected_s=round(_expected_s(suite, run, method, trains=trains), 1),
        result_file=f"{folder}/{RESULT_FILE}",
        run=run,
    )


def _about(suite: Suite, **about: Any) -> dict[str, Any]:
    """What a worker and a reader need to know besides the run's own config."""
    return {
        "suite": suite.name,
        "needs": [],
        "threads": suite.threads,
        "device": suite.device,
        "max_samples": suite.max_samples,
        **about,
    }


def _expected_s(suite: Suite, run: RunConfig, method: str, *, trains: bool) -> float:
    cost = suite.cost
    rows = (suite.max_samples or cost.rows) * (1 + len(method_class(method).controls))
    answering = rows * len(run.task) * (cost.written_row_s if method in WRITING else cost.row_s)
    steps = run.training.steps
    if suite.pretrain and method == "bridge":
        steps += run.pretraining.training.steps + (run.packing.steps if run.needs_packing else 0)
    return cost.start_s + (steps * cost.step_s if trains else 0.0) + answering


def _unsuitable(method: str, task: Task) -> bool:
    """Whether the method cannot answer the task; the answer needs the class's facts only, so no model is loaded."""
    kind = method_class(method)
    return kind.__new__(kind).unsuitable(task) is not None


def _overrides(suite: Suite, task: str) -> list[str]:
    members = suite.members(task)
    tasks = task if members == (task,) else json.dumps(list(members))
    return [f"task={tasks}", *suite.overrides, *suite.task_overrides.get(task, ())]


def _bridge(suite: Suite, label: str) -> list[str]:
    settings = [f"bridge.{key}={_as_yaml(value)}" for key, value in suite.bridges[label].items()]
    return settings + list(suite.bridge_overrides.get(label, ()))


def _set(overrides: Sequence[str]) -> list[str]:
    return [part for override in overrides for part in ("--set", override)]


def _as_yaml(value: Any) -> str:
    return json.dumps(value) if not isinstance(value, str) else value


def _stem(task: str) -> str:
    return Path(task).stem


def runs_of(suite: Suite) -> list[RunConfig]:
    """Run configs that together name everything a suite needs: every task, and every bridge on the first of them."""
    runs = [load_config(suite.config, [*_overrides(suite, suite.tasks[0]), *_bridge(suite, label)]) for label in suite.bridges]
    return runs + [load_config(suite.config, _overrides(suite, task)) for task in suite.tasks[len(runs) > 0 :]]
