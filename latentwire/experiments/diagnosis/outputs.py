"""What a run answered: labels given against labels wanted, the permutation that would have been right, texts and lengths.

Standard library only, Python 3.9. Shares and accuracies are 0-1; information is in bits.
"""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from latentwire.experiments.diagnosis.files import Answered, RunFiles

#: z of a 95 % interval
Z95 = 1.959964


@dataclass(frozen=True)
class Permutation:
    """Labels exchanged one for one: ``mapping`` given label → label that it stands for.

    ``accuracy`` was measured on rows that the mapping was not chosen on.
    """

    mapping: dict[str, str]
    accuracy: float

    @property
    def moved(self) -> dict[str, str]:
        """Only the labels that are exchanged."""
        return {given: meant for given, meant in self.mapping.items() if given != meant}


@dataclass(frozen=True)
class Outputs:
    """One prediction file, counted. ``value`` is the mean of the headline metric, ``low`` and ``high`` its 95 % interval."""

    answered: Answered
    value: float
    low: float
    high: float
    chance: float

    @property
    def task(self) -> str:
        return str(self.answered.header.get("task", ""))

    @property
    def metric(self) -> str:
        return str((self.answered.header.get("metrics") or ["score"])[0])

    @property
    def records(self) -> list[dict[str, Any]]:
        return self.answered.records

    @property
    def labelled(self) -> list[dict[str, Any]]:
        return [record for record in self.records if record.get("option") is not None and record.get("label") is not None]

    @property
    def is_poor(self) -> bool:
        """Not better than chance as far as these rows can tell."""
        return self.low <= self.chance

    @property
    def given(self) -> Counter[str]:
        return Counter(str(record.get("prediction", "")).strip() for record in self.records)

    @property
    def wanted(self) -> Counter[str]:
        return Counter(str(record.get("target", "")).strip() for record in self.records)


def outputs_of(answered: Answered) -> Outputs:
    """The headline score of a prediction file with its interval (Wilson, treating scores as shares)."""
    metric = (answered.header.get("metrics") or [""])[0]
    values = [float(record.get("values", {}).get(metric, 0.0)) for record in answered.records]
    mean = statistics.fmean(values)
    low, high = wilson(mean, len(values))
    return Outputs(answered, mean, low, high, float(answered.header.get("chance") or 0.0))


def main_outputs(run: RunFiles) -> list[Outputs]:
    """One per task, of the method that the run is about: the bridge, else another trained method, else the first. Worst first."""
    by_task: dict[str, list[Answered]] = {}
    for answered in run.answered:
        if answered.header.get("control") is None:
            by_task.setdefault(str(answered.header.get("task")), []).append(answered)
    chosen = []
    for answers in by_task.values():
        ranked = sorted(answers, key=lambda item: (_rank(item), item.path))
        chosen.append(outputs_of(ranked[0]))
    return sorted(chosen, key=lambda item: item.value - item.chance)


def _rank(answered: Answered) -> int:
    if str(answered.header.get("method", "")).startswith("bridge"):
        return 0
    return 1 if answered.header.get("seed") is not None else 2


def others_of(run: RunFiles, main: Outputs) -> list[Outputs]:
    """Controls of the same method, and other methods, on the same task."""
    same_task = [item for item in run.answered if item.header.get("task") == main.task and item is not main.answered]
    return [outputs_of(item) for item in same_task]


