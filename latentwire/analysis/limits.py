"""What worked so far: one entry per measured kind of task, bridge and rate, and a verdict that is computed, never typed.

``limits.json`` beside this module holds ``{"schema_version": 1, "entries": [LimitEntry, …]}``. Entries are made from result
files that hold a bridge and the receiver reading the text over the same rows (``latentwire limits add``); nothing is typed by
hand. ``docs/limits.md`` is rendered from it, and preflight reads it.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from latentwire.bridges import bridge_config
from latentwire.config import RESULTS_FILE
from latentwire.data.task import Task, load_task
from latentwire.data.task_config import TaskVariant
from latentwire.errors import ArtefactError, DataError, UsageError
from latentwire.evaluation.results import ResultRow, Results, read_results
from latentwire.evaluation.run_folder import line_of
from latentwire.files import read_json, write_json
from latentwire.schema import Schema, validated

LIMITS_FILE = Path(__file__).parent / "limits.json"
SCHEMA_VERSION = 1
#: of the score of the receiver reading the text
WORKS, RISKY = 0.90, 0.50
#: a receiver that is nearer to chance than this share of the way to 1 does not read the task
READS = 0.5
KINDS = ("classification", "multiple choice", "spans", "arithmetic", "free text")

Verdict = Literal["works", "risky", "fails"]
VERDICTS: tuple[Verdict, ...] = ("works", "risky", "fails")


class SeedScore(Schema):
    """One seed's score with its 95 % interval, and how far the same bridge came with another row's message."""

    seed: int | None
    score: float
    ci_low: float
    ci_high: float
    shuffled: float | None


class LimitEntry(Schema):
    """One measured case. Scores are 0–1; message size is the mean over the rows."""

    kind: Literal["classification", "multiple choice", "spans", "arithmetic", "free text"]
    task: str
    sender: str
    receiver: str
    #: ``pooled``, ``perceiver``, …, with the message's number format behind an @ where it is not the receiver's
    bridge: str
    #: how many soft tokens a message has, in words
    rate: str
    message_tokens: float
    message_bytes: float
    metric: str
    split: str
    n: int
    #: tasks that the bridge was trained on together
    tasks_together: int = Field(ge=1)
    chance: float
    text_score: float
    seeds: tuple[SeedScore, ...] = Field(min_length=1)
    #: hash of what the run's config sets, without its seed: runs that differ in nothing else are seeds of one entry
    settings: str
    #: what makes the numbers again
    command: str

    @property
    def score(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(seed.score for seed in self.seeds)

    @property
    def interval(self) -> tuple[float, float]:
        """The widest that the seeds' 95 % intervals span together."""
        return min(seed.ci_low for seed in self.seeds), max(seed.ci_high for seed in self.seeds)

    @property
    def relative(self) -> float | None:
        """Score over that of the receiver reading the text; None where that reads nothing right."""
        return self.score / self.text_score if self.text_score else None

    @property
    def shown_relative(self) -> str:
        return "–" if self.relative is None else f"{self.relative:.2f}"

    @property
    def reader_is_weak(self) -> bool:
        """Whether the receiver reading the text is itself far from able: a share of its score then says little."""
        return self.text_score - self.chance < READS * (1 - self.chance)

    @property
    def communicates(self) -> bool:
        """Whether the score is above what chance and another row's message give."""
        nothing = max(self.chance, *(seed.shuffled or 0.0 for seed in self.seeds))
        return self.interval[0] > nothing

    @property
    def verdict(self) -> Verdict:
        """``works`` from 90 % of the receiver reading the text on, ``risky`` from 50 %, and never without communication."""
        if not self.communicates:
            return "fails"
        # where the receiver reads nothing right, all that arrives is more than it had
        return "works" if self.relative is None or self.relative >= WORKS else "risky" if self.relative >= RISKY else "fails"

    @property
    def key(self) -> tuple[str, ...]:
        names = (self.kind, self.task, self.sender, self.receiver, self.bridge, self.rate, self.metric, self.split, self.settings)
        return (*names, f"{self.n:09d}")

    def as_dict(self) -> dict[str, Any]:
        """JSON with what is computed beside what is stored."""
        computed = {
            "score": self.score, "ci_low": self.interval[0], "ci_high": self.interval[1], "relative": self.relative,
            "verdict": self.verdict, "reader_is_weak": self.reader_is_weak,
        }  # fmt: skip
        return {**self.model_dump(mode="json"), **computed}


def read_limits(path: Path | None = None, *, missing_is_empty: bool = True) -> list[LimitEntry]:
    """All entries. Raises ``ArtefactError`` where the file is cut, of another schema or, unless told otherwise, missing."""
    path = path or LIMITS_FILE
    if missing_is_empty and not path.exists():
        return []
    content = read_json(path, what="limits file")
    if (
        not isinstance(content, dict)
        or content.get("schema_version") != SCHEMA_VERSION
        or not isinstance(content.get("entries"), list)
    ):
        raise ArtefactError(
            f"limits file {str(path)!r} is not of schema {SCHEMA_VERSION}; restore it or fill it with `latentwire limits add`"
        )
    return [validated(LimitEntry, entry, where=str(path)) for entry in content["entries"]]


