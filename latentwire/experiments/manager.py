"""The manager: what experiments there are, how they stand, what failed and why, and marking what is to run again.

Standard library only: it works on a login node with the system's Python 3.9 or later.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentwire.errors import LatentWireError, UsageError
from latentwire.experiments.registry.index import Entry
from latentwire.experiments.registry.model import Attempt, Experiment, State
from latentwire.experiments.registry.registry import Registry
from latentwire.experiments.registry.view import entry_of, experiment_as_json
from latentwire.experiments.terminal import Parser, coloured, print_json, print_table, run_guarded

CHECK_FOUND = 3
RECENT = 20
UNFINISHED = (State.FAILED, State.LOST, State.INVALID)
NEXT_COMMAND = "latentwire experiments plan configs/paper.yaml"
Item = Mapping[str, Any]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = Parser(prog="experiment_manager.py", description="Experiments: their states, failures and re-runs.")
    states = ", ".join(state.value for state in State)
    what = found.add_mutually_exclusive_group(required=True)
    what.add_argument("--status", action="store_true", help="how many stand where, what runs, what needs somebody")
    what.add_argument("--list", metavar="STATE", help=f"experiments of one state ({states}, or all)")
    what.add_argument("--details", metavar="NAME", help="one experiment with all of its attempts")
    what.add_argument("--mark-rerun", metavar="NAME", help="send one back to pending; its attempts no longer count")
    what.add_argument("--mark-rerun-all-failed", action="store_true", help="the same for all that failed, were lost or are invalid")
    what.add_argument("--validate", action="store_true", help="look for damage and for what needs somebody; exit code 3 if any")
    what.add_argument("--rebuild-registry", action="store_true", help="make experiment_registry.json anew from the events")
    what.add_argument("--recent-failures", action="store_true", help=f"the last {RECENT} attempts that failed")
    what.add_argument("--diagnose", metavar="NAME", help="why it failed: evidence, hypotheses, what to try")
    what.add_argument("--compare", nargs=2, metavar=("A", "B"), help="what differs between two experiments")
    what.add_argument("--sync", action="store_true", help="commit results and registry, take and give through git")
    found.add_argument("--reason", default="", help="of --mark-rerun and --mark-rerun-all-failed")
    found.add_argument("--json", action="store_true", help="JSON on stdout")
    found.add_argument("--runs", default=None, metavar="DIR", help="folder of the registry (default: runs/ of this checkout)")
    return found


def main(arguments: Sequence[str] | None = None, *, default_runs: Path = Path("runs")) -> int:
    """Runs one command and returns its exit code: 0 ok, 1 failed, 2 usage, 3 ``--validate`` found something."""
    flags = parser().parse_args(arguments)
    runs = Path(flags.runs) if flags.runs else default_runs
    return run_guarded(lambda: _run(flags, runs))


def _run(flags: argparse.Namespace, runs: Path) -> int:
    if flags.runs and not runs.is_dir():
        raise UsageError(f"--runs {str(runs)!r} is no folder; give the one that holds registry/")
    registry = Registry(runs)
    entries = _refresh(registry)
    code = _command(registry, entries, flags)
    if flags.mark_rerun is not None or flags.mark_rerun_all_failed or flags.sync:
        _refresh(registry)
    return code


def _refresh(registry: Registry) -> list[Entry]:
    """Notices losses and repairs the view; who may only read still sees everything."""
    try:
        return registry.refresh()
    except LatentWireError as error:
        registry.note(str(error))
        return registry.overview()


def _command(registry: Registry, entries: Sequence[Entry], flags: argparse.Namespace) -> int:
    if flags.status:
        return _status(registry, entries, as_json=flags.json)
    if flags.list is not None:
        return _list(entries, flags.list, as_json=flags.json)
    if flags.details is not None:
        return _details(registry.experiment(flags.details), as_json=flags.json)
    if flags.mark_rerun is not None or flags.mark_rerun_all_failed:
        return _mark(registry, entries, flags)
    if flags.validate:
        return _validate(registry, as_json=flags.json)
    if flags.rebuild_registry:
        return _rebuild(registry, as_json=flags.json)
    if flags.recent_failures:
        return _recent(registry, as_json=flags.json)
    if flags.sync:
        from latentwire.experiments.exchange.sync import sync

        return _say({"done": sync(registry)}, as_json=flags.json)
    return _explain(registry, flags)


def _say(content: Mapping[str, Any], *, as_json: bool) -> int:
    if as_json:
        print_json(content)
    else:
        print(next(iter(content.values())))
    return 0


# ------------------------------------------------------------------------------------------------------------- overviews


def _items(entries: Sequence[Entry], *states: State) -> dict[str, Item]:
    wanted = {state.value for state in states}
    return {entry.name: entry_of(entry.line) for entry in entries if entry.state in wanted}


def _status(registry: Registry, entries: Sequence[Entry], *, as_json: bool) -> int:
    counts = {state.value: 0 for state in State}
    for entry in entries:
        counts[entry.state] += 1
    needing, running = _items(entries, *UNFINISHED), _items(entries, State.RUNNING)
    if as_json:
        print_json({"total": len(entries), "counts": counts, "running": running, "needs_somebody": needing})
        return 0
    if not entries:
        print(f"no experiments yet in {registry.layout.runs}; plan some: {NEXT_COMMAND}")
        return 0
    print(f"{len(entries):,} experiments")
    for state, count in counts.items():
        if count:
            print(f"  {coloured(f'{state:<10}', state)} {count:>6,}")
    if running:
        print()
        print_table(("running", "host", "job", "gpu", "since"), [(name, *_where(item)) for name, item in running.items()])
    if needing:
        print()
        shown = list(needing.items())[:RECENT]
        rows = [(name, item["state"], item["reason"]) for name, item in shown]
        print_table(("needs somebody", "state", "reason"), rows, state_column=1)
        if len(needing) > len(shown):
            print(f"… and {len(needing) - len(shown):,} more: --list failed, --list lost, --list invalid")
        print("\nwhy: --diagnose NAME; again: --mark-rerun NAME or --mark-rerun-all-failed")
    return 0


def _where(item: Item) -> tuple[object, ...]:
    return item.get("host"), item.get("job_id"), item.get("gpu"), item.get("started")


def _list(entries: Sequence[Entry], state: str, *, as_json: bool) -> int:
    known = [found.value for found in State]
    if state not in (*known, "all"):
        raise UsageError(f"unknown state {state!r}; --list takes {', '.join(known)} or all")
    items = _items(entries, *(State if state == "all" else [State(state)]))
    if as_json:
        print_json(items)
    elif not items:
        print(f"no experiment is {state}" if state != "all" else f"no experiments yet; plan some: {NEXT_COMMAND}")
    else:
        keys = ("state", "attempts", "ended", "reason")
        rows = [(name, *(item.get(key) for key in keys)) for name, item in items.items()]
        print_table(("experiment", "state", "attempts", "ended", "reason"), rows, state_column=1)
    return 0


def _details(experiment: Experiment, *, as_json: bool) -> int:
    if as_json:
        print_json(experiment_as_json(experiment))
        return 0
    print(f"{experiment.name}: {coloured(experiment.state.value, experiment.state.value)}")
    facts = {
        "reason": experiment.reason,
        "config": experiment.config_hash,
        "command": " ".join(experiment.command),
        "run folder": experiment.run_folder,
        "result": experiment.result_file,
        "expected": f"{experiment.expected_s:.0f} s" if experiment.expected_s else None,
    }
    for key, value in facts.items():
        if value:
            print(f"  {key:<11} {value}")
    for attempt in experiment.attempts:
        print()
        for key, fact in _attempt_facts(attempt).items():
            if fact not in (None, ""):
                print(f"  {key:<11} {fact}")
    return 0


def _attempt_facts(attempt: Attempt) -> dict[str, object]:
    job, gpu = f"job {attempt.job_id}" if attempt.job_id else "", f"GPU {attempt.gpu}" if attempt.gpu else ""
    metrics = ", ".join(f"{key} {value:.4g}" for key, value in sorted(attempt.metrics.items()))
    return {
        "attempt": f"{attempt.generation}: {coloured(attempt.state.value, attempt.state.value)}",
        "where": " ".join(part for part in (attempt.host, job, gpu) if part),
        "when": f"{attempt.started or '?'} – {attempt.ended or ''}".rstrip(" –"),
        "exit code": attempt.exit_code,
        "error": f"{attempt.error_class.value if attempt.error_class else 'unknown'}: {attempt.error}" if attempt.error else None,
        "log": attempt.log,
        "result": attempt.result_file,
        "sha256": attempt.result_sha256,
        "metrics": metrics,
    }


def _recent(registry: Registry, *, as_json: bool) -> int:
    found = [
        (attempt.ended or attempt.started or "", name, attempt)
        for name, experiment in registry.experiments().items()
        for attempt in experiment.attempts
        if attempt.state in UNFINISHED
    ]
    recent = sorted(found, key=lambda item: item[:2], reverse=True)[:RECENT]
    if as_json:
        print_json([{"experiment": name, **_failure(attempt)} for _, name, attempt in recent])
    elif not recent:
        print("no attempt has failed")
    else:
        rows = [(ended, name, attempt.generation, *list(_failure(attempt).values())[2:]) for ended, name, attempt in recent]
        print_table(("ended", "experiment", "attempt", "state", "class", "host", "error"), rows, state_column=3)
    return 0


def _failure(attempt: Attempt) -> dict[str, object]:
    return {
        "generation": attempt.generation,
        "ended": attempt.ended,
        "state": attempt.state.value,
        "error_class": attempt.error_class.value if attempt.error_class else None,
        "host": attempt.host,
        "error": attempt.error,
    }


# --------------------------------------------------------------------------------------------------------------- changes


def _mark(registry: Registry, entries: Sequence[Entry], flags: argparse.Namespace) -> int:
    names = [flags.mark_rerun] if flags.mark_rerun is not None else sorted(_items(entries, *UNFINISHED))
    reason = flags.reason or ("marked by hand" if flags.mark_rerun else "all that failed were marked")
    marked = []
    for name in names:
        if registry.experiment(name).state is not State.PENDING:
            registry.mark_rerun(name, reason=reason)
            marked.append(name)
    if flags.json:
        print_json({"marked": marked})
    elif flags.mark_rerun:
        print(f"{names[0]} is pending again" if marked else f"{names[0]} is pending already")
    else:
        print(f"{len(marked)} marked" + "".join(f"\n  {name}" for name in marked))
    if marked and not flags.json:
        print("next: git add runs && git commit -m 'Mark re-runs' && git push, or --sync")
    return 0


def _validate(registry: Registry, *, as_json: bool) -> int:
    from latentwire.experiments.registry.check import validate

    problems = validate(registry)
    if as_json:
        print_json({"problems": [problem.as_json() for problem in problems]})
    elif problems:
        print_table(("experiment", "problem"), [(problem.experiment, problem.what) for problem in problems])
    else:
        print(f"{len(registry.overview()):,} experiments, nothing to complain about")
    return CHECK_FOUND if problems else 0


def _rebuild(registry: Registry, *, as_json: bool) -> int:
    from latentwire.experiments.registry.repair import restore_corrupt

    restored = restore_corrupt(registry)
    registry.layout.index.unlink(missing_ok=True)
    registry.rebuild_view()
    count = len(registry.overview())
    if as_json:
        print_json({"experiments": count, "restored": restored})
    else:
        print(f"{registry.layout.view.name} made anew from the events of {count:,} experiments")
        for path in restored:
            print(f"  taken back from git: {path}")
    return 0


def _explain(registry: Registry, flags: argparse.Namespace) -> int:
    from latentwire.experiments.diagnosis import compare_runs, diagnose

    root = registry.layout.root
    report: Any
    if flags.diagnose is not None:
        experiment = registry.experiment(flags.diagnose)
        report = diagnose(
            experiment,
            root=root,
            others=registry.experiments(),
            now_s=registry.leases.now_s(),
            held_by=registry.held_by(experiment.name),
        )
    else:
        report = compare_runs(*(registry.experiment(name) for name in flags.compare), root=root)
    if flags.json:
        print_json(report.as_json())
    else:
        print(report.as_markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
