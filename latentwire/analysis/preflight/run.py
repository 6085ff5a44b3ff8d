"""Preflight: will this task, with this pair and this bridge, work? Yes, risky or no, and why, before any GPU hour.

Needs of a task (rows, targets, metric, prompts) are checked with tokenizers alone; the receiver is loaded for what only it can
show. ``latentwire experiments preflight`` is something else: it checks the place (disk, packages, models, git).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from latentwire.analysis.limits import LimitEntry, read_limits
from latentwire.analysis.preflight.findings import Check, Verdict, allowing, verdict_of
from latentwire.analysis.preflight.model_checks import (
    Reading,
    bits_suffice,
    bridge_delivers,
    measure_bridge,
    measure_reading,
    measured_before,
    message_is_needed,
    receiver_reads,
    skipped,
    tasks_of_run,
)
from latentwire.analysis.preflight.posed_rows import Posed, pose
from latentwire.analysis.preflight.row_checks import check_rows
from latentwire.bridges import bridge_config
from latentwire.bridges.base import CONFIG_FILE as ARTEFACT_CONFIG
from latentwire.bridges.base import WEIGHTS_FILE, Bridge
from latentwire.config import ARTEFACT_FOLDER, CONFIG_FILE, RunConfig, build_config, load_config
from latentwire.data.task import load_task
from latentwire.errors import ArtefactError, UnknownNameError, UsageError
from latentwire.evaluation.run import load_parts
from latentwire.evaluation.run_folder import is_run, run_folder_of
from latentwire.models.chat import style_name
from latentwire.models.receiver import load_receiver
from latentwire.training.run import load_prompters

#: tokenizers are quick, models are not: checks without a model read so many times the rows
STATIC_FACTOR = 10
#: names of all checks, in the order of the page
CHECKS = (
    "rows", "output", "targets", "target and metric", "gold answers", "prompts", "hidden",
    "reading", "without the text", "bits", "this bridge", "measured before",
)  # fmt: skip

Say = Callable[[str], None]


@dataclass(frozen=True)
class PreflightRequest:
    """What to check. ``rows``: validation rows that the receiver reads; of every split ten times as many are checked without it."""

    config: RunConfig
    run_folder: Path | None = None
    #: folder or Hub id of a trained bridge, which then is measured on the task as it is
    artefact: str | None = None
    rows: int = 200
    models: bool = True
    device: str | None = None
    allowed: Sequence[str] = ()
    say: Say = lambda line: None
    advance: Callable[[int], None] = lambda rows: None


@dataclass(frozen=True)
class Report:
    """All findings on one task."""

    task: str
    sender: str
    receiver: str
    bridge: str
    checks: tuple[Check, ...]
    reading: Reading | None = field(default=None, repr=False)

    @property
    def verdict(self) -> Verdict:
        return verdict_of(self.checks)

    @property
    def reasons(self) -> list[str]:
        """One line for each check that keeps the verdict from being yes."""
        worst = "fail" if self.verdict == "no" else "warn"
        return [f"{check.name}: {check.text}" for check in self.checks if check.status == worst]

    def as_dict(self) -> dict[str, Any]:
        named = {key: getattr(self, key) for key in ("task", "verdict", "reasons", "sender", "receiver", "bridge")}
        bits = None if self.reading is None else self.reading.bits.as_dict()
        return {**named, "checks": [check.as_dict() for check in self.checks], "task_bits": bits}


def preflight(request: PreflightRequest) -> list[Report]:
    """One report per task of the config.

    Raises:
        UnknownNameError: an allowed check that does not exist. DataError: the rows of a task cannot be read at all.
    """
    for name in request.allowed:
        if name not in CHECKS:
            raise UnknownNameError("check", name, CHECKS)
    if request.rows < 1:
        raise UsageError(f"--rows {request.rows} does not fit; give 1 or more")
    config = request.config
    tasks = [load_task(name, config.variant) for name in config.task]
    sender, receiver = load_prompters(config)
    entries = read_limits()
    posed_tasks = []
    for task in tasks:
        request.say(f"{task.name}: rows and prompts")
        posed_tasks.append(pose(config, task, sender=sender, receiver=receiver, rows=STATIC_FACTOR * request.rows))
    models = _Models(request) if request.models else None
    described = bridge_config(config.bridge)
    reports = []
    for posed in posed_tasks:
        checks, reading = list(check_rows(posed)), None
        if models is None:
            checks += [skipped("reading"), skipped("without the text"), bits_suffice(posed, None, request.run_folder)]
            checks.append(measured_before(posed, entries))
        else:
            request.say(f"{posed.task.name}: the receiver reads")
            reading = measure_reading(posed, models.receiver, rows=request.rows, advance=request.advance)
            checks += _model_checks(posed, reading, models, request, entries)
        name = f"{described.name}, {described.describe_rate()}"
        found = tuple(allowing(checks, request.allowed))
        reports.append(Report(posed.task.name, sender.name, receiver.name, name, found, reading))
    return reports


def _model_checks(
    posed: Posed, reading: Reading | None, models: _Models, request: PreflightRequest, entries: Sequence[LimitEntry]
) -> list[Check]:
    """The checks that need the receiver, and those that need the trained bridge and its sender where there is one."""
    own: list[Check] = []
    if models.bridge is not None and models.sender is not None and reading is not None:
        request.say(f"{posed.task.name}: the bridge sends")
        delivered = measure_bridge(posed, reading, models.bridge, models.sender, models.receiver)
        own.append(bridge_delivers(posed, reading, delivered, tasks_of_run(request.run_folder)))
    works = any(check.status == "pass" for check in own)
    return [
        receiver_reads(posed, reading),
        message_is_needed(reading),
        bits_suffice(posed, reading, request.run_folder, works=works),
        *own,
        measured_before(posed, entries, measured_now=bool(own)),
    ]


class _Models:
    """The receiver; with a trained bridge also that and the sender, checked against each other."""

    def __init__(self, request: PreflightRequest) -> None:
        self.bridge = None if request.artefact is None else Bridge.from_pretrained(request.artefact).with_finite_weights()
        self.sender = None
        if self.bridge is not None:
            parts = load_parts(request.config, self.bridge, device=request.device, writer=False)
            self.sender, self.receiver, self.bridge = parts.sender, parts.receiver, parts.bridge
            return
        end = request.config.receiver
        self.receiver = load_receiver(
            end.model, revision=end.revision, device=request.device, dtype=end.dtype, prompt_style=request.config.prompt_style
        )


# ------------------------------------------------------------------------------------------------ what is to be checked


@dataclass(frozen=True)
class Subject:
    """What is to be checked: a config, the run folder it comes from, and the trained bridge (folder or Hub id)."""

    config: RunConfig
    run_folder: Path | None = None
    artefact: str | None = None


def subject(
    location: str | None, *, tasks: Sequence[str] = (), overrides: Sequence[str] = (), data_dir: str | None = None
) -> Subject:
    """What ``location`` and the flags name.

    ``location`` is a run config, a run folder, a bridge artefact (folder or Hub id), or None for the embedded pair.

    Raises:
        UsageError: no task is named anywhere. ConfigError, ArtefactError: the config or artefact is not sound.
    """
    if location is None:
        found = Subject(_built(_default_pair(), tasks, overrides, where="preflight"))
    elif location.endswith((".yaml", ".yml")):
        found = Subject(load_config(location, overrides))
    else:
        found = _from_folder(location, tasks, overrides)
    changes: dict[str, Any] = {"task": tuple(tasks)} if tasks else {}
    if data_dir is not None:
        changes["data"] = found.config.data.model_copy(update={"data_dir": data_dir})
    return replace(found, config=found.config.model_copy(update=changes))


def _default_pair() -> dict[str, Any]:
    return {"sender": {"model": "nano-llama"}, "receiver": {"model": "nano-mistral"}}


def _built(content: dict[str, Any], tasks: Sequence[str], overrides: Sequence[str], *, where: str) -> RunConfig:
    if not tasks:
        raise UsageError("no task is named; give --task NAME, for example --task gsm8k (`latentwire tasks` lists them)")
    return build_config({**content, "task": list(tasks)}, overrides, where=where)


def _from_folder(location: str, tasks: Sequence[str], overrides: Sequence[str]) -> Subject:
    folder = Path(location).expanduser()
    folder = run_folder_of(folder)
    if is_run(folder):
        config, artefact = load_config(folder / CONFIG_FILE, overrides), folder / ARTEFACT_FOLDER
        # another bridge, of which the run knows nothing
        if any(item.partition("=")[0].split(".")[0].strip() == "bridge" for item in overrides):
            return Subject(config)
        return Subject(config, folder, str(artefact) if (artefact / WEIGHTS_FILE).is_file() else None)
    if folder.is_dir() and not (folder / ARTEFACT_CONFIG).is_file():
        raise ArtefactError(
            f"{location!r} holds neither a run nor a bridge (no config.json); train one with `latentwire train CONFIG`"
        )
    bridge = Bridge.from_pretrained(location)
    if bridge.pair is None:
        raise ArtefactError(f"the bridge at {location!r} does not say which models it connects; give its run folder instead")
    pair = bridge.pair
    content = {
        "sender": {"model": pair.sender.name, "revision": pair.sender.revision, "layer": pair.sender_layer},
        "receiver": {"model": pair.receiver.name, "revision": pair.receiver.revision},
        "bridge": bridge.config.model_dump(),
        "prompt_style": style_name(pair.receiver_style),
    }
    return Subject(_built(content, tasks, overrides, where=f"bridge {location!r}"), None, location)
