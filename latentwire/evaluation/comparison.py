"""Methods compared on the same rows, from stored predictions alone.

Seeds: a score is the mean over the seeds; its interval and every difference are over rows, each row with the mean of its seeds.
These intervals say how much the rows decide; how much the seeds decide is the standard deviation.
McNemar needs right or wrong, so it is done seed by seed and the median seed's p is given (the larger of the middle two).
"""

from __future__ import annotations

import os
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from latentwire.errors import MismatchError, UnknownNameError
from latentwire.evaluation.predictions import PredictionHeader, PredictionRecord, Predictions, read_predictions
from latentwire.evaluation.rows import chance_level, subsets_of
from latentwire.evaluation.run_folder import line_of_run
from latentwire.evaluation.statistics import holm, mcnemar_exact, paired_bootstrap, score_interval, seed_summary
from latentwire.files import digest
from latentwire.methods import METHODS

DEFAULT_REFERENCE = "receiver_text"
#: what a bridge's message must beat to have carried more than the sender's own label; the first that was evaluated
FLOORS = ("label_byte", "answer_text")
#: the two readings whose disagreement marks the rows that tell a bridge from a label
READINGS = ("sender_text", "receiver_text")


@dataclass(frozen=True)
class Contrast:
    """How much better one method is than another on ``n`` common rows, with a 95 % interval (``interval``: how it was found)."""

    against: str
    n: int
    difference: float
    low: float
    high: float
    interval: str


@dataclass(frozen=True)
class ComparedRow:
    """One task, subset, method, control and metric: the score over all seeds, and the comparison with the reference.

    ``seeds`` is empty where nothing is trained; ``values`` holds the score of each seed. ``p`` is McNemar's, None where a metric is
    not right or wrong; ``p_holm`` is adjusted over the methods of the task. Controls are compared, but belong to no such family.
    """

    task: str
    split: str
    subset: str
    metric: str
    headline: bool
    method: str
    control: str | None
    sender_sees: str
    receiver_sees: str
    n: int
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    mean: float
    deviation: float | None
    low: float
    high: float
    interval: str
    chance: float
    message_tokens: float
    message_bytes: float
    latency_ms_p50: float | None
    partial: bool
    problems: tuple[str, ...]
    versus: Contrast | None = None
    p_by_seed: tuple[float, ...] = ()
    p: float | None = None
    p_holm: float | None = None


@dataclass(frozen=True)
class Headline:
    """Matched minus ``against`` (its own shuffled messages, or the sender's label as text).

    ``disagreeing``: the same over the rows where sender_text and receiver_text answer differently; ``n_disagreeing`` of them, None
    where one of the two was not evaluated. A contrast is None where ``against`` was not evaluated.
    """

    task: str
    method: str
    metric: str
    against: str
    whole: Contrast | None
    disagreeing: Contrast | None
    n_disagreeing: int | None


@dataclass(frozen=True)
class Comparison:
    """Every score and difference of one or several runs."""

    reference: str | None
    rows: tuple[ComparedRow, ...]
    headlines: tuple[Headline, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(row.task for row in self.rows))

    @property
    def problems(self) -> list[str]:
        return list(dict.fromkeys(problem for row in self.rows for problem in row.problems))


#: task, method, seed, control
_Key = tuple[str, str, int | None, str | None]
#: (row id, prompt hash) → record: rows are the same only where their prompts are
Rows = dict[tuple[str, str], PredictionRecord]


@dataclass
class _Group:
    """All seeds of one task, method and control."""

    header: PredictionHeader
    by_seed: dict[int | None, Rows] = field(default_factory=dict)
    headers: list[PredictionHeader] = field(default_factory=list)
    _means: dict[str, dict[tuple[str, str], float]] = field(default_factory=dict)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(seed for seed in self.by_seed if seed is not None)

    def any_seed(self) -> Rows:
        return next(iter(self.by_seed.values()))

    def of_seed(self, seed: int | None) -> Rows:
        return self.by_seed.get(seed) or self.any_seed()

    def means(self, metric: str) -> dict[tuple[str, str], float]:
        """Row → mean over the seeds, computed once; the group must be complete."""
        if metric not in self._means:
            runs = list(self.by_seed.values())
            self._means[metric] = {key: sum([rows[key]["values"][metric] for rows in runs]) / len(runs) for key in runs[0]}
        return self._means[metric]