def write_limits(entries: Iterable[LimitEntry], path: Path | None = None) -> None:
    """Writes the file whole or not at all, by kind and name, so that git shows small differences."""
    ordered = sorted(entries, key=lambda entry: (KINDS.index(entry.kind), *entry.key))
    write_json(
        path or LIMITS_FILE, {"schema_version": SCHEMA_VERSION, "entries": [entry.model_dump(mode="json") for entry in ordered]}
    )


def merged(entries: Sequence[LimitEntry], new: Sequence[LimitEntry]) -> list[LimitEntry]:
    """``entries`` with the new ones: further seeds join the entry of their settings, a seed measured again replaces the old."""
    found = {entry.key: entry for entry in entries}
    for entry in new:
        old = found.get(entry.key)
        if old is not None:
            known = {seed.seed for seed in entry.seeds}
            kept = tuple(seed for seed in old.seeds if seed.seed not in known)
            seeds = tuple(sorted((*kept, *entry.seeds), key=lambda seed: seed.seed or 0))
            command = _joined(old.command, entry.command) if kept else entry.command
            entry = entry.model_copy(update={"seeds": seeds, "command": command})
        found[entry.key] = entry
    return list(found.values())


def _joined(known: str, new: str) -> str:
    """The commands of seeds that were measured apart, each once."""
    return known if f"; {new}; " in f"; {known}; " else f"{known}; {new}"


def entries_of(location: Path, *, command: str | None = None) -> tuple[list[LimitEntry], dict[str, str]]:
    """The entries in the ``results.json`` of a run folder, or in a result file; and what the prediction check found in other tasks.

    Raises:
        DataError: no task in it has both a bridge and the receiver reading the text, or the check found something in each that has.
            ArtefactError: the file is not sound. UsageError: it is not a run's own, and no command is given.
    """
    path = location / RESULTS_FILE if location.is_dir() else location
    results = read_results(path)
    if other := next((row["split"] for row in results["rows"] if row["split"] != "test"), None):
        raise DataError(
            f"{str(path)!r} holds scores of {other} rows, which the bridge has met; run `latentwire eval` without --split"
        )
    # another method that gives one answer to all rows says nothing against the bridge
    decisive = [row for row in results["rows"] if row["method"].startswith("bridge:") or row["method"] == "receiver_text"]
    left_out = {row["task"]: row["problems"][0] for row in decisive if row["problems"]}
    command = command or _command(location, results)
    entries = [
        _entry(results, bridge, text, command)
        for bridge in results["rows"]
        if bridge["method"].startswith("bridge:") and bridge["control"] is None and bridge["subset"] == "all"
        if (text := _row(results, bridge, "receiver_text", None)) is not None and _is_headline(results, bridge)
        if bridge["task"] not in left_out
    ]
    if not entries and left_out:
        problem = next(iter(left_out.values()))
        raise DataError(f"{str(path)!r} is a run whose prediction check failed ({problem}); run `latentwire eval` again")
    if not entries:
        raise DataError(
            f"{str(path)!r} holds no task with both bridge and receiver_text; run `latentwire eval RUN` with both methods"
        )
    return merged([], entries), left_out


def _entry(results: Results, bridge: ResultRow, text: ResultRow, command: str) -> LimitEntry:
    run = results["run"]
    config = run["config"]
    name = bridge["method"].removeprefix("bridge:")
    shuffled = _row(results, bridge, bridge["method"], "shuffled")
    task = _task(config, bridge["task"])
    return LimitEntry(
        kind=kind_of(task),
        task=task.name,
        sender=run["models"]["sender"]["name"],
        receiver=run["models"]["receiver"]["name"],
        bridge=name,
        rate=bridge_config(config["bridge"], where="result file").describe_rate(),
        message_tokens=bridge["message_tokens"],
        message_bytes=bridge["message_bytes"],
        metric=bridge["metric"],
        split=bridge["split"],
        n=bridge["n"],
        # a comparison trains a bridge for each task, an evaluation has one for all
        tasks_together=max(1, len(config.get("task", ()))) if "bridge" in results["run"]["models"] else 1,
        chance=bridge["chance"],
        text_score=text["value"],
        seeds=(
            SeedScore(
                seed=bridge["seed"],
                score=bridge["value"],
                ci_low=bridge["ci_low"],
                ci_high=bridge["ci_high"],
                shuffled=None if shuffled is None else shuffled["value"],
            ),
        ),
        settings=line_of(config),
        command=command,
    )


