"""Checks of a task that need the receiver, a measured bridge, or what was measured before."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentwire.analysis.limits import RISKY, WORKS, LimitEntry, kind_of
from latentwire.analysis.message_views import messages_of
from latentwire.analysis.preflight.findings import Check, Status
from latentwire.analysis.preflight.posed_rows import Posed
from latentwire.analysis.preflight.task_bits import Read, TaskBits, paired, read_answers, task_bits
from latentwire.bridges import bridge_config
from latentwire.bridges.base import Bridge
from latentwire.config import CONFIG_FILE
from latentwire.data.task import Example
from latentwire.evaluation.metrics import METRICS
from latentwire.evaluation.predictions import BY_TEXT
from latentwire.evaluation.rows import chance_of
from latentwire.evaluation.statistics import Estimate, mean_interval, score_interval
from latentwire.files import read_json
from latentwire.models.receiver import Receiver
from latentwire.models.sender import Sender
from latentwire.models.soft_tokens import SoftTokens

CAPACITY_FILE = "capacity.json"
#: share of the way from chance to 1: the receiver reads the task well; it does not read it at all
READS_WELL, READS_NOT = 0.5, 0.1
#: share of the score with the text that the receiver may reach without it
ALONE_MOST = 0.9


@dataclass(frozen=True)
class Reading:
    """What the receiver makes of ``n`` validation rows, with the text and without: scores by the headline metric, and bits."""

    metric: str
    with_text: Estimate
    alone: Estimate
    chance: float
    bits: TaskBits
    content_bits: float | None
    worst: str | None
    examples: tuple[Example, ...] = field(default=(), repr=False)
    without_bits: tuple[float, ...] = field(default=(), repr=False)

    @property
    def skill(self) -> float:
        """How far the receiver reading the text is on the way from chance to 1."""
        return (self.with_text.value - self.chance) / max(1e-9, 1 - self.chance)


def measure_reading(
    posed: Posed, receiver: Receiver, *, rows: int, advance: Callable[[int], None] = lambda rows: None
) -> Reading | None:
    """The receiver over at most ``rows`` validation rows (train rows where there are none); None where no row fits.

    Test rows are left alone: what is decided here is decided before the evaluation.
    """
    fitting = posed.fittings.get("validation") or posed.fittings["train"]
    examples = fitting.fitted[:rows]
    if not examples:
        return None
    limit = posed.task.config.max_new_tokens
    with_text = read_answers(
        receiver, examples, [row.receiver_prompt_aware for row in examples], max_new_tokens=limit, advance=advance
    )
    alone = read_answers(receiver, examples, [row.receiver_prompt for row in examples], max_new_tokens=limit, advance=advance)
    metric = next((name for name in posed.task.config.metrics if name != BY_TEXT), posed.task.config.metrics[0])
    scores = [_scores(metric, reads, examples) for reads in (with_text, alone)]
    content = [row.bits for row in examples if row.bits is not None]
    return Reading(
        metric=metric,
        with_text=score_interval(scores[0]),
        alone=score_interval(scores[1]),
        chance=chance_of([(row.answer, row.label, row.guess) for row in examples], metric),
        bits=task_bits(paired(examples, alone, with_text)),
        content_bits=statistics.fmean(content) if len(content) == len(examples) else None,
        worst=next((row.id for row, score in zip(examples, scores[0], strict=True) if score < 1), None),
        examples=examples,
        without_bits=tuple(read.bits for read in alone),
    )


@dataclass(frozen=True)
class Delivered:
    """What a trained bridge brings on the same rows: its score, and the bits by which its message shortens the answer."""

    score: Estimate
    bits: Estimate
    worst: str | None


def measure_bridge(posed: Posed, reading: Reading, bridge: Bridge, sender: Sender, receiver: Receiver) -> Delivered:
    """The receiver over the rows of ``reading`` once more, with the bridge's message in the place of the text."""

    def message(rows: Sequence[Example]) -> SoftTokens:
        return messages_of(bridge, sender, receiver, [row.sender_prompt for row in rows])

    prompts = [row.receiver_prompt for row in reading.examples]
    limit = posed.task.config.max_new_tokens
    reads = read_answers(receiver, reading.examples, prompts, max_new_tokens=limit, message=message)
    scores = _scores(reading.metric, reads, reading.examples)
    bits = [without - read.bits for without, read in zip(reading.without_bits, reads, strict=True)]
    worst = next((row.id for row, score in zip(reading.examples, scores, strict=True) if score < 1), None)
    return Delivered(score_interval(scores), mean_interval(bits), worst)


