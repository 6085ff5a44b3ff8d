"""Validation scores against training steps, from the logs of runs alone.

Runs whose configs differ in the seed only are one line, the mean over their seeds, with the single seeds as thin lines behind it.
Of what a bridge begins from (``bridge.init``) it counts whether there is any, so that seeds with a stage one each stay together.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from latentwire.errors import ArtefactError, UsageError
from latentwire.evaluation.run_folder import line_of, run_settings
from latentwire.files import replacing
from latentwire.report.bytes_figure import COLOURS, check_picture


@dataclass(frozen=True)
class Curve:
    """One line: ``scores[i]`` is the mean validation score of all ``seeds`` after ``steps[i]`` steps."""

    name: str
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: tuple[int, ...]
    scores: tuple[float, ...]
    by_seed: tuple[tuple[float, ...], ...]

    @property
    def best(self) -> float:
        return max(self.scores)

    def reaches(self, score: float) -> int | None:
        """The first validated step whose mean score is at least this, if any."""
        return next((step for step, found in zip(self.steps, self.scores, strict=True) if found >= score), None)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_curves(folders: Sequence[Path]) -> list[Curve]:
    """The lines of these run folders, in the order given.

    Raises:
        ArtefactError: a folder holds no run, or one that was not validated yet.
        UsageError: the runs are of different tasks, so that their scores are no one scale.
    """
    # by line and seed: a seed that stands here twice is one, the later counts
    groups: dict[str, dict[int, tuple[str, dict[str, Any], dict[int, float]]]] = {}
    for folder in dict.fromkeys(path.resolve() for path in folders):
        config, scores = run_settings(folder), _scores(folder)
        groups.setdefault(line_of(config), {})[config["seed"]] = (folder.name, config, scores)
    lines = [list(runs.values()) for runs in groups.values()]
    tasks = {tuple(runs[0][1]["task"]) for runs in lines}
    if len(tasks) > 1:
        raise UsageError(
            f"runs of different tasks ({'; '.join(sorted(map(', '.join, tasks)))}) have no common scale; draw them apart"
        )
    return [_curve(runs) for runs in lines]


def _scores(folder: Path) -> dict[int, float]:
    """Step → validation score."""
    log = folder / "log.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    try:
        entries = [json.loads(line) for line in lines]
    except ValueError:
        raise ArtefactError(f"{str(log)!r} is cut or corrupt; resume the run to write it again") from None
    scores = {entry["step"]: entry["validation"] for entry in entries if "validation" in entry}
    if not scores:
        raise ArtefactError(f"{str(folder)!r} was not validated yet (training.validate_every); let it train on")
    return scores


def _curve(runs: Sequence[tuple[str, dict[str, Any], dict[int, float]]]) -> Curve:
    """Of the steps that all seeds have reached."""
    steps = sorted(set.intersection(*(set(scores) for _, _, scores in runs)))
    if not steps:
        raise ArtefactError(f"{', '.join(name for name, _, _ in runs)}: no step at which all seeds were validated")
    by_seed = tuple(tuple(scores[step] for step in steps) for _, _, scores in runs)
    name, config, _ = runs[0]
    return Curve(
        name=re.sub(r"-?seed\d+$", "", name) or name,
        tasks=tuple(config["task"]),
        seeds=tuple(config["seed"] for _, config, _ in runs),
        steps=tuple(steps),
        scores=tuple(statistics.fmean(column) for column in zip(*by_seed, strict=True)),
        by_seed=by_seed,
    )


def draw_curves(curves: Sequence[Curve], path: Path, *, score: float | None = None) -> None:
    """Writes the picture: score in % against steps, and a dashed line at ``score``."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    check_picture(path)
    figure, axis = pyplot.subplots(figsize=(6.6, 4.2), constrained_layout=True)
    for index, curve in enumerate(curves):
        colour = COLOURS[index % len(COLOURS)]
        if len(curve.by_seed) > 1:
            for scores in curve.by_seed:
                axis.plot(curve.steps, [100 * value for value in scores], color=colour, linewidth=0.7, alpha=0.4)
        seeds = f" ({len(curve.seeds)} seeds)" if len(curve.seeds) > 1 else ""
        axis.plot(
            curve.steps, [100 * value for value in curve.scores], color=colour, marker="o", markersize=4, label=curve.name + seeds
        )
    if score is not None:
        axis.axhline(100 * score, color="#999999", linestyle="--", linewidth=1)
    axis.set_title(", ".join(curves[0].tasks), loc="left", fontsize=10)
    axis.set_xlabel("training steps")
    axis.set_ylabel("validation score, %")
    axis.set_xlim(left=0)
    axis.set_ylim(-3, 103)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.3)
    axis.legend(frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format=path.suffix[1:])
    pyplot.close(figure)