def wilson(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a share of ``n``."""
    spread = Z95 * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n * n))
    middle = share + Z95**2 / (2 * n)
    scale = 1 + Z95**2 / n
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


# -------------------------------------------------------------------------------------------------------------- labels


def confusion(records: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[int]]]:
    """Labels by their text, and counts[given][wanted]."""
    names = sorted({str(record["prediction"]) for record in records} | {str(record["target"]) for record in records})
    index = {name: place for place, name in enumerate(names)}
    counts = [[0] * len(names) for _ in names]
    for record in records:
        counts[index[str(record["prediction"])]][index[str(record["target"])]] += 1
    return names, counts


def best_permutation(outputs: Outputs) -> Permutation | None:
    """The one-to-one exchange of labels with the highest accuracy, measured crosswise: chosen on one half of the rows, measured on
    the other, because with many labels some exchange always fits the rows that it was chosen on. None for free answers."""
    records = outputs.labelled
    if len(records) < 4:
        return None
    # drawn, not every second row: labels may alternate
    Random(0).shuffle(records)
    halves = records[: len(records) // 2], records[len(records) // 2 :]
    right = 0
    for chosen_on, measured_on in (halves, halves[::-1]):
        mapping = _assignment(chosen_on)
        right += sum(
            mapping.get(str(record["prediction"]), str(record["prediction"])) == str(record["target"]) for record in measured_on
        )
    return Permutation(_assignment(records), right / len(records))


def _assignment(records: Sequence[dict[str, Any]]) -> dict[str, str]:
    names, counts = confusion(records)
    # a label keeps its name where another would be no better
    cost = [[-(count + (0.01 if row == column else 0.0)) for column, count in enumerate(line)] for row, line in enumerate(counts)]
    columns = hungarian(cost)
    return {names[row]: names[column] for row, column in enumerate(columns)}


def hungarian(cost: Sequence[Sequence[float]]) -> list[int]:
    """The column of each row in a cheapest one-to-one assignment of a square matrix (shortest augmenting paths, O(n³))."""
    size = len(cost)
    of_row, of_column = [0.0] * (size + 1), [0.0] * (size + 1)
    row_of = [0] * (size + 1)
    for row in range(1, size + 1):
        row_of[0] = row
        least = [math.inf] * (size + 1)
        came_from = [0] * (size + 1)
        used = [False] * (size + 1)
        column = 0
        while row_of[column] != 0:
            used[column] = True
            current, delta, following = row_of[column], math.inf, 0
            for candidate in range(1, size + 1):
                if used[candidate]:
                    continue
                reduced = cost[current - 1][candidate - 1] - of_row[current] - of_column[candidate]
                if reduced < least[candidate]:
                    least[candidate], came_from[candidate] = reduced, column
                if least[candidate] < delta:
                    delta, following = least[candidate], candidate
            for candidate in range(size + 1):
                if used[candidate]:
                    of_row[row_of[candidate]] += delta
                    of_column[candidate] -= delta
                else:
                    least[candidate] -= delta
            column = following
        while column:
            row_of[column] = row_of[came_from[column]]
            column = came_from[column]
    result = [0] * size
    for column in range(1, size + 1):
        result[row_of[column] - 1] = column - 1
    return result


def label_bits(outputs: Outputs) -> tuple[float, float] | None:
    """(needed, measured): entropy of the wanted labels, and mutual information of given and wanted (Miller–Madow)."""
    records = outputs.labelled
    if not records:
        return None
    pairs = Counter((str(record["prediction"]), str(record["target"])) for record in records)
    given = Counter(pair[0] for pair in pairs.elements())
    wanted = Counter(pair[1] for pair in pairs.elements())
    needed = _entropy(wanted)
    return needed, max(0.0, min(needed, _entropy(given) + needed - _entropy(pairs)))


def _entropy(counts: Counter[Any]) -> float:
    total = sum(counts.values())
    plain = -sum(count / total * math.log2(count / total) for count in counts.values())
    return plain + (len(counts) - 1) / (2 * total * math.log(2))


# --------------------------------------------------------------------------------------------------------------- texts


@dataclass(frozen=True)
class Lengths:
    """Words of given and wanted texts, medians; ``given_most`` the longest given one."""

    given: float
    given_most: int
    wanted: float


def text_lengths(outputs: Outputs) -> Lengths | None:
    """None where options were scored."""
    free = [record for record in outputs.records if record.get("label") is None]
    if not free:
        return None
    given = [len(str(record["prediction"]).split()) for record in free]
    wanted = [len(str(record["target"]).split()) for record in free]
    return Lengths(statistics.median(given), max(given), statistics.median(wanted))


def answer_mark(outputs: Outputs) -> tuple[str, float, float] | None:
    """(mark, share of targets with it, share of answers with it) for marks such as ``####`` that introduce the final answer."""
    free = [record for record in outputs.records if record.get("label") is None]
    for mark in ("####", "Answer:", "\\boxed"):
        in_targets = sum(mark in str(record["target"]) for record in free)
        if free and in_targets >= 0.9 * len(free):
            return mark, in_targets / len(free), sum(mark in str(record["prediction"]) for record in free) / len(free)
    return None


def contained_but_wrong(outputs: Outputs) -> list[int]:
    """Indices of free answers that hold the whole target as words and are scored 0."""
    found = []
    for index, record in enumerate(outputs.records):
        if record.get("label") is not None or record.get("values", {}).get(outputs.metric, 0) > 0:
            continue
        target, given = _words(str(record["target"])), _words(str(record["prediction"]))
        if target and f" {target} " in f" {given} " and len(target) >= 2:
            found.append(index)
    return found


def _words(text: str) -> str:
    return " ".join(re.findall(r"[\w.]+", text.lower()))