def bridge_delivers(posed: Posed, reading: Reading, delivered: Delivered, trained_on: Sequence[str]) -> Check:
    """Does this bridge, as it is, bring what the text brings?"""
    relative = delivered.score.value / reading.with_text.value if reading.with_text.value else 0.0
    text = (
        f"as it is: {_percent(delivered.score)} {reading.metric}, {relative:.2f} of the receiver reading the text; "
        f"its message brings {delivered.bits.value:.1f} bits of the {reading.bits.needed.value:.1f} that the text brings"
    )
    numbers: dict[str, float | int | str | None] = {
        "score": delivered.score.value, "relative": relative, "bits": delivered.bits.value, "needed": reading.bits.needed.value
    }  # fmt: skip
    if relative >= WORKS and delivered.score.low > reading.chance:
        return Check("this bridge", "pass", text, numbers=numbers)
    if not {posed.task.name, posed.task.path.name, str(posed.task.path)} & set(trained_on):
        text += "; it was not trained on this task"
        mend = f"`latentwire train CONFIG --set task={posed.task.name}`, beginning from this bridge where the config can"
        return Check("this bridge", "warn", text, delivered.worst, mend, numbers)
    status: Status = "warn" if relative >= RISKY and delivered.score.low > reading.chance else "fail"
    mend = "train longer, with a dense first stage, or send more soft tokens; `latentwire explain RUN` shows what a message says"
    return Check("this bridge", status, text, delivered.worst, mend, numbers)


def _scores(metric: str, reads: Sequence[Read], examples: Sequence[Example]) -> list[float]:
    pairs = [(read.prediction, row) for read, row in zip(reads, examples, strict=True) if read.prediction is not None]
    return [METRICS[metric](prediction, row) or 0.0 for prediction, row in pairs]


def receiver_reads(posed: Posed, reading: Reading | None) -> Check:
    """Does the receiver manage the task when it reads the text itself?"""
    name = "reading"
    if reading is None:
        return Check(name, "skip", "no row fits, so there is nothing to read")
    text, score, numbers = "", reading.with_text, _numbers(reading)
    text = f"the receiver reading the text: {_percent(score)} {reading.metric}, chance {reading.chance:.1%}, {reading.bits.n} rows"
    if reading.skill >= READS_WELL:
        return Check(name, "pass", text, numbers=numbers)
    text += f"; {max(0.0, reading.skill):.0%} of the way from chance to 100 %, wanted are {READS_WELL:.0%}"
    mend = "use a receiver that can do the task from text, or pose it so that it can (prompt_style, prompts, max_new_tokens)"
    if posed.task.has_options:
        text += "; a bridge can still teach it the labels, but it will not reason about the text"
        return Check(name, "warn", text, reading.worst, mend, numbers)
    status: Status = "fail" if reading.skill < READS_NOT or score.low <= reading.chance else "warn"
    return Check(name, status, f"{text}; no message can be read better than the text", reading.worst, mend, numbers)


def message_is_needed(reading: Reading | None) -> Check:
    """Does the receiver fail without the text, so that there is something to communicate?"""
    name = "without the text"
    if reading is None:
        return Check(name, "skip", "no row fits, so there is nothing to read")
    text = (
        f"the receiver alone: {_percent(reading.alone)}, chance {reading.chance:.1%}, with the text {_percent(reading.with_text)}"
    )
    above = reading.alone.low > reading.chance
    mend = "pose the task so that the answer depends on the context (`latentwire tasks show` prints what the receiver sees)"
    if above and reading.alone.value >= ALONE_MOST * reading.with_text.value:
        return Check(name, "fail", f"{text}: the question gives the answer away", mend=mend, numbers=_numbers(reading))
    if above:
        return Check(name, "warn", f"{text}: a part of the score needs no message", mend=mend, numbers=_numbers(reading))
    return Check(name, "pass", text, numbers=_numbers(reading))


def _numbers(reading: Reading) -> dict[str, float | int | str | None]:
    found = {"with_text": reading.with_text, "alone": reading.alone}
    ends = {f"{name}_{end}": getattr(estimate, end) for name, estimate in found.items() for end in ("value", "low", "high")}
    return {"metric": reading.metric, "chance": reading.chance, "skill": reading.skill, "n": reading.bits.n, **ends}