def _row(results: Results, like: ResultRow, method: str, control: str | None) -> ResultRow | None:
    """The row of another method or control over the same rows of the same task."""
    for row in results["rows"]:
        same = all(row[key] == like[key] for key in ("task", "split", "subset", "metric", "n"))
        if same and row["method"] == method and row["control"] == control and row["seed"] in (None, like["seed"]):
            return row
    return None


def _is_headline(results: Results, row: ResultRow) -> bool:
    """Whether the row's metric is the first that its task reports."""
    return row["metric"] == next(other["metric"] for other in results["rows"] if other["task"] == row["task"])


def _task(config: dict[str, Any], name: str) -> Task:
    """The task of a result row: a shipped one, or a user's file that the run's config names."""
    variant = validated(TaskVariant, config.get("variant", {}), where="result file: variant")
    paths = [path for path in config.get("task", ()) if str(path).endswith((".yaml", ".yml"))]
    for path in paths:
        if (task := load_task(str(path), variant)).name == name:
            return task
    return load_task(name, variant)


def kind_of(task: Task) -> Literal["classification", "multiple choice", "spans", "arithmetic", "free text"]:
    """The kind of answer that must arrive: a label, a letter, a span of the text, a computed number, or any text."""
    if task.config.kind == "classification":
        return "classification"
    if task.config.kind == "multiple_choice":
        return "multiple choice"
    if task.config.kind == "span":
        return "spans"
    return "arithmetic" if {"number_match", "final_answer"} & set(task.config.metrics) else "free text"


def _command(location: Path, results: Results) -> str:
    """What makes the numbers of a run again. Raises ``UsageError`` where a comparison does not say it."""
    folder = location if location.is_dir() else location.parent
    if "bridge" not in results["run"]["models"] or (location.name != RESULTS_FILE and location != folder):
        raise UsageError(f"{str(location)!r} does not say which command makes it again; give it with --command 'latentwire …'")
    # as typed, without what only one machine has
    return f"latentwire eval {folder if not folder.is_absolute() else Path('runs') / folder.name}"


# ------------------------------------------------------------------------------------------------------------ the page

_HEAD = """# What works, what is risky, what fails

Made by `latentwire limits page` from `latentwire/analysis/limits.json`; `latentwire limits add RUN` adds measured runs. Every score
comes from a result file; commands are as whoever added the run gave them. What the prediction check marks invalid is left out.
`latentwire preflight` reads the same file.

- **relative**: the bridge's score over that of the receiver reading the text, on the same rows, context-unaware.
- **works** from {works:.0%} on, **risky** from {risky:.0%} on, **fails** below, and wherever the score's 95 % interval does not lie
  above chance and above the score with another row's message.
- **\\*** the receiver itself is not halfway from chance to 1 when it reads the text: a share of its score then says little.
- Scores are means over the seeds; intervals the widest that the seeds' 95 % intervals span together.
"""


def limits_page(entries: Sequence[LimitEntry]) -> str:
    """``docs/limits.md``: one table for each kind of task; of a task what works first, and the best of that."""
    lines = [_HEAD.format(works=WORKS, risky=RISKY)]
    if not entries:
        lines.append("Nothing is measured yet.\n")
    for kind in KINDS:
        own = sorted((entry for entry in entries if entry.kind == kind), key=_best_first)
        lines.append(f"## {kind.capitalize()}\n")
        if not own:
            lines.append("Not measured yet.\n")
            continue
        lines.append("| | task | pair | bridge | message | score | reads the text | relative | n | seeds |")
        lines.append("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
        lines += [_page_row(entry) for entry in own]
        lines.append("")
    commands = sorted({(entry.command, entry.task) for entry in entries})
    if commands:
        lines.append("## Commands\n")
        for command in dict.fromkeys(command for command, _ in commands):
            tasks = ", ".join(dict.fromkeys(task for other, task in commands if other == command))
            lines.append(f"- {tasks}: `{command}`")
        lines.append("")
    return "\n".join(lines)


def _best_first(entry: LimitEntry) -> tuple[str, int, float]:
    return entry.task, VERDICTS.index(entry.verdict), -(entry.relative or 0.0)


def _page_row(entry: LimitEntry) -> str:
    low, high = entry.interval
    star = " \\*" if entry.reader_is_weak else ""
    cells = [
        f"**{entry.verdict}**{star}",
        entry.task,
        f"{entry.sender} → {entry.receiver}",
        f"{entry.bridge}, {entry.rate}{f', {entry.tasks_together} tasks' if entry.tasks_together > 1 else ''}",
        f"{entry.message_tokens:.0f} tokens, {entry.message_bytes:,.0f} B",
        f"{100 * entry.score:.1f} ({100 * low:.1f}–{100 * high:.1f})",
        f"{100 * entry.text_score:.1f}",
        entry.shown_relative,
        f"{entry.n:,}",
        str(len(entry.seeds)),
    ]
    return f"| {' | '.join(cells)} |"