Groups = Mapping[tuple[str, str, str | None], _Group]


def compare(files: Iterable[Path], reference: str | None = None, *, tasks: Sequence[str] = ()) -> Comparison:
    """Everything that can be said about the methods in these prediction files.

    Where two runs hold different answers of one method and seed, the method is called ``method@run`` in both; where the seeds of a
    method come from runs that differ in more than the seed, it is ``method@run`` without the seed, once for each config.

    Args:
        files: as found by ``find_predictions``.
        reference: the method that all others of a task are compared with; None takes ``receiver_text`` where it was evaluated.
        tasks: only these.

    Raises:
        ArtefactError: a file is cut or corrupt. UnknownNameError: no such reference or task. MismatchError: the seeds of one method
            answered different rows.
    """
    loaded = [(path, read_predictions(path)) for path in files]
    known = {predictions.header["task"] for _, predictions in loaded}
    for task in tasks:
        if task not in known:
            raise UnknownNameError("task", task, known)
    named = _named([(path, predictions) for path, predictions in loaded if not tasks or predictions.header["task"] in tasks])
    methods = {predictions.header["method"] for predictions in named}
    if reference is not None and reference not in methods:
        raise UnknownNameError("reference method", reference, methods)
    if reference is None and DEFAULT_REFERENCE in methods:
        reference = DEFAULT_REFERENCE
    groups = _grouped(sorted(named, key=_place))
    rows = [row for group in groups.values() for row in _compared(group, groups, reference)]
    return Comparison(reference, tuple(_adjusted(rows)), tuple(_headlines(groups)))


def _named(loaded: Sequence[tuple[Path, Predictions]]) -> list[Predictions]:
    """Each answer once. Where seeds of a method on a task come from runs of several configs, it gets the name of the config's
    first run; where two runs answered differently all the same, that of its own.
    """
    folders = {path: path.resolve().parents[2] for path, _ in loaded}
    line_at = {folder: line_of_run(folder) for folder in set(folders.values())}
    runs, lines = _run_names(folders), {path: line_at[folder] for path, folder in folders.items()}
    line_names = _line_names(runs, lines)
    configs: dict[tuple[str, str], set[str]] = {}
    for path, (header, _) in loaded:
        if header["seed"] is not None and (line := lines[path]) is not None:
            configs.setdefault((header["task"], header["method"]), set()).add(line)

    def by_config(path: Path, header: PredictionHeader) -> str:
        several = header["seed"] is not None and len(configs.get((header["task"], header["method"]), ())) > 1
        return f"{header['method']}@{line_names[path]}" if several else header["method"]

    digests: dict[_Key, set[str]] = {}
    for path, (header, records) in loaded:
        digests.setdefault(_key({**header, "method": by_config(path, header)}), set()).add(_digest(records))
    ambiguous = {key[1] for key, found in digests.items() if len(found) > 1}
    kept: dict[_Key, Predictions] = {}
    for path, (header, records) in loaded:
        name = by_config(path, header)
        header = {**header, "method": f"{header['method']}@{runs[path]}" if name in ambiguous else name}
        kept.setdefault(_key(header), Predictions(header, records))
    return list(kept.values())


def _line_names(runs: Mapping[Path, str], lines: Mapping[Path, str | None]) -> dict[Path, str]:
    """What the runs of one config are called together: the first one's name without its seed, or with it where that names two."""
    first: dict[str | None, str] = {}
    for path, name in runs.items():
        first.setdefault(lines[path], name)
    bare = {line: re.sub(r"-?seed\d+$", "", name) or name for line, name in first.items()}
    plain = Counter(bare.values())
    return {path: bare[line] if plain[bare[line]] == 1 else first[line] for path, line in lines.items()}