def _percent(score: Estimate) -> str:
    return f"{100 * score.value:.1f} % ({100 * score.low:.1f}–{100 * score.high:.1f})"


# ---------------------------------------------------------------------------------------------------------------- bits


@dataclass(frozen=True)
class MeasuredBits:
    """What ``latentwire capacity`` found for a run: bits per soft token and per message, on random codes."""

    per_soft_token: float | None
    best: float | None


def measured_bits(run_folder: Path | None) -> MeasuredBits | None:
    """The bits of a run's ``capacity.json``, None where it was not measured.

    The best length whose codes are exact counts, else the one with most bits. Raises ``ArtefactError`` where the file is cut.
    """
    if run_folder is None or not (run_folder / CAPACITY_FILE).is_file():
        return None
    content = read_json(run_folder / CAPACITY_FILE, what="capacity file")
    best = content.get("best") if isinstance(content, dict) else None
    point = (best.get("exact") or best.get("most")) if isinstance(best, dict) else None
    if isinstance(point, dict):
        return MeasuredBits(_number(point.get("bits_per_soft_token")), _number(point.get("bits")))
    if isinstance(content, dict):
        return MeasuredBits(_number(content.get("bits_per_soft_token")), _number(content.get("best_bits")))
    return None


def _number(value: Any) -> float | None:
    """A number, or the value of an estimate."""
    value = value.get("value") if isinstance(value, dict) else value
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def soft_tokens_per_message(posed: Posed) -> tuple[float | None, bool]:
    """Mean soft tokens of a message of this task, None where the bridge does not say; and whether they grow with the text."""
    settings = bridge_config(posed.config.bridge)
    if settings.sender_tokens_per_soft_token is None:
        return (None if settings.fixed_soft_tokens is None else float(settings.fixed_soft_tokens)), False
    rows = (posed.fittings.get("validation") or posed.fittings["train"]).fitted[:200]
    if not rows:
        return None, True
    ids, skip = posed.sender.context_ids([row.sender_prompt for row in rows])
    return statistics.fmean(settings.soft_tokens_of(len(own) - skip) or 0 for own in ids), True


def bits_suffice(posed: Posed, reading: Reading | None, run_folder: Path | None, *, works: bool = False) -> Check:
    """Can the message carry the bits that the task needs?

    Bits are measured on random codes. A bridge that was never taught codes or general text carries more of what it was taught than
    of those, so for it too few bits are a warning, and none at all say nothing. They are a warning too where the bridge ``works``:
    where the task itself was measured and arrives.
    """
    name = "bits"
    tokens, grows = soft_tokens_per_message(posed)
    size = (
        f"a message has {tokens:.0f} soft tokens" if tokens is not None else "the bridge does not say how many soft tokens it sends"
    )
    if reading is None:
        return Check(name, "skip", f"not measured without the receiver; {size}", numbers={"soft_tokens": tokens})
    bits = reading.bits
    text = f"needed per answer: {bits.needed.value:.1f} bits ({bits.needed.low:.1f}–{bits.needed.high:.1f}; "
    text += f"{bits.without.value:.1f} without the text, {bits.with_text.value:.1f} with it)"
    wanted, most = bits.needed.value, bits.most
    if posed.task.hides_question and reading.content_bits is not None:
        text += f"; the sender does not know the question, so the context's {reading.content_bits:.1f} bits must cross"
        # what an answer needs beyond that is how far the receiver's own guess is off, which no message has to say
        wanted = most = reading.content_bits
    elif posed.task.hides_question:
        text += "; at least: the sender does not know the question, so the answers to others must cross too"
    measured = measured_bits(run_folder)
    carried = _carried(measured, tokens, grows)
    numbers: dict[str, float | int | str | None] = {
        "needed": bits.needed.value, "wanted": wanted, "wanted_most": most, "soft_tokens": tokens, "carried": carried
    }  # fmt: skip
    if not bits.text_helps:
        why = (
            "the text makes the answer less likely for this receiver"
            if bits.needed.value < 0
            else "the text does not make the answer likelier"
        )
        mend = "mend the reading first: these bits say nothing about the task"
        return Check(name, "warn", f"{text}: {why}", mend=mend, numbers=numbers)
    if carried is None:
        where = str(run_folder) if run_folder is not None else "RUN"
        text = f"{text}; {size}; what they carry is not measured"
        return Check(name, "skip", text, mend=f"run `latentwire capacity {where}`", numbers=numbers)
    text = f"{text}; measured: {carried:.1f} bits of random codes a message ({size})"
    taught = _taught_codes(run_folder)
    if carried <= 0 and not taught:
        text += "; this bridge was taught neither codes nor general text, so that says nothing about its task"
        return Check(name, "skip", text, mend="measure a bridge that was pretrained on general text or codes", numbers=numbers)
    if carried < wanted:
        mend = "send more soft tokens (bridge.soft_tokens or bridge.tokens_per_soft_token), or train longer"
        return Check(name, "fail" if taught and not works else "warn", text, mend=mend, numbers=numbers)
    if carried < most:
        mend = f"one row in twenty needs {most:.1f} bits or more: send more soft tokens"
        return Check(name, "warn", text, mend=mend, numbers=numbers)
    return Check(name, "pass", text, numbers=numbers)


