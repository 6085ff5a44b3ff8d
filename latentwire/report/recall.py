"""Recall measurements as a table, and several of them as a figure against the rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from latentwire.analysis.capacity.file import Interval
from latentwire.analysis.recall_file import FACTS, Recall, RecallPoint
from latentwire.files import replacing
from latentwire.report.capacity import BRIDGE_COLOUR, CONTROL_COLOURS, TEXT_COLOUR, interval, percent

_COLOURS = {"message": BRIDGE_COLOUR, "shuffled": CONTROL_COLOURS["shuffled"], "text": TEXT_COLOUR}
_NAMES = {"message": "message", "shuffled": "another text's message", "text": "receiver reads the text"}


def recall_table(recall: Recall) -> Table:
    """One line per source and reader."""
    models, run = recall["run"]["models"], recall["run"]
    title = (
        f"{models['sender']['name']} → {models['bridge']['name']} → {models['receiver']['name']} · {models['bridge']['rate']} · "
        f"at most {run['most_tokens']} sender tokens, asked by {run['asked_by']}"
    )
    measured = ("numbers written", "entities written", "spelled: numbers", "entities")
    columns = ("texts", "reader", "n", "message", "nats per token", *measured)
    table = Table(*columns, title=title, title_justify="left", header_style="bold")
    for point in recall["points"]:
        own = point["reader"] == "message"
        table.add_row(
            Path(point["source"]).stem if own else "",
            _NAMES[point["reader"]],
            str(point["n"]) if own else "",
            f"{point['message_tokens']:.0f} tokens, {point['message_bytes']:,.0f} B",
            interval(point["nats_per_token"], 2),
            *(_share(point[key]) for key in ("numbers_written", "entities_written", "numbers_spelled", "entities_spelled")),  # type: ignore[literal-required]
            style=None if own else "dim",
        )
    return table


def _share(found: Interval | None) -> str:
    return "–" if found is None else percent(found)


def draw_recall(recalls: Sequence[Recall], path: Path) -> None:
    """Loss and recall against soft tokens per sender token, one column of panels per source; written whole."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    points = [point for recall in recalls for point in recall["points"]]
    sources = list(dict.fromkeys(point["source"] for point in points))
    measures = (("nats_per_token", "nats per token"), *((f"{kind}_written", f"{kind} found") for kind in FACTS))
    figure, axes = pyplot.subplots(
        len(measures),
        len(sources),
        figsize=(max(8.0, 4.2 * len(sources)), 2.6 * len(measures)),
        squeeze=False,
        sharex=True,
        constrained_layout=True,
    )
    for column, source in enumerate(sources):
        axes[0][column].set_title(Path(source).stem)
        for row, (key, label) in enumerate(measures):
            found = [point for point in points if point["source"] == source]
            _draw(axes[row][column], found, key)
            if key.endswith("_written"):
                _draw(axes[row][column], found, key.replace("_written", "_spelled"), only="message", style="--", note=" (spelled)")
            axes[row][column].set_ylabel(label if column == 0 else "")
    for axis in axes[-1]:
        axis.set_xlabel("soft tokens per sender token")
    # a source without numbers, or without entities, leaves panels empty
    handles: dict[str, Any] = {}
    for axis in axes.flat:
        own, labels = axis.get_legend_handles_labels()
        handles.update({label: handle for label, handle in zip(labels, own, strict=True) if label not in handles})
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=max(1, len(handles)), frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lstrip(".") or "png", dpi=120)
    pyplot.close(figure)


def _draw(axis: Any, points: Sequence[RecallPoint], key: str, *, only: str | None = None, style: str = "-", note: str = "") -> None:
    for reader, colour in _COLOURS.items():
        if only not in (None, reader):
            continue
        # the rate is that of the message, for the reader of the text too
        rate = {id(point): _rate(points, point) for point in points if point["reader"] == reader}
        own = sorted((p for p in points if p["reader"] == reader and p[key] is not None), key=lambda p: rate[id(p)])  # type: ignore[literal-required]
        if not own:
            continue
        found: list[Interval] = [point[key] for point in own]  # type: ignore[literal-required]
        values = [one["value"] for one in found]
        errors = [[one["value"] - one["low"] for one in found], [one["high"] - one["value"] for one in found]]
        at, label = [rate[id(point)] for point in own], _NAMES[reader] + note
        axis.errorbar(at, values, yerr=errors, marker="o", capsize=2, color=colour, label=label, linestyle=style)
    axis.grid(alpha=0.3)
    if key != "nats_per_token":
        axis.set_ylim(-0.02, 1.02)


def _rate(points: Sequence[RecallPoint], point: RecallPoint) -> float:
    """Soft tokens per sender token of the measurement that a point belongs to: the three readers of one stand side by side."""
    # not ``points.index``: what the receiver reads itself is equal in runs of different rates
    place = next(place for place, other in enumerate(points) if other is point)
    start = place - ("message", "shuffled", "text").index(point["reader"])
    return points[start]["message_tokens"] / points[start]["sender_tokens"]
