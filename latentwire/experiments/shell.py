"""The registry for shell scripts: one process claims an experiment, another records how it ended.

Standard library only: it works with the system's Python 3.9 or later.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentwire.errors import ArtefactError, StaleClaimError, UsageError
from latentwire.experiments.registry.jobs import job_id
from latentwire.experiments.registry.layout import check_name
from latentwire.experiments.registry.legacy import import_file
from latentwire.experiments.registry.model import ErrorClass, State
from latentwire.experiments.registry.registry import Claim, Registry
from latentwire.experiments.terminal import Parser, print_json, run_guarded
from latentwire.experiments.work.workspace import log_tail

#: of a bare `start`, whose holder sends no heartbeats
BARE_LEASE_S = 24 * 3600.0
CHECK_FOUND = 3


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = Parser(prog="experiment_registry.py", description="The experiment registry for shell scripts.")
    found.add_argument("--registry", default=None, metavar="PATH", help="the runs folder, or the experiment_registry.json in it")
    commands = found.add_subparsers(dest="command", required=True, metavar="COMMAND")
    ask = _named(commands, "should_run", "print 1|reason or 0|reason")
    ask.add_argument("--config-hash", default=None, help="of the config it would be run with")
    start = _named(commands, "start", "claim it: exit code 0 and the claim's owner on stdout, or 3 where somebody else has it")
    start.add_argument("--gpu", default=None, help="which GPU it will use")
    start.add_argument("--job-id", default=None, help="default: SLURM_JOB_ID")
    start.add_argument("--log", default=None, help="file its output goes to")
    start.add_argument("--lease-s", type=float, default=BARE_LEASE_S, help="seconds it is held without heartbeats (default: a day)")
    start.add_argument("--pid", type=int, default=0, help="process that does the work, where it outlives this command")
    complete = _named(commands, "complete", "record its result: completed, or invalid (exit code 3) if it cannot be believed")
    complete.add_argument("--result-file", default=None, help="default: the planned one")
    complete.add_argument("--metrics", default=None, metavar="JSON", help="for example '{\"accuracy\": 0.93}'")
    complete.add_argument("--exit-code", type=int, default=0)
    fail = _named(commands, "fail", "record that it failed")
    fail.add_argument("--error", default="", metavar="MSG", help="default: what the log says")
    fail.add_argument("--exit-code", type=int, default=None)
    classes = [item.value for item in ErrorClass]
    fail.add_argument("--error-class", choices=classes, default=None, help="default: found from the rest")
    fail.add_argument("--log", default=None, help="its output, to find the class in")
    preempt = _named(commands, "preempt", "record that it stopped early and can go on")
    preempt.add_argument("--exit-code", type=int, default=75)
    beat = _named(commands, "heartbeat", "say that it still runs; exit code 3 where another has taken over")
    for command in (complete, fail, preempt, beat):
        command.add_argument("--owner", default=None, help="what `start` printed; default: the claim of this host and job")
    summary = commands.add_parser("summary", help="how many stand where")
    summary.add_argument("--json", action="store_true")
    summary.add_argument("--check", action="store_true", help="exit code 3 where some failed or were lost")
    imported = commands.add_parser("import", help="take over a registry of the old format from a file")
    imported.add_argument("file")
    commands.add_parser("reap", help="record what is gone as lost")
    commands.add_parser("push-results", help="commit results and registry and push them; checked-out code stays as it is")
    commands.add_parser("sync", help="the same, and take what is new upstream")
    return found


def _named(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text)
    command.add_argument("name", metavar="NAME")
    return command


def main(arguments: Sequence[str] | None = None, *, default_runs: Path = Path("runs")) -> int:
    """Runs one command and returns its exit code."""
    flags = parser().parse_args(arguments)
    return run_guarded(lambda: _run(flags, default_runs))


def open_registry(path: str | None, default_runs: Path) -> Registry:
    """The registry at a path: the runs folder, or the file in it that old scripts name. One of the old format is imported once.

    Raises:
        UsageError: a file that does not lie in a runs folder as ``experiment_registry.json``.
    """
    given = Path(path) if path else default_runs
    if given.suffix.lower() != ".json":
        if given.is_file():
            raise UsageError(f"--registry {str(given)!r} is no folder; give the runs folder, or the experiment_registry.json in it")
        return Registry(given)
    registry = Registry(given.parent)
    if given.name != registry.layout.view.name and given.exists():
        marker = registry.layout.leases / f"imported-{given.name}"
        if not marker.exists():
            import_file(registry.layout, registry.note, given)
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()
    return registry


def _run(flags: argparse.Namespace, default_runs: Path) -> int:
    registry = open_registry(flags.registry, default_runs)
    if flags.command != "heartbeat":
        registry.refresh()
    code = _COMMANDS[flags.command](registry, flags)
    if flags.command not in ("heartbeat", "should_run", "summary"):
        registry.rebuild_view()
    return code


def _should_run(registry: Registry, flags: argparse.Namespace) -> int:
    run, reason = registry.should_run(flags.name, config_hash=flags.config_hash)
    print(f"{int(run)}|{reason}")
    return 0


def _start(registry: Registry, flags: argparse.Namespace) -> int:
    if not 0 < flags.lease_s < float("inf"):
        raise UsageError(f"--lease-s {flags.lease_s:g} is no time; give seconds above 0")
    claim = registry.claim(
        flags.name, lease_s=flags.lease_s, gpu=flags.gpu, job_id=flags.job_id, log=_from_here(flags.log), pid=flags.pid
    )
    if claim is None:
        # a code of its own: a flag that does not fit or a full disk is no sign that somebody else has it
        print(f"error: {flags.name} was not claimed: {registry.should_run(flags.name)[1]}", file=sys.stderr)
        return CHECK_FOUND
    print(claim.owner)
    return 0


def _claim(registry: Registry, flags: argparse.Namespace) -> Claim:
    """The claim that an earlier command made: by its owner, else the newest one of this host and job.

    Raises:
        StaleClaimError: it is another's.
    """
    name, leases = check_name(flags.name), registry.leases
    for generation in reversed(leases.generations(name)):
        lease = leases.read(name, generation)
        if lease is None or (flags.owner and lease.owner != flags.owner):
            continue
        if not flags.owner and (lease.host, lease.job_id) != (os.uname().nodename, job_id()):
            holder = f"{lease.host}" + (f", job {lease.job_id}" if lease.job_id else "")
            raise StaleClaimError(f"{name} is held by {holder}, not by this host and job; give --owner, which `start` printed")
        return Claim(name, generation, lease.owner, lease.lease_s)
    raise StaleClaimError(f"{name} is not claimed{' by this owner' if flags.owner else ''}; `start {name}` claims it")


def _complete(registry: Registry, flags: argparse.Namespace) -> int:
    metrics = _metrics(flags.metrics)
    result = _from_here(flags.result_file)
    claim = _claim(registry, flags)
    ended = registry.experiment(flags.name).last
    if ended is not None and ended.generation == claim.generation and ended.state not in (State.RUNNING, State.COMPLETED):
        return _ended(flags.name, ended.state, State.COMPLETED, "")
    state = registry.complete(claim, result_file=result, metrics=metrics, exit_code=flags.exit_code)
    if state is State.INVALID:
        print(f"{flags.name} is invalid: {registry.experiment(flags.name).reason}")
        return CHECK_FOUND
    print(f"{flags.name} is {state.value}")
    return 0


def _metrics(text: str | None) -> Mapping[str, float] | None:
    if text is None:
        return None
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--metrics {text!r} is no JSON ({error}); give for example '{{\"accuracy\": 0.93}}'") from None
    if not isinstance(content, dict) or not all(isinstance(value, (int, float)) for value in content.values()):
        raise UsageError(f"--metrics {text!r} must be names with numbers, for example '{{\"accuracy\": 0.93}}'")
    return content


def _from_here(path: str | None) -> str | None:
    """A path that a shell gives is relative to where the shell is, not to the registry."""
    return os.path.abspath(path) if path else None  # noqa: PTH100


def _fail(registry: Registry, flags: argparse.Namespace) -> int:
    from latentwire.experiments.failures.classes import classify, classify_message

    claim = _claim(registry, flags)
    if flags.log and not Path(flags.log).exists():
        raise ArtefactError(f"log {flags.log!r} does not exist")
    if flags.log:
        verdict = classify(exit_code=flags.exit_code, log_text=log_tail(Path(flags.log)))
    else:
        verdict = classify_message(flags.error or "", flags.exit_code)
    error_class = ErrorClass(flags.error_class) if flags.error_class else verdict.error_class
    error = flags.error or (f"{verdict.message} at {verdict.where}" if verdict.where else verdict.message)
    state = registry.fail(claim, error=error, error_class=error_class, exit_code=flags.exit_code)
    return _ended(flags.name, state, State.FAILED, f"has failed: {error_class.value}")


def _ended(name: str, state: State, wanted: State, words: str) -> int:
    """Says how an attempt ended: as it was told to now, or as it had ended before."""
    if state is not wanted:
        again = "" if state is State.COMPLETED else f" (`experiment_manager.py --mark-rerun {name}` lets it run again)"
        raise StaleClaimError(f"{name} has ended already: {state.value}; nothing was changed{again}")
    print(f"{name} {words}")
    return 0


def _preempt(registry: Registry, flags: argparse.Namespace) -> int:
    state = registry.preempt(_claim(registry, flags), exit_code=flags.exit_code)
    return _ended(flags.name, state, State.PREEMPTED, "stopped early; the next claim goes on")


def _heartbeat(registry: Registry, flags: argparse.Namespace) -> int:
    try:
        registry.heartbeat(_claim(registry, flags))
    except StaleClaimError as error:
        # a code of its own: a full disk, for instance, is no reason to stop the work
        print(f"error: {error}", file=sys.stderr)
        return CHECK_FOUND
    return 0


def _summary(registry: Registry, flags: argparse.Namespace) -> int:
    entries = registry.overview()
    counts = {state.value: sum(entry.state == state.value for entry in entries) for state in State}
    if flags.json:
        print_json({"total": len(entries), "counts": counts})
    else:
        states = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        print(f"{len(entries)} experiments: {states or 'none yet'}")
    return CHECK_FOUND if flags.check and counts[State.FAILED.value] + counts[State.LOST.value] else 0


def _import(registry: Registry, flags: argparse.Namespace) -> int:
    print(f"imported {import_file(registry.layout, registry.note, Path(flags.file))} experiments")
    return 0


def _reap(registry: Registry, flags: argparse.Namespace) -> int:
    print(f"{len(registry.reap())} more lost")
    return 0


def _push(registry: Registry, flags: argparse.Namespace) -> int:
    from latentwire.experiments.exchange.sync import push_results, sync

    print((sync if flags.command == "sync" else push_results)(registry))
    return 0


_COMMANDS = {
    "should_run": _should_run, "start": _start, "complete": _complete, "fail": _fail, "preempt": _preempt, "heartbeat": _heartbeat,
    "summary": _summary, "import": _import, "reap": _reap, "push-results": _push, "sync": _push,
}  # fmt: skip
