"""Hypotheses about how a run ended: an error of a known class, or no word at all.

Standard library only, Python 3.9.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timezone

from latentwire.experiments.diagnosis.hypotheses import HYPOTHESES, Case, Evidence, Hypothesis, register
from latentwire.experiments.diagnosis.peers import tasks_of
from latentwire.experiments.failures.classes import MENDS, SYSTEMIC, classify
from latentwire.experiments.registry.model import ErrorClass, State

#: weight of the run's own error: nothing else comes near it
NAMED = 10.0
#: a run that wrote within this time is probably alive
ALIVE_S = 900.0

#: error class → (title, mechanism). A class with a hypothesis of its own (nan, data) is explained there.
ENDINGS: dict[ErrorClass, tuple[str, str]] = {
    ErrorClass.OOM: (
        "Out of memory",
        "Memory grows with rows per batch × tokens per row × options per row: the receiver keeps activations for every position of "
        "every row until the backward pass. The step that did not fit asked for more than was left.",
    ),
    ErrorClass.IMPORT: (
        "A module or program of the environment is missing",
        "The process did not get as far as its work: what it imports is not in the environment that the job activated. Every "
        "experiment that needs it fails in the same way.",
    ),
    ErrorClass.TIMEOUT: (
        "The time limit ended it",
        "The work was healthy and longer than the time it was given. What stands in the checkpoint is not lost.",
    ),
    ErrorClass.PREEMPTED: (
        "It was taken off the machine",
        "Pre-emption, a requeue or a cancellation stopped the process; nothing in the experiment was wrong. What stands in the "
        "checkpoint is not lost.",
    ),
    ErrorClass.DISK_QUOTA: (
        "No space, or no quota, where it writes",
        "Sender states, model files and checkpoints are written whole or not at all; the write that did not fit ended the run. "
        "Home folders of clusters have small quotas, and the Hub's cache is there unless told otherwise.",
    ),
    ErrorClass.PERMISSION: (
        "It may not write or run what it needs",
        "The operating system refused a file or folder: another owner, a read-only mount, or a script without the execute bit.",
    ),
    ErrorClass.DEVICE_MISMATCH: (
        "Parts on different devices, or no device",
        "One tensor is where another is not, or the GPU that was asked for is not visible to the job.",
    ),
    ErrorClass.DTYPE_MISMATCH: (
        "Number formats that do not go together",
        "A product or kernel got two number formats, or one that the device has no kernel for. Bridges are float32; the models "
        "have the dtype of their config.",
    ),
    ErrorClass.SHAPE: (
        "Shapes that do not go together",
        "Widths, token ids or rows of different length met in one operation: usually a bridge for other models than those loaded, "
        "a tokenizer of another model, or rows that were not padded.",
    ),
    ErrorClass.CONFIG: (
        "The config or command line was refused",
        "A setting is unknown, of the wrong kind, or does not go with another. Nothing was computed.",
    ),
    ErrorClass.HUB_ACCESS: (
        "A model or data set could not be had from the Hub",
        "Compute nodes often have no network, and gated models need a login and an accepted licence: what is not in the "
        "cache beforehand cannot be loaded there.",
    ),
    ErrorClass.NETWORK: (
        "The network failed",
        "A connection was refused, reset or not answered. Such failures pass, or the node has no network at all.",
    ),
    ErrorClass.UNKNOWN: (
        "It ended by an error of no known class",
        "The last lines of the log are all that is known of the end.",
    ),
}


def own_error(case: Case) -> Evidence:
    """The run's last error as evidence, with the line that shows it."""
    assert case.verdict is not None
    place = case.log.place_of(case.verdict.message) if case.log.text else None
    raised = f", raised at {case.verdict.where}" if case.verdict.where else ""
    return Evidence(f"the attempt ended with “{case.verdict.message}”{raised}", NAMED, place or case.verdict.where)


def ended_by(case: Case, error_class: ErrorClass) -> bool:
    """Whether the last attempt ended by an error of this class."""
    return case.verdict is not None and case.verdict.error_class is error_class and not case.is_unended


class NamedEnding(Hypothesis):
    """The run's own error, for one class."""

    def __init__(self, error_class: ErrorClass) -> None:
        self.error_class = error_class
        self.name = error_class.value
        self.title, self.mechanism = ENDINGS[error_class]

    def evidence(self, case: Case) -> Iterator[Evidence]:
        if not ended_by(case, self.error_class):
            return
        yield own_error(case)
        alike = [attempt for attempt in case.experiment.attempts if attempt.error_class is self.error_class]
        if len(alike) > 1:
            yield Evidence(f"{len(alike)} of {len(case.experiment.attempts)} attempts ended in this class", 1.0)
        if case.others_failed_alike:
            names = ", ".join(case.others_failed_alike[:3])
            place = "the place, not this experiment, is at fault" if self.error_class in SYSTEMIC else "they may share the cause"
            yield Evidence(f"{len(case.others_failed_alike)} other experiment(s) ended in this class ({names}): {place}", 1.0)
        yield from self.specific(case)

    def specific(self, case: Case) -> Iterator[Evidence]:
        return iter(())

    def fix(self, case: Case) -> str:
        return MENDS[self.error_class]

    def command(self, case: Case) -> str:
        return case.run_again()


