"""What a hypothesis is: a cause with a mechanism, evidence for and against it, a fix, and the command that would test it.

Adding one: a subclass of ``Hypothesis`` with the class attributes below and ``evidence``, and ``@register`` above it.
Standard library only, Python 3.9.

The score of a hypothesis is the sum of its evidence: positive weights speak for it, negative ones against. As a measure:
10 the run's own error names this cause · 4 hardly anything else looks like this · 2 fits well · 1 fits · 0.5 worth knowing.
"""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from latentwire.experiments.diagnosis.curves import Curve
from latentwire.experiments.diagnosis.files import LogText, RunFiles
from latentwire.experiments.diagnosis.outputs import Outputs, others_of
from latentwire.experiments.diagnosis.peers import Peer
from latentwire.experiments.failures.classes import Verdict
from latentwire.experiments.registry.model import Attempt, Experiment, State

#: from this score on a hypothesis counts as found
FOUND = 2.0
#: scores that differ by no more, and by no more than chance may, count as the same
SAME_SCORE = 0.1
#: the hypothesis that says that no cause is known
LAST_RESORT = "no_better_than_chance"


@dataclass(frozen=True)
class Evidence:
    """One observation. ``weight`` > 0 speaks for the hypothesis; ``where`` is ``file:line`` of what was observed."""

    text: str
    weight: float
    where: str | None = None


@dataclass(frozen=True)
class Case:
    """All that is known about one experiment. ``verdict`` is None where no attempt ended by an error."""

    experiment: Experiment
    run: RunFiles
    log: LogText
    verdict: Verdict | None
    outputs: list[Outputs]
    peers: list[Peer]
    others_failed_alike: list[str] = field(default_factory=list)
    now_s: float | None = None
    held_by: str | None = None

    @property
    def attempt(self) -> Attempt | None:
        return self.experiment.last

    @cached_property
    def curve(self) -> Curve:
        return Curve(self.run.log)

    @property
    def worst(self) -> Outputs | None:
        """The answers to the task that went worst against chance."""
        return self.outputs[0] if self.outputs else None

    @cached_property
    def beside(self) -> list[Outputs]:
        """Controls and other methods on the task of ``worst``."""
        return others_of(self.run, self.worst) if self.worst else []

    def control(self, name: str) -> Outputs | None:
        """The worst task's answers under a control."""
        method = self.worst.answered.header.get("method") if self.worst else None
        for other in self.beside:
            if other.answered.header.get("control") == name and other.answered.header.get("method") == method:
                return other
        return None

    @property
    def validation(self) -> float | None:
        """The best validation: of the finished run, else of the log."""
        value = self.run.summary.get("validation")
        if isinstance(value, (int, float)):
            return float(value)
        points = self.curve.points("validation")
        return max((point.value for point in points), default=None)

    @property
    def is_poor(self) -> bool:
        """The run ended without an error and is no better than chance, or its output is invalid."""
        if self.verdict is not None:
            return False
        if self.worst is not None:
            return self.worst.is_poor
        labels = self.run.rows_of("validation").get("labels") or {}
        if self.validation is None or not labels:
            return False
        return self.validation <= max(labels.values()) / sum(labels.values())

    @property
    def is_deaf(self) -> bool:
        """Another row's message gives the same score: nothing of the message was used."""
        shuffled = self.control("shuffled")
        if self.worst is None or shuffled is None:
            return False
        return self.worst.low <= shuffled.value and self.worst.value - shuffled.value <= SAME_SCORE

    @property
    def is_unended(self) -> bool:
        """The last attempt has a start and no end."""
        attempt = self.attempt
        if self.experiment.state in (State.RUNNING, State.LOST):
            return True
        return attempt is not None and attempt.state in (State.RUNNING, State.LOST)

    def setting(self, key: str) -> Any:
        """A setting of the run by its dotted key, None where it is not known."""
        node: Any = self.run.config
        for part in key.split("."):
            if not isinstance(node, dict):
                return None
            node = node.get(part)
        return node

    def train_again(self, **changes: Any) -> str:
        """The command that repeats this training with some settings changed, in a folder of its own.

        Dots in keys are written as two underscores.
        """
        settings = {key.replace("__", "."): value for key, value in changes.items()}
        pairs = [part for key, value in settings.items() for part in ("--set", f"{key}={_yaml(value)}")]
        folder = f"{self.experiment.run_folder or 'runs/' + self.experiment.name}-check"
        command = list(self.experiment.command)
        if self.run.config_path is not None:
            return shlex.join(["latentwire", "train", self.run.config_path, *pairs, "--set", f"output_dir={folder}"])
        if any(part.endswith("train_telepathy.py") for part in command) or "train" in command[:4]:
            return shlex.join([*command, *pairs, "--set", f"output_dir={folder}"])
        return shlex.join(command) if command else f"latentwire train CONFIG {shlex.join(pairs)}".strip()

    def run_again(self) -> str:
        """The command that sends this experiment back to the queue."""
        return shlex.join(["python", "scripts/experiment_manager.py", "--mark-rerun", self.experiment.name])


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    return f"{value:g}" if isinstance(value, float) else str(value)