def _key(header: PredictionHeader) -> _Key:
    return header["task"], header["method"], header["seed"], header["control"]


def _place(predictions: Predictions) -> tuple[object, ...]:
    """Tasks by name, methods as they are registered, each followed by its controls."""
    header, registered = predictions.header, list(METHODS)
    base = re.split("[:@]", header["method"])[0]
    rank = registered.index(base) if base in registered else len(registered)
    return header["task"], rank, header["method"], header["control"] or "", -1 if header["seed"] is None else header["seed"]


def _digest(records: Sequence[PredictionRecord]) -> str:
    """What was answered to which rows; the last bits of scores differ between machines."""
    return digest(*(f"{row['id']}\n{row['prompt_hash']}\n{row['option']}\n{row['prediction']}" for row in records))


def _run_names(folders: Mapping[Path, Path]) -> dict[Path, str]:
    """The run folder's name, with as much of its path as tells it from other runs."""
    distinct = set(folders.values())
    plain = Counter(folder.name for folder in distinct)
    shared = os.path.commonpath(distinct) if distinct else ""
    return {
        path: folder.name if plain[folder.name] == 1 else folder.relative_to(shared).as_posix() for path, folder in folders.items()
    }


def _grouped(named: Sequence[Predictions]) -> dict[tuple[str, str, str | None], _Group]:
    groups: dict[tuple[str, str, str | None], _Group] = {}
    for header, records in named:
        group = groups.setdefault((header["task"], header["method"], header["control"]), _Group(header))
        rows = {(record["id"], record["prompt_hash"]): record for record in records}
        if group.by_seed and set(group.any_seed()) != set(rows):
            seeds = [*group.by_seed, header["seed"]]
            raise MismatchError(
                f"task {header['task']!r}: seeds {seeds[0]} and {seeds[-1]} of {header['method']!r} answered different rows; "
                "evaluate both over the same split, rows and prompts"
            )
        group.by_seed[header["seed"]] = rows
        group.headers.append(header)
    return groups


def _compared(group: _Group, groups: Groups, reference: str | None) -> list[ComparedRow]:
    """Rows of a group, one per metric and subset."""
    header = group.header
    other = groups.get((header["task"], reference, None)) if reference else None
    if other is group:
        other = None
    found = []
    for metric in header["metrics"]:
        for subset, records in subsets_of(list(group.any_seed().values())).items():
            keys = [(record["id"], record["prompt_hash"]) for record in records]
            row = _scored(group, keys, metric, subset)
            found.append(row if other is None else _against(row, group, other, keys))
    return found


def _scored(group: _Group, keys: Sequence[tuple[str, str]], metric: str, subset: str) -> ComparedRow:
    header, runs = group.header, list(group.by_seed.values())
    records = [rows[key] for rows in runs for key in keys]
    means = group.means(metric)
    score = score_interval([means[key] for key in keys])
    summary = seed_summary([statistics.fmean(rows[key]["values"][metric] for key in keys) for rows in runs])
    latencies = [found["latency_ms_p50"] for found in group.headers if found["latency_ms_p50"] is not None]
    return ComparedRow(
        task=header["task"],
        split=header["split"],
        subset=subset,
        metric=metric,
        headline=metric == header["metrics"][0],
        method=header["method"],
        control=header["control"],
        sender_sees=header["sender_sees"],
        receiver_sees=header["receiver_sees"],
        n=len(keys),
        seeds=group.seeds,
        values=summary.values,
        mean=summary.mean,
        deviation=summary.deviation,
        low=score.low,
        high=score.high,
        interval=score.how,
        chance=chance_level([runs[0][key] for key in keys], metric),
        message_tokens=statistics.fmean(record["message_tokens"] for record in records),
        message_bytes=statistics.fmean(record["message_bytes"] for record in records),
        latency_ms_p50=statistics.median(latencies) if latencies and subset == "all" else None,
        partial=any(found["partial"] for found in group.headers),
        problems=tuple(dict.fromkeys(problem for found in group.headers for problem in found["problems"])),
    )