class MemoryEnding(NamedEnding):
    """Out of memory, with what decides memory."""

    def __init__(self) -> None:
        super().__init__(ErrorClass.OOM)

    def specific(self, case: Case) -> Iterator[Evidence]:
        batch = case.setting("training.batch_size")
        if batch is not None:
            yield Evidence(f"training.batch_size is {batch}", 0.5, case.run.config_place("training.batch_size"))
        for peer in case.peers:
            theirs = peer.differences.get("training.batch_size", (None, None))[1]
            if peer.same_task and isinstance(theirs, int) and isinstance(batch, int) and theirs < batch:
                yield Evidence(f"{peer.name} on the same task completed with training.batch_size {theirs}", 1.0, peer.folder)
                break
        step = case.curve.last_step
        if step:
            yield Evidence(f"it had reached step {step}, so most batches fit; the rows of one batch were longer", 0.5)

    def fix(self, case: Case) -> str:
        batch = case.setting("training.batch_size")
        halved = (
            f"halve training.batch_size ({batch} → {max(1, batch // 2)})" if isinstance(batch, int) else "halve training.batch_size"
        )
        return f"{halved}, shorten limits.sender_tokens of the task, or use a GPU with more memory"

    def command(self, case: Case) -> str:
        batch = case.setting("training.batch_size")
        return case.train_again(training__batch_size=max(1, batch // 2) if isinstance(batch, int) else 8)


HYPOTHESES.append(MemoryEnding())
HYPOTHESES.extend(NamedEnding(error_class) for error_class in ENDINGS if error_class is not ErrorClass.OOM)


@register
class EndedWithoutAWord(Hypothesis):
    """Marked as running, and nobody is there."""

    name = "lost"
    title = "The process ended without a word; the experiment was left “running”"
    mechanism = (
        "Whoever ends well writes an event: completed, failed or preempted. Here there is a start and no end, so the process was "
        "killed from outside (SIGKILL after the grace time, the kernel's memory killer, a node that failed) before it could write."
    )

    def evidence(self, case: Case) -> Iterator[Evidence]:
        attempt = case.attempt
        if not case.is_unended or attempt is None:
            return
        where = (
            f"job {attempt.job_id} on {attempt.host}" if attempt.job_id else f"host {attempt.host or 'unknown'}, pid {attempt.pid}"
        )
        yield Evidence(f"attempt {attempt.generation} ({where}) started {attempt.started} and has no end", 4.0)
        if case.held_by is not None:
            yield Evidence(f"its lease is kept alive: {case.held_by}", -12.0)
        if case.experiment.state is State.LOST:
            yield Evidence(f"its lease ran out: {case.experiment.reason}", 4.0)
        explained = classify(exit_code=-9, log_text=case.log.text)
        if case.log.text and explained.error_class is not ErrorClass.UNKNOWN:
            yield Evidence(f"the log tells who ended it: “{explained.message}”", 4.0, case.log.place_of(explained.message))
        elif case.log.text:
            yield Evidence(f"the log breaks off at “{case.log.last_line[:120]}”", 1.0, case.log.end)
        if case.curve.last_step is not None and not case.run.summary:
            total = case.setting("training.steps")
            text = f"log.jsonl ends at step {case.curve.last_step} of {total}, and there is no train.json"
            yield Evidence(text, 2.0, case.run.log_place(len(case.run.log) - 1))
        yield from self._age(case)

    def _age(self, case: Case) -> Iterator[Evidence]:
        if case.run.last_write_s is None or case.now_s is None or case.experiment.state is State.LOST:
            return
        age = case.now_s - case.run.last_write_s
        when = datetime.fromtimestamp(case.run.last_write_s, tz=timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        if age > ALIVE_S:
            yield Evidence(f"its folder was last written {when}, {age / 3600:.1f} hours ago", 2.0)
        else:
            yield Evidence(f"its folder was written {age:.0f} s ago: it may well be alive", -6.0)

    def fix(self, case: Case) -> str:
        if case.run.checkpoint:
            return f"run it again: it resumes from {case.run.checkpoint}, nothing before it is lost"
        return "run it again from the start; lower training.checkpoint_every so that a kill costs less"

    def command(self, case: Case) -> str:
        return case.run_again()


@register
class Diverged(Hypothesis):
    """The learning rate is too high for this loss."""

    name = "diverged"
    title = "Training diverged: steps too large"
    mechanism = (
        "Each update overshoots, so the loss grows instead of falling until a number overflows. The usual reasons are a "
        "learning rate too high for the optimiser, too short a warm-up, or float16, whose range ends at 65,504."
    )

    def evidence(self, case: Case) -> Iterator[Evidence]:
        stopped = case.curve.non_finite
        if ended_by(case, ErrorClass.NAN):
            yield own_error(case)
        if stopped is not None:
            index, entry = stopped
            text = f"{entry.get('non_finite')} was no finite number at step {entry.get('step')}"
            yield Evidence(f"{text}; the last finite loss was {entry.get('last_finite_loss')}", 4.0, case.run.log_place(index))
        losses = case.curve.losses
        if len(losses) >= 3:
            first, last, least = losses[0], losses[-1], min(point.value for point in losses)
            if last.value > 1.2 * first.value and last.value > 1.5 * least:
                text = f"the loss rose from {first.value:.3f} (step {first.step}) to {last.value:.3f} (step {last.step})"
                yield Evidence(text, 3.0, case.run.log_place(last.index))
            elif stopped is not None:
                yield Evidence("the loss did not rise before it", -0.5)
        yield from self._rate(case, diverged=stopped is not None or ended_by(case, ErrorClass.NAN))

    def _rate(self, case: Case, *, diverged: bool) -> Iterator[Evidence]:
        if not diverged:
            return
        rate = case.setting("training.lr")
        optimiser = case.setting("training.optimizer")
        most = 3e-3 if optimiser == "adamw" else 5e-2
        place = case.run.config_place("training.lr")
        if isinstance(rate, (int, float)) and rate > most:
            yield Evidence(f"training.lr is {rate:g}, far above what {optimiser} bears (about {most:g})", 2.0, place)
        for peer in case.peers:
            theirs = peer.differences.get("training.lr", (None, None))[1]
            if isinstance(theirs, (int, float)) and isinstance(rate, (int, float)) and theirs < rate:
                yield Evidence(f"{peer.name} worked with training.lr {theirs:g}", 1.0, peer.folder)
                break
        formats = {end: case.setting(f"{end}.dtype") for end in ("sender", "receiver")}
        if "float16" in formats.values():
            yield Evidence("a model runs in float16, whose range ends at 65,504", 1.0, case.run.config_place("receiver.dtype"))

    def fix(self, case: Case) -> str:
        rate = case.setting("training.lr")
        lower = f"lower training.lr ({rate:g} → {_lower(case):g})" if isinstance(rate, (int, float)) else "lower training.lr"
        return f"{lower}, or lengthen training.warmup_steps; use bfloat16 or float32 instead of float16"

    def command(self, case: Case) -> str:
        return case.train_again(training__lr=_lower(case))


def _lower(case: Case) -> float:
    """A tenth of the rate, or what the optimiser is known to bear where the rate is out of all proportion."""
    rate = case.setting("training.lr")
    safe = 2e-4 if case.setting("training.optimizer") == "adamw" else 1e-2
    return min(rate / 10, safe) if isinstance(rate, (int, float)) else safe


@register
class InvalidResult(Hypothesis):
    """Refused when it was to be completed."""

    name = "invalid_result"
    title = "The result was refused"
    mechanism = (
        "The work ended without an error, and a check found that its result cannot be believed: no result file, no finite number, "
        "or answers that no working method gives."
    )

    def evidence(self, case: Case) -> Iterator[Evidence]:
        if case.experiment.state is not State.INVALID:
            return
        yield Evidence(f"the registry says: {case.experiment.reason}", 2.0)
        rows = case.run.results.get("rows")
        problems = (
            [line for row in rows if isinstance(row, dict) for line in row.get("problems", [])] if isinstance(rows, list) else []
        )
        for line in list(dict.fromkeys(problems))[:3]:
            yield Evidence(f"the prediction check found: {line}", 1.0, case.run.results_path or None)
        if not case.run.results and not case.run.answered:
            yield Evidence("there is no result file and no prediction", 2.0, case.run.results_path or None)

    def fix(self, case: Case) -> str:
        return "mend what the check found, then evaluate again"

    def command(self, case: Case) -> str:
        if case.run.summary and case.run.folder:
            return f"latentwire eval {case.run.folder}"
        return case.run_again()


@register
class BadRows(Hypothesis):
    """The data do not fit; what has a hypothesis of its own is told there."""

    name = "data"
    title = "Rows or files of the data do not fit"
    mechanism = "A file is missing, cut or of another form, or a row has a field, label or length that the task does not allow."

    def evidence(self, case: Case) -> Iterator[Evidence]:
        if ended_by(case, ErrorClass.DATA):
            yield own_error(case)
            revision = case.run.rows_of("train").get("revision")
            if revision:
                yield Evidence(f"the rows are {revision}", 0.5, case.run.rows_place("revision"))

    def fix(self, case: Case) -> str:
        return MENDS[ErrorClass.DATA]

    def command(self, case: Case) -> str:
        name = next(iter(tasks_of(case.run.config)), "TASK")
        row = re.search(r"row \w+-(\d+)", case.verdict.message if case.verdict else "")
        data = case.setting("data.data_dir")
        folder = f" --data_dir {data}" if data else ""
        return f"latentwire tasks show {name} --split train --row {row[1] if row else 0}{folder}"
