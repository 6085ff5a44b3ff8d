"""``latentwire preflight``: will this task work through this bridge? Yes, risky or no, and why."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import typer

from latentwire.cli.console import DEVICE, emit_json, progress, say
from latentwire.errors import CheckFailedError, UsageError

if TYPE_CHECKING:
    from latentwire.analysis.preflight.findings import Check
    from latentwire.analysis.preflight.run import Report

CONFIG = typer.Argument(None, help="Run config, for example configs/nano.yaml.", show_default=False)
TASK = typer.Option(None, "--task", help="Task name, or the path of your own YAML file. Repeatable; default: those of the config.")
BRIDGE = typer.Option(
    None, "--bridge", help="Run folder, bridge folder, Hub id or run config; default: the embedded pair with the default bridge."
)
ROWS = typer.Option(200, "--rows", help="Validation rows that the receiver reads; ten times as many are checked without it.")
DATA_DIR = typer.Option(None, "--data_dir", help="Folder with <set>/<split>.jsonl[.gz]; default: that of the config, else the Hub.")
SET = typer.Option(None, "--set", metavar="KEY=VALUE", help="Override a setting, for example variant.target=solution. Repeatable.")
MODELS = typer.Option(True, "--models/--no-models", help="--no-models leaves out what needs the receiver; tokenizers are enough.")
ALLOW = typer.Option(None, "--allow", metavar="CHECK", help="Count a failure of this check as a warning. Repeatable.")
JSON = typer.Option(False, "--json", help="Print the findings as JSON on stdout.")

_MARKS = {"pass": "ok", "warn": "WARN", "fail": "FAIL", "skip": "–"}
_WIDTH = 118


def preflight(
    config: str | None = CONFIG,
    task: list[str] | None = TASK,
    bridge: str | None = BRIDGE,
    rows: int = ROWS,
    data_dir: str | None = DATA_DIR,
    set_: list[str] | None = SET,
    models: bool = MODELS,
    allow: list[str] | None = ALLOW,
    device: str | None = DEVICE,
    as_json: bool = JSON,
) -> None:
    """Will this task work through this bridge? Checks rows, targets, metric, prompts, the receiver and the bits.

    Exit code 3 when a check failed. (`latentwire experiments preflight` checks the place: disk, packages, models, git.)
    """
    from latentwire.analysis.preflight.run import PreflightRequest, subject
    from latentwire.analysis.preflight.run import preflight as checked

    if config is not None and bridge is not None:
        raise UsageError(f"give either the config {config!r} or --bridge {bridge!r}: a run and an artefact name their models")
    given = subject(config or bridge, tasks=task or (), overrides=set_ or (), data_dir=data_dir)
    if config is None and bridge is None:
        say("no config and no --bridge: the embedded pair with the default bridge")
    with progress(2 * rows * len(given.config.task) if models else 0, "preflight") as bar:
        request = PreflightRequest(
            given.config,
            given.run_folder,
            given.artefact,
            rows=rows,
            models=models,
            device=device,
            allowed=allow or (),
            say=say,
            advance=bar.add,
        )
        reports = checked(request)
    if as_json:
        verdicts = [report.verdict for report in reports]
        worst = next(verdict for verdict in ("no", "risky", "yes") if verdict in verdicts)
        emit_json({"verdict": worst, "tasks": [report.as_dict() for report in reports]})
    else:
        for number, report in enumerate(reports):
            print("\n" * bool(number) + _page(report))
    _refuse(reports)


def _page(report: Report) -> str:
    """The findings on one task, the verdict last."""
    lines = [f"{report.task}: {report.sender} → {report.bridge} → {report.receiver}", ""]
    for check in report.checks:
        lines += _finding(check)
    lines.append("")
    left_out = [check.name for check in report.checks if check.status == "skip"]
    lines += _wrapped("verdict", f"{report.verdict}{': ' if report.reasons else ''}{'; '.join(_named(report))}", indent=9)
    if left_out:
        lines += _wrapped("", f"not known: {', '.join(left_out)}", indent=9)
    return "\n".join(lines)


def _named(report: Report) -> list[str]:
    return [reason.partition(":")[0] for reason in report.reasons]


def _finding(check: Check) -> list[str]:
    lines = _wrapped(f"{_MARKS[check.status]:<5}{check.name}", check.text, indent=24)
    if check.status in ("warn", "fail") and check.row is not None:
        lines += _wrapped("", f"row: {check.row}", indent=24)
    if check.mend and check.status != "pass":
        lines += _wrapped("", f"mend: {check.mend}" if check.status != "skip" else f"next: {check.mend}", indent=24)
    return lines


def _wrapped(head: str, text: str, *, indent: int) -> list[str]:
    wrapped = textwrap.wrap(text, _WIDTH - indent, break_long_words=False, break_on_hyphens=False) or [""]
    return [f"{head:<{indent}}{wrapped[0]}", *(" " * indent + line for line in wrapped[1:])]


def _refuse(reports: list[Report]) -> None:
    """Raises ``CheckFailedError`` where a check failed."""
    failed = [(report.task, check) for report in reports for check in report.checks if check.status == "fail"]
    if failed:
        task, check = failed[0]
        rest = f"; {len(failed) - 1} more above" if len(failed) > 1 else ""
        mend = f"; {check.mend}" if check.mend else ""
        raise CheckFailedError(f"{task} will not work as it stands: {check.name}: {check.text}{mend}{rest}")