class Hypothesis(ABC):
    """One possible cause.

    Class attributes: ``name`` for JSON, ``title`` the cause in one line, ``mechanism`` how it leads to what was seen.
    """

    name: str
    title: str
    mechanism: str

    @abstractmethod
    def evidence(self, case: Case) -> Iterator[Evidence]:
        """What speaks for it and against it; nothing at all where the files cannot tell."""

    @abstractmethod
    def fix(self, case: Case) -> str:
        """What to change."""

    @abstractmethod
    def command(self, case: Case) -> str:
        """The one command that would show whether this is the cause."""

    def describe(self, case: Case) -> tuple[str, str]:
        """Title and mechanism for this case."""
        return self.title, self.mechanism


@dataclass(frozen=True)
class Finding:
    """A hypothesis weighed against a case."""

    name: str
    title: str
    mechanism: str
    score: float
    speaks_for: tuple[Evidence, ...]
    speaks_against: tuple[Evidence, ...]
    fix: str
    command: str

    @property
    def is_found(self) -> bool:
        return self.score >= FOUND

    @property
    def confidence(self) -> str:
        """``certain``, ``strong``, ``some`` or ``weak``, from the score."""
        steps = ((8.0, "certain"), (4.0, "strong"), (FOUND, "some"))
        return next((word for least, word in steps if self.score >= least), "weak")


HYPOTHESES: list[Hypothesis] = []


def register(kind: type[Hypothesis]) -> type[Hypothesis]:
    """Class decorator: the hypothesis is weighed in every diagnosis."""
    HYPOTHESES.append(kind())
    return kind


def weigh(case: Case) -> list[Finding]:
    """Every hypothesis that something speaks for, the best supported first; equals keep the order of registration."""
    findings = []
    for hypothesis in HYPOTHESES:
        seen = list(hypothesis.evidence(case))
        if not any(item.weight > 0 for item in seen):
            continue
        title, mechanism = hypothesis.describe(case)
        findings.append(
            Finding(
                name=hypothesis.name,
                title=title,
                mechanism=mechanism,
                score=round(sum(item.weight for item in seen), 2),
                speaks_for=tuple(sorted((item for item in seen if item.weight > 0), key=lambda item: -item.weight)),
                speaks_against=tuple(item for item in seen if item.weight < 0),
                fix=hypothesis.fix(case),
                command=hypothesis.command(case),
            )
        )
    ranked = sorted(findings, key=lambda finding: -finding.score)
    if sum(finding.is_found for finding in ranked) > 1:
        # that nothing is known is said only where nothing is
        ranked = [finding for finding in ranked if finding.name != LAST_RESORT]
    return ranked