def _against(row: ComparedRow, group: _Group, other: _Group, keys: Sequence[tuple[str, str]]) -> ComparedRow:
    """The row with its difference from the reference and McNemar's p."""
    if row.metric not in other.header["metrics"]:
        return row
    versus = _contrast(group, other, row.metric, other.header["method"], keys)
    if versus is None:
        return row
    p_by_seed = []
    for seed in max(group.by_seed, other.by_seed, key=len):
        mine, theirs = group.of_seed(seed), other.of_seed(seed)
        pairs = [(mine[key]["values"][row.metric], theirs[key]["values"][row.metric]) for key in keys if key in theirs]
        if any(value not in (0.0, 1.0) for pair in pairs for value in pair):
            return replace(row, versus=versus)
        p_by_seed.append(mcnemar_exact([value == 1.0 for value, _ in pairs], [value == 1.0 for _, value in pairs]))
    return replace(row, versus=versus, p_by_seed=tuple(p_by_seed), p=statistics.median_high(p_by_seed))


def _contrast(
    group: _Group, other: _Group, metric: str, against: str, keys: Sequence[tuple[str, str]] | None = None
) -> Contrast | None:
    """``group`` minus ``other`` over their common rows (of ``keys``); None where there is none or the metric is another."""
    if metric not in other.header["metrics"]:
        return None
    mine, theirs = group.means(metric), other.means(metric)
    common = [key for key in (mine if keys is None else keys) if key in mine and key in theirs]
    if not common:
        return None
    found = paired_bootstrap([mine[key] for key in common], [theirs[key] for key in common])
    return Contrast(against, len(common), found.value, found.low, found.high, found.how)


def _adjusted(rows: Sequence[ComparedRow]) -> list[ComparedRow]:
    """The rows with Holm's p, adjusted over the methods of one task, subset and metric."""
    families: dict[tuple[str, str, str], list[int]] = {}
    for index, row in enumerate(rows):
        if row.p is not None and row.control is None:
            families.setdefault((row.task, row.subset, row.metric), []).append(index)
    adjusted = list(rows)
    for indexes in families.values():
        for index, p in zip(indexes, holm([rows[index].p or 0.0 for index in indexes]), strict=True):
            adjusted[index] = replace(adjusted[index], p_holm=p)
    return adjusted


def _headlines(groups: Groups) -> list[Headline]:
    """Both headlines of every method that sends trained messages: all bridges, and whatever has a shuffled control."""
    found = []
    for (task, method, control), group in groups.items():
        shuffled = groups.get((task, method, "shuffled"))
        if control is not None or (shuffled is None and not method.startswith("bridge:")):
            continue
        differ = _disagreeing(groups, task)
        floor = next((name for name in FLOORS if (task, name, None) in groups), FLOORS[0])
        for metric in group.header["metrics"]:
            for against, other in (("shuffled", shuffled), (floor, groups.get((task, floor, None)))):
                whole = None if other is None else _contrast(group, other, metric, against)
                part = None if other is None or differ is None else _contrast(group, other, metric, against, differ)
                found.append(Headline(task, method, metric, against, whole, part, None if differ is None else len(differ)))
    return found


def _disagreeing(groups: Groups, task: str) -> list[tuple[str, str]] | None:
    """Rows where the sender reading the text and the receiver reading it answer differently; None where one is missing."""
    one, other = (groups.get((task, name, None)) for name in READINGS)
    if one is None or other is None:
        return None
    mine, theirs = one.any_seed(), other.any_seed()
    return [key for key in mine if key in theirs and _answer(mine[key]) != _answer(theirs[key])]


def _answer(record: PredictionRecord) -> int | str:
    return " ".join(record["prediction"].split()) if record["option"] is None else record["option"]
