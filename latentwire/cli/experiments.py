"""``latentwire experiments``: plan, run and watch the experiments of a suite."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from latentwire.cli.console import emit_json, say
from latentwire.errors import CheckFailedError, LatentWireError, UsageError

if TYPE_CHECKING:
    from latentwire.experiments.work.place import Finding

app = typer.Typer(help="The experiments of a suite: plan, status, worker, sync, preflight.", no_args_is_help=True)

SUITE = typer.Argument(help="Suite, for example configs/paper.yaml.", show_default=False)
SUITE_OR_RUN = typer.Argument(help="Suite or run config.", show_default=False)
ANY_SUITE = typer.Argument(None, help="Only the experiments of this suite; default: all in the registry.", show_default=False)
DRY_RUN = typer.Option(False, "--dry-run", help="List the experiments; register nothing.")
QUIET = typer.Option(False, "--quiet", help="One line instead of the list.")
GPU = typer.Option(None, "--gpu", help="CUDA_VISIBLE_DEVICES of the commands, for example 0; 0,1 trains each bridge on both.")
MOST = typer.Option(None, "--max", min=1, help="Run at most so many experiments.")
LEASE_S = typer.Option(300.0, "--lease_s", min=1.0, help="Seconds that a claim lives without a heartbeat.")
TIMEOUT_S = typer.Option(None, "--timeout_s", min=1.0, help="Seconds after which an experiment is ended and has failed.")
PREFLIGHT_FIRST = typer.Option(False, "--preflight", help="Check the place first; register nothing where it is not ready.")
PREFLIGHT = typer.Option(True, "--preflight/--no-preflight", help="Check the place before the first experiment.")
DEVICE = typer.Option(None, "--device", help="cpu, mps, cuda or cuda:N; default: that of the suite.")
JSON = typer.Option(False, "--json", help="Print JSON on stdout.")


@app.callback()
def _at_the_root() -> None:
    """Experiments: plan a suite, run it, share it through git."""
    here = Path.cwd()
    root = next((folder for folder in here.parents if (folder / "latentwire" / "experiments").is_dir()), None)
    if root is not None and not (here / "runs").is_dir():
        raise UsageError(f"experiments stand in runs/ at the checkout's root; `cd {os.path.relpath(root)}` and run it again")


@app.command("plan")
def plan(
    config: str = SUITE,
    dry_run: bool = DRY_RUN,
    preflight: bool = PREFLIGHT_FIRST,
    quiet: bool = QUIET,
    as_json: bool = JSON,
) -> None:
    """Write the experiments of a suite into the registry (those it has stay as they are) and list them, longest first.

    ``--json`` also shows their commands.
    """
    from latentwire.experiments.work.plan import expand, load_suite, register

    if preflight:
        _refuse(_findings(config, None))
    suite = load_suite(config)
    experiments = expand(suite)
    if not dry_run:
        from latentwire.experiments.registry.registry import Registry

        register(Registry(), experiments)
    total_h = sum(item.expected_s for item in experiments) / 3600
    if as_json:
        emit_json([item.as_dict() for item in experiments])
    elif not quiet:
        width = max(len(item.name) for item in experiments)
        for item in experiments:
            print(f"{item.name:<{width}}  {item.expected_s:>7.0f} s")
    doing = "would be planned" if dry_run else "planned"
    say(f"{len(experiments)} experiments of suite {suite.name} {doing}, about {total_h:.1f} hours of one device")
    if not dry_run and not quiet:
        say(f"next: latentwire experiments worker {config}   (or: latentwire slurm submit {config})")


@app.command("status")
def status(as_json: bool = JSON) -> None:
    """How many experiments stand where, what runs, what needs somebody."""
    from latentwire.experiments.manager import main

    raise typer.Exit(main(["--status", *(["--json"] if as_json else [])]))


@app.command("worker")
def worker(
    config: str | None = ANY_SUITE,
    gpu: str | None = GPU,
    most: int | None = MOST,
    lease_s: float = LEASE_S,
    timeout_s: float | None = TIMEOUT_S,
    preflight: bool = PREFLIGHT,
    as_json: bool = JSON,
) -> None:
    """Run planned experiments, longest first, until none is left. Several workers may share one registry."""
    from latentwire.experiments.registry.registry import Registry
    from latentwire.experiments.work.worker import Worker, WorkerSettings

    if preflight and config is not None:
        _refuse(_findings(config, None))
    settings = WorkerSettings(
        gpu=gpu, most=most, suite=None if config is None else _suite_name(config), lease_s=lease_s, timeout_s=timeout_s
    )
    worked = Worker(Registry(), settings, root=Path.cwd(), say=say)
    if config is not None and not worked.mine():
        raise UsageError(f"no experiment of {config} is planned; run `latentwire experiments plan {config}` first")
    summary = worked.run()
    if as_json:
        emit_json(summary.as_dict())
    else:
        say(str(summary))
    bad = worked.needing_somebody()
    if bad:
        see = "python scripts/experiment_manager.py --status"
        raise CheckFailedError(f"{len(bad)} experiments failed or cannot be believed, the first is {bad[0]}; see `{see}`")


@app.command("sync")
def sync_() -> None:
    """Commit results and registry, take what is new upstream (code too), push."""
    from latentwire.experiments.exchange.sync import sync
    from latentwire.experiments.registry.registry import Registry

    print(sync(Registry()))


@app.command("preflight")
def preflight_(config: str = SUITE_OR_RUN, device: str | None = DEVICE, as_json: bool = JSON) -> None:
    """Check this place: folders, disk, packages, GPU memory, models, rows, git. Exit code 1 and one line per problem."""
    findings = _findings(config, device)
    if as_json:
        emit_json([{"level": item.level, "text": item.text} for item in findings])
    _refuse(findings)
    say("this place is ready")


def _findings(config: str, device: str | None) -> list[Finding]:
    from latentwire.config import load_config
    from latentwire.experiments.work.needs import needs_of, suite_needs
    from latentwire.experiments.work.place import check_place
    from latentwire.experiments.work.plan import is_suite, load_suite

    if is_suite(config):
        suite = load_suite(config)
        needs = suite_needs(suite.model_copy(update={"device": device or suite.device}), root=Path.cwd())
    else:
        run = load_config(config)
        needs = needs_of([run], root=Path.cwd(), device=device)
    return check_place(needs)


def _refuse(findings: list[Finding]) -> None:
    """Says what was found. Raises ``LatentWireError`` where it keeps experiments from starting."""
    from latentwire.experiments.work.place import problems

    found = problems(findings)
    for item in findings:
        say(f"{item.level}: {item.text}")
    if found:
        raise LatentWireError(f"this place is not ready: {len(found)} problem(s) above; mend them and run the same again")


def _suite_name(config: str) -> str:
    from latentwire.experiments.work.plan import load_suite

    return load_suite(config).name
