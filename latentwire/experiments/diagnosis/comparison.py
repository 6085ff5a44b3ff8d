"""What differs between two runs: outcome, settings, code and versions, data, curves, answers row by row.

Standard library only, Python 3.9.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentwire.experiments.diagnosis.curves import Curve, first_parting
from latentwire.experiments.diagnosis.files import Answered, RunFiles, flattened, read_run
from latentwire.experiments.diagnosis.outputs import outputs_of
from latentwire.experiments.diagnosis.peers import config_differences
from latentwire.experiments.registry.model import Experiment

SCHEMA_VERSION = 1
#: what two runs never share and nobody asks about
IDLE_KEYS = ("seconds", "name", "identity", "weights_sha256")


@dataclass(frozen=True)
class Difference:
    """One thing that differs. None: the run does not say."""

    group: str
    what: str
    a: Any
    b: Any


@dataclass(frozen=True)
class Agreement:
    """Two methods' answers to the same rows of one task, counted. ``other_rows`` stand in one of the files only."""

    task: str
    method: str
    control: str | None
    rows: int
    same_answer: int
    both_right: int
    only_a: int
    only_b: int
    both_wrong: int
    other_rows: int
    #: row ids of which one run alone is right, at most five of each
    examples_only_a: list[str]
    examples_only_b: list[str]


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side. ``parting`` is the step from which the loss curves stay apart by a tenth, with both losses."""

    a: str
    b: str
    differences: tuple[Difference, ...]
    parting: tuple[int, float, float] | None
    common_steps: int
    agreements: tuple[Agreement, ...]
    unreadable: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        parted = None
        if self.parting is not None:
            parted = {"step": self.parting[0], "loss_a": self.parting[1], "loss_b": self.parting[2]}
        return {
            "schema_version": SCHEMA_VERSION,
            "a": self.a,
            "b": self.b,
            "differences": [dict(vars(difference)) for difference in self.differences],
            "loss_curves_part": parted,
            "common_steps": self.common_steps,
            "agreement": [dict(vars(agreement)) for agreement in self.agreements],
            "unreadable": list(self.unreadable),
        }

    def as_markdown(self) -> str:
        """A table per group of differences, then curves and answers."""
        return "\n".join(_markdown(self)).rstrip() + "\n"


def compare_runs(a: Experiment, b: Experiment, *, root: Path) -> Comparison:
    """What differs between two experiments, from their own files under ``root`` (the folder that holds ``runs/``)."""
    left, right = read_run(a, root), read_run(b, root)
    parting = first_parting(Curve(left.log), Curve(right.log))
    steps = {point.step for point in Curve(left.log).points("loss")} & {point.step for point in Curve(right.log).points("loss")}
    return Comparison(
        a=a.name,
        b=b.name,
        differences=tuple(_differences(a, b, left, right)),
        parting=None if parting is None else (parting[0].step, parting[0].value, parting[1].value),
        common_steps=len(steps),
        agreements=tuple(_agreements(left, right)),
        unreadable=(*left.unreadable, *right.unreadable),
    )


# ---------------------------------------------------------------------------------------------------------- differences


def _differences(a: Experiment, b: Experiment, left: RunFiles, right: RunFiles) -> Iterator[Difference]:
    yield from _group("outcome", _outcome(a, left), _outcome(b, right))
    for key, (ours, theirs) in config_differences(left.config, right.config).items():
        yield Difference("config", key, ours, theirs)
    seeds = left.config.get("seed"), right.config.get("seed")
    if seeds[0] != seeds[1]:
        yield Difference("config", "seed", *seeds)
    for group in ("versions", "git", "hardware"):
        yield from _group(group, _facts(left, group), _facts(right, group))
    yield from _group("models", _facts(left, "models"), _facts(right, "models"))
    yield from _group("data", _data(left), _data(right))
    yield from _group("place", _place(a), _place(b))


def _group(group: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[Difference]:
    """Every key with two values; a group that one run does not tell at all is one line."""
    if bool(ours) != bool(theirs):
        yield Difference(group, "recorded", "yes" if ours else "no", "yes" if theirs else "no")
        return
    for key in [*ours, *(key for key in theirs if key not in ours)]:
        if ours.get(key) != theirs.get(key):
            yield Difference(group, key, ours.get(key), theirs.get(key))


def _outcome(experiment: Experiment, run: RunFiles) -> dict[str, Any]:
    last = experiment.last
    found: dict[str, Any] = {"state": experiment.state.value, "reason": experiment.reason}
    if last is not None:
        found["exit_code"] = last.exit_code
        found["error_class"] = last.error_class.value if last.error_class else None
        found["error"] = last.error
    for key in ("validation", "validation_loss", "best_step", "steps", "trainable_params", "train_rows", "validation_rows"):
        if key in run.summary:
            found[key] = run.summary[key]
    for answered in run.answered:
        outputs = outputs_of(answered)
        found[f"{outputs.task}, {_label(answered)}: {outputs.metric}"] = round(outputs.value, 4)
    return found


def _label(answered: Answered) -> str:
    control = answered.header.get("control")
    return f"{answered.header.get('method')}{f' ({control})' if control else ''}"


def _facts(run: RunFiles, group: str) -> dict[str, Any]:
    """A group of facts from train.json, else from results.json."""
    found = run.summary.get(group) or run.told.get(group) or {}
    return {key: value for key, value in flattened(found).items() if key not in IDLE_KEYS} if isinstance(found, Mapping) else {}


def _data(run: RunFiles) -> dict[str, Any]:
    told = run.told
    found = {f"revision of {task}": value for task, value in (run.summary.get("data_revisions") or {}).items()}
    found.update({f"revision of {task}, evaluation": value for task, value in (told.get("data_revisions") or {}).items()})
    found.update({f"prompt hash of {task}": value for task, value in (told.get("prompt_hashes") or {}).items()})
    for rows in run.rows:
        for key in ("rows", "contexts_cut", "options_lost", "target_tokens", "sender_words_shown", "max_new_tokens"):
            found[f"{rows.get('task')}, {rows.get('split')}: {key}"] = rows.get(key)
    return found


def _place(experiment: Experiment) -> dict[str, Any]:
    last = experiment.last
    found: dict[str, Any] = {"attempts": len(experiment.attempts)}
    if last is not None:
        found.update({"host": last.host, "gpu": last.gpu})
    return found


# --------------------------------------------------------------------------------------------------------------- answers


def _agreements(left: RunFiles, right: RunFiles) -> Iterator[Agreement]:
    theirs = {_key(answered): answered for answered in right.answered}
    for ours in left.answered:
        other = theirs.get(_key(ours))
        if other is not None:
            yield _agreement(ours, other)


def _key(answered: Answered) -> tuple[Any, ...]:
    """Seeds aside: two seeds of one method answer the same rows."""
    header = answered.header
    # bridges of two kinds are compared with each other
    method = str(header.get("method")).partition(":")[0]
    return header.get("task"), header.get("split"), method, header.get("control")


def _agreement(ours: Answered, theirs: Answered) -> Agreement:
    metric = (ours.header.get("metrics") or [""])[0]
    left = {(record["id"], record["prompt_hash"]): record for record in ours.records}
    right = {(record["id"], record["prompt_hash"]): record for record in theirs.records}
    common = [key for key in left if key in right]
    verdicts = [(key[0], _is_right(left[key], metric), _is_right(right[key], metric)) for key in common]
    only_a = [row for row, first, second in verdicts if first and not second]
    only_b = [row for row, first, second in verdicts if second and not first]
    return Agreement(
        task=str(ours.header.get("task")),
        method=str(ours.header.get("method")),
        control=ours.header.get("control"),
        rows=len(common),
        same_answer=sum(left[key]["prediction"] == right[key]["prediction"] for key in common),
        both_right=sum(first and second for _, first, second in verdicts),
        only_a=len(only_a),
        only_b=len(only_b),
        both_wrong=sum(not first and not second for _, first, second in verdicts),
        other_rows=len(left) + len(right) - 2 * len(common),
        examples_only_a=only_a[:5],
        examples_only_b=only_b[:5],
    )


def _is_right(record: Mapping[str, Any], metric: str) -> bool:
    return float(record.get("values", {}).get(metric, 0)) >= 0.5


# -------------------------------------------------------------------------------------------------------------- markdown


def _markdown(comparison: Comparison) -> Iterator[str]:
    yield f"# {comparison.a} against {comparison.b}"
    groups = list(dict.fromkeys(difference.group for difference in comparison.differences))
    for group in groups:
        yield ""
        yield f"## {group.capitalize()}"
        yield ""
        yield f"| what | {comparison.a} | {comparison.b} |"
        yield "| --- | --- | --- |"
        for item in comparison.differences:
            if item.group == group:
                yield f"| {_cell(item.what)} | {_cell(item.a)} | {_cell(item.b)} |"
    if not groups:
        yield ""
        yield "Nothing that they record differs."
    yield ""
    yield "## Loss curves"
    yield ""
    yield _curves(comparison)
    if comparison.agreements:
        yield ""
        yield "## Answers to the same rows"
        yield ""
        yield f"| task, method | rows | same answer | both right | only {comparison.a} | only {comparison.b} | both wrong |"
        yield "| --- | --- | --- | --- | --- | --- | --- |"
        for agreed in comparison.agreements:
            control = f" ({agreed.control})" if agreed.control else ""
            counts = (agreed.rows, agreed.same_answer, agreed.both_right, agreed.only_a, agreed.only_b, agreed.both_wrong)
            yield f"| {agreed.task}, {agreed.method}{control} | {' | '.join(str(count) for count in counts)} |"
        other = sum(agreed.other_rows for agreed in comparison.agreements)
        if other:
            yield ""
            yield f"{other} rows have no partner: another id or another prompt."
    for line in comparison.unreadable:
        yield ""
        yield f"Could not be read: {line}"


def _curves(comparison: Comparison) -> str:
    if comparison.parting is not None:
        step, ours, theirs = comparison.parting
        return f"They part at step {step} and stay apart by more than a tenth: {ours:.4g} and {theirs:.4g}."
    if comparison.common_steps:
        return f"They stay within a tenth of each other at all {comparison.common_steps} common steps."
    return "They have no logged step in common."


def _cell(value: Any) -> str:
    text = "–" if value is None else " ".join(str(value).split()).replace("|", "\\|")
    return text if len(text) <= 100 else text[:98] + " …"
