"""The demo's figure: right answers and time to answer, task by task."""

from __future__ import annotations

from pathlib import Path

from latentwire.evaluation.results import Results
from latentwire.files import replacing
from latentwire.report.tables import find, tasks_of

#: (method, control) → label and colour; a palette that survives colour blindness (Okabe & Ito 2008)
BARS = {
    ("receiver_only", None): ("receiver alone", "#999999"),
    ("bridge", "shuffled"): ("bridge, shuffled message", "#E69F00"),
    ("text_relay", None): ("text relay", "#56B4E9"),
    ("bridge", None): ("bridge", "#D55E00"),
    ("receiver_text", None): ("receiver reads the text", "#009E73"),
}


def draw_demo(results: Results, path: Path) -> None:
    """Writes a PNG with two panels: scores with 95 % intervals, and median latency."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    tasks = tasks_of(results)
    figure, (scores, times) = pyplot.subplots(1, 2, figsize=(12, 4.8), width_ratios=(3, 2), constrained_layout=True)
    height = 0.8 / len(BARS)
    for index, ((method, control), (label, colour)) in enumerate(BARS.items()):
        found = [find(results, task, method, control) for task in tasks]
        places = [task_index + (index - (len(BARS) - 1) / 2) * height for task_index in range(len(tasks))]
        values = [100 * row["value"] if row else 0.0 for row in found]
        errors = [
            [100 * (row["value"] - row["ci_low"]) if row else 0.0 for row in found],
            [100 * (row["ci_high"] - row["value"]) if row else 0.0 for row in found],
        ]
        scores.barh(places, values, height, xerr=errors, color=colour, label=label, error_kw={"elinewidth": 0.8})
        if control is None and method != "receiver_only":
            times.barh(places, [(row["latency_ms_p50"] or 0.0) if row else 0.0 for row in found], height, color=colour, label=label)
    names = [task.removeprefix("tinyworld_") for task in tasks]
    for axis, title, unit in (
        (scores, "Right answers, 95 % intervals", "%"),
        (times, "Text in to answer out, batch 1", "ms (median)"),
    ):
        axis.set_yticks(range(len(tasks)), names)
        axis.invert_yaxis()
        axis.set_title(title, loc="left")
        axis.set_xlabel(unit)
        axis.spines[["top", "right"]].set_visible(False)
    scores.set_xlim(0, 103)
    figure.legend(*scores.get_legend_handles_labels(), loc="outside lower center", ncols=len(BARS), frameon=False)
    models = results["run"]["models"]
    figure.suptitle(f"LatentWire demo: {models['sender']['name']} → soft tokens → {models['receiver']['name']}", x=0.01, ha="left")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    pyplot.close(figure)