def _taught_codes(run_folder: Path | None) -> bool:
    """Whether the run taught its bridge random codes, or general text in a stage of its own."""
    tasks = tasks_of_run(run_folder)
    return any("code" in Path(name).stem or name == "stage1" for name in tasks)


def tasks_of_run(run_folder: Path | None) -> tuple[str, ...]:
    """What a run's bridge was trained on, as its config names it."""
    if run_folder is None or not (run_folder / CONFIG_FILE).is_file():
        return ()
    content = read_json(run_folder / CONFIG_FILE, what="run config")
    return tuple(str(name) for name in content["config"]["task"])


def _carried(measured: MeasuredBits | None, tokens: float | None, grows: bool) -> float | None:
    """Bits of a message: of the best one where its length is fixed, per soft token where it grows with the text."""
    if measured is None:
        return None
    if not grows and measured.best is not None:
        return measured.best
    if measured.per_soft_token is None or tokens is None:
        return measured.best
    return measured.per_soft_token * tokens


def measured_before(posed: Posed, entries: Sequence[LimitEntry], *, measured_now: bool = False) -> Check:
    """What did measured runs of this task, or of its kind, show? Where this very bridge was measured now, that decides instead."""
    name, kind = "measured before", kind_of(posed.task)
    settings = bridge_config(posed.config.bridge)
    own = [entry for entry in entries if entry.task == posed.task.name]
    label = settings.name + posed.config.message.suffix
    same = [entry for entry in own if (entry.bridge, entry.rate) == (label, settings.describe_rate())]
    if not own:
        of_kind = [entry for entry in entries if entry.kind == kind]
        counts = Counter(entry.verdict for entry in of_kind)
        what = f"{len(of_kind)} runs of {kind}: " + ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
        return Check(
            name, "skip", f"no run of this task; {what if of_kind else f'none of {kind} either'}", mend="see `latentwire limits`"
        )
    entry = max(same or own, key=lambda item: (_is_pair(item, posed), item.relative or 0.0))
    low, high = entry.interval
    text = (
        f"{entry.verdict}: {100 * entry.score:.1f} % ({100 * low:.1f}–{100 * high:.1f}), {entry.shown_relative} of the receiver "
        f"reading the text, with {entry.bridge}, {entry.rate}, {entry.sender} → {entry.receiver}"
    )
    numbers: dict[str, float | int | str | None] = {"score": entry.score, "relative": entry.relative, "verdict": entry.verdict}
    if measured_now or not same or not _is_pair(entry, posed):
        whose = "another pair" if not _is_pair(entry, posed) else "an earlier run"
        other = whose if same else "another bridge, rate or kind of message"
        return Check(name, "skip", f"{text}: {other}", mend="see `latentwire limits`", numbers=numbers)
    if entry.reader_is_weak:
        text += "; the receiver itself hardly reads this task"
    status: Status = "pass" if entry.verdict == "works" else "warn"
    return Check(
        name, status, text, mend="" if status == "pass" else "see `latentwire limits` for rates that work", numbers=numbers
    )


def _is_pair(entry: LimitEntry, posed: Posed) -> bool:
    return (entry.sender, entry.receiver) == (posed.sender.name, posed.receiver.name)


def skipped(name: str) -> Check:
    """A check that would need a model."""
    return Check(name, "skip", "needs the receiver; left out by --no-models")
