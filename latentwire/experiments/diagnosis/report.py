"""A diagnosis as an object, as JSON and as Markdown that also reads well in a terminal.

Standard library only, Python 3.9.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from latentwire.experiments.diagnosis.background import Section, background
from latentwire.experiments.diagnosis.files import read_log, read_run
from latentwire.experiments.diagnosis.hypotheses import Case, Evidence, Finding, weigh
from latentwire.experiments.diagnosis.outputs import main_outputs
from latentwire.experiments.diagnosis.peers import find_peers
from latentwire.experiments.failures.classes import Verdict, classify
from latentwire.experiments.registry.model import Attempt, ErrorClass, Experiment, State

SCHEMA_VERSION = 1
#: other causes that are listed under Options, besides those that were found
MOST_WEAK = 3


@dataclass(frozen=True)
class Diagnosis:
    """What is known about one experiment. ``findings`` are ranked; those that are not ``is_found`` were considered only."""

    name: str
    state: str
    findings: tuple[Finding, ...]
    sections: tuple[Section, ...]
    #: there is something to judge: an end, results, or at least a training
    has_evidence: bool

    @property
    def cause(self) -> Finding | None:
        """The best supported cause, None where no problem was found."""
        return self.findings[0] if self.findings and self.findings[0].is_found else None

    @property
    def is_healthy(self) -> bool:
        return self.cause is None and self.has_evidence

    @property
    def headline(self) -> str:
        """One line."""
        if self.cause is not None:
            return f"{self.cause.title} ({self.cause.confidence})"
        return "No problem was found" if self.has_evidence else "Nothing is known yet: the experiment has not run"

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs. ``cause`` is the name of the best supported hypothesis, null where none was found."""
        return {
            "schema_version": SCHEMA_VERSION,
            "experiment": self.name,
            "state": self.state,
            "healthy": self.is_healthy,
            "headline": self.headline,
            "cause": self.cause.name if self.cause else None,
            "hypotheses": [
                {
                    "name": finding.name,
                    "title": finding.title,
                    "mechanism": finding.mechanism,
                    "found": finding.is_found,
                    "confidence": finding.confidence,
                    "score": finding.score,
                    "for": [asdict(item) for item in finding.speaks_for],
                    "against": [asdict(item) for item in finding.speaks_against],
                    "fix": finding.fix,
                    "command": finding.command,
                }
                for finding in self.findings
            ],
            "background": {heading: list(lines) for heading, lines in self.sections},
        }

    def as_markdown(self) -> str:
        """The four headings, and under them what a person needs to decide."""
        return "\n".join(_markdown(self)).rstrip() + "\n"


def diagnose(
    experiment: Experiment, *, root: Path, others: Mapping[str, Experiment], now_s: float | None = None, held_by: str | None = None
) -> Diagnosis:
    """Explains one experiment from its own files.

    Args:
        root: the folder that holds ``runs/``; all paths of the experiment are relative to it.
        others: the registry's other experiments, to compare with.
        now_s: seconds since the epoch, to tell a run that is alive from one that is lost; None leaves that out.
        held_by: where it runs now, as its lease says (``Registry.held_by``).
    """
    run, log = read_run(experiment, root), read_log(experiment.last, root)
    verdict = _verdict(experiment, log.text)
    alike = [
        other.name
        for other in others.values()
        if verdict and other.name != experiment.name and other.last and other.last.error_class is verdict.error_class
    ]
    case = Case(
        experiment=experiment,
        run=run,
        log=log,
        verdict=verdict,
        outputs=main_outputs(run),
        peers=find_peers(experiment, run, others),
        others_failed_alike=sorted(alike),
        now_s=now_s,
        held_by=held_by,
    )
    has_evidence = bool(experiment.attempts or run.summary or run.answered or run.log)
    findings = tuple(weigh(case))
    return Diagnosis(experiment.name, experiment.state.value, findings, tuple(background(case)), has_evidence)


def _verdict(experiment: Experiment, log_text: str) -> Verdict | None:
    """Why the last attempt ended; None where it has no bad end."""
    attempt = experiment.last
    if attempt is None or attempt.state not in (State.FAILED, State.PREEMPTED):
        return None
    read = classify(exit_code=attempt.exit_code, log_text=log_text)
    recorded = attempt.error_class
    if recorded is None or (recorded is ErrorClass.UNKNOWN and read.error_class is not ErrorClass.UNKNOWN):
        return read if log_text or attempt.error is None else _recorded(attempt, read.error_class)
    # what was recorded stands; the log shows the place and often more words
    return (
        Verdict(recorded, read.message, read.where) if read.error_class is recorded and log_text else _recorded(attempt, recorded)
    )


def _recorded(attempt: Attempt, error_class: ErrorClass) -> Verdict:
    return Verdict(error_class, attempt.error or f"exit code {attempt.exit_code}")


def _markdown(diagnosis: Diagnosis) -> Iterator[str]:
    yield f"# Diagnosis of {diagnosis.name}"
    yield ""
    yield "## Identified Problem"
    yield ""
    cause = diagnosis.cause
    if cause is None:
        yield f"{diagnosis.headline}."
    else:
        yield f"**{cause.title}** ({cause.confidence}, score {cause.score:g})"
        yield ""
        yield cause.mechanism
        yield ""
        yield from _evidence(cause)
    yield ""
    yield "## Background"
    for heading, lines in diagnosis.sections:
        yield ""
        yield f"### {heading}"
        yield ""
        yield from (f"- {line}" for line in lines)
    yield ""
    yield "## Options"
    yield from _options(diagnosis)
    yield ""
    yield "## Recommendation"
    yield ""
    if cause is not None:
        yield f"{_sentence(cause.fix)}. This tests it:"
        yield ""
        yield f"    {cause.command}"
    elif diagnosis.has_evidence:
        yield "Nothing needs to be mended."
    else:
        yield "Run it first; `python scripts/experiment_manager.py --status` says what waits."


def _options(diagnosis: Diagnosis) -> Iterator[str]:
    found = [finding for finding in diagnosis.findings if finding.is_found]
    weak = [finding for finding in diagnosis.findings if not finding.is_found]
    if not found:
        yield ""
        yield "None is needed." if diagnosis.has_evidence else "None yet."
    for number, finding in enumerate(found, start=1):
        yield ""
        yield f"{number}. **{finding.title}** ({finding.confidence}, score {finding.score:g})"
        if number > 1:
            yield f"   {finding.mechanism}"
            yield from (f"   {line}" for line in _evidence(finding))
        yield f"   - fix: {finding.fix}"
        yield f"   - test: `{finding.command}`"
    if weak and found:
        yield ""
        yield "Considered, with little to support it:"
        for finding in weak[:MOST_WEAK]:
            strongest = finding.speaks_against[0] if finding.speaks_against else finding.speaks_for[0]
            yield f"- {finding.title} (score {finding.score:g}): {_cited(strongest)}"


def _evidence(finding: Finding) -> Iterator[str]:
    for item in finding.speaks_for:
        yield f"- for: {_cited(item)}"
    for item in finding.speaks_against:
        yield f"- against: {_cited(item)}"


def _cited(item: Evidence) -> str:
    return f"{item.text} ({item.where})" if item.where else item.text


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
