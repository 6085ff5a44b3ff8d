"""A benchmark as tables and as a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from latentwire.benchmarks.bench_file import Bench, LatencyCase, Ratio, TrainingCase
from latentwire.files import replacing
from latentwire.report.axes import plain_logarithmic

#: method → label and colour; a palette that survives colour blindness (Okabe & Ito 2008)
LABELS = {
    "floor": ("floor: bare passes", "#999999"),
    "bridge": ("bridge", "#D55E00"),
    "receiver_text": ("receiver reads the text", "#009E73"),
    "text_relay": ("text relay", "#56B4E9"),
}
STAGE_COLOURS = ("#E69F00", "#56B4E9", "#D55E00", "#CC79A7", "#009E73", "#0072B2")


def bench_tables(bench: Bench) -> list[Table]:
    """What was measured, part by part; the ratios first."""
    tables = [ratio_table(bench)]
    tables += [latency_table(case) for case in bench["latency"]]
    tables += [training_table(case) for case in bench["training"]]
    if bench["scale"]:
        tables.append(scale_table(bench))
    return tables


def ratio_table(bench: Bench) -> Table:
    """Every ratio with its interval and what is asked of it."""
    run = bench["run"]
    pair = f"{run['pair']['sender']['name']} → {run['pair']['bridge']['name']} → {run['pair']['receiver']['name']}"
    title = f"{pair} · {run['task']} · {run['hardware']['device']}, {run['threads']} thread(s) · medians of paired repetitions"
    table = Table(title=title, title_justify="left")
    for column in ("benchmark", "ratio", "case", "value (95 % interval)", "by CPU time", "n", "asked", "met"):
        table.add_column(column, justify="right" if column in ("value (95 % interval)", "by CPU time", "n") else "left")
    for ratio in bench["ratios"]:
        value = f"{ratio['value']:.3g} ({ratio['low']:.3g}–{ratio['high']:.3g})"
        met = {True: "yes", False: "NO", None: ""}[ratio["met"]]
        cpu = "" if ratio["cpu_value"] is None else f"{ratio['cpu_value']:.3g}"
        table.add_row(ratio["benchmark"], ratio["name"], ratio["case"], value, cpu, str(ratio["n"]), asked(ratio), met)
    return table


def asked(ratio: Ratio) -> str:
    """``≤ 1.15``, ``≥ 8`` or both."""
    return ", ".join(f"{sign} {bound:g}" for sign, bound in (("≥", ratio["least"]), ("≤", ratio["most"])) if bound is not None)


def missed(bench: Bench) -> list[str]:
    """One line for every ratio that misses its bound."""
    return [
        f"{ratio['name']} at {ratio['case']} is {ratio['value']:.3g}, asked {asked(ratio)}"
        for ratio in bench["ratios"]
        if ratio["met"] is False
    ]


def latency_table(case: LatencyCase) -> Table:
    """Milliseconds of each method, and the stages of the bridge's path."""
    answer = f"{case['options']} options scored" if case["options"] else f"{case['answer_tokens']} tokens written"
    stages = case["stages"]
    shown = " + ".join(f"{name} {value:.2f}" for name, value in stages["stages_ms"].items() if value)
    title = (
        f"{case['case']}: contexts of {case['sender_tokens']:.0f} sender tokens, {answer}, notes of {case['note_tokens']} tokens\n"
        f"bridge module {case['bridge_module']['median_ms']:.2f} ms, {case['bridge_share']:.0%} of the floor\n"
        f"stages, ms: {shown} = {stages['covered']:.1%} of {stages['total_ms']:.2f}"
    )
    table = Table(title=title, title_justify="left")
    for column in ("method", "median ms", "p25–p75", "p95", "p99", "message", "GFLOP"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for row in case["methods"]:
        times = row["times"]
        message = "" if row["message_bytes"] is None else f"{row['message_tokens']:.0f} tok, {row['message_bytes']:,.0f} B"
        table.add_row(
            LABELS[row["method"]][0],
            f"{times['median_ms']:.2f}",
            f"{times['p25_ms']:.2f}–{times['p75_ms']:.2f}",
            f"{times['p95_ms']:.2f}",
            f"{times['p99_ms']:.2f}",
            message,
            "" if row["flops"] is None else f"{row['flops'] / 1e9:.2f}",
        )
    return table


def training_table(case: TrainingCase) -> Table:
    """One step of the trainer and of the paper's procedure, and what each has to compute."""
    title = f"training step: {case['batch_size']} rows of {case['task']}, contexts of {case['sender_tokens']:.0f} sender tokens"
    table = Table(title=title, title_justify="left")
    for column in ("procedure", "median ms", "rows per second", "GFLOP"):
        table.add_column(column, justify="left" if column == "procedure" else "right")
    for name, times, rows_per_second, flops in (
        ("trainer, states cached", case["step"], case["rows_per_second"], case["flops"]),
        ("the paper's", case["baseline"], case["baseline_rows_per_second"], case["baseline_flops"]),
    ):
        table.add_row(name, f"{times['median_ms']:.2f}", f"{rows_per_second:.1f}", f"{flops / 1e9:.2f}")
    return table


def scale_table(bench: Bench) -> Table:
    """The curves with their slopes."""
    table = Table(title="cost against size (log-log slope: 1 is proportional)", title_justify="left")
    for column in ("what", "sizes", "median ms", "slope", "slope of the last step", "ends"):
        table.add_column(column)
    for curve in bench["scale"]:
        points = curve["points"]
        table.add_row(
            curve["what"],
            " ".join(str(point["size"]) for point in points),
            " ".join(f"{point['times']['median_ms']:.3g}" for point in points),
            *("–" if slope is None else f"{slope:.2f}" for slope in (curve["slope"], curve["last_slope"])),
            curve["ends_because"] or "",
        )
    return table


def draw_bench(bench: Bench, path: Path) -> None:
    """Writes a PNG: latency by method with the stages of the bridge, and the curves; nothing where neither was measured."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cases, curves = bench["latency"], [curve for curve in bench["scale"] if curve["points"]]
    if not cases and not curves:
        return
    panels = (2 if cases else 0) + (1 if curves else 0)
    figure, axes = pyplot.subplots(1, panels, figsize=(6.2 * panels, 4.8), constrained_layout=True, squeeze=False)
    free = list(axes[0])
    if cases:
        _draw_methods(free.pop(0), cases)
        _draw_stages(free.pop(0), cases)
    if curves:
        axis = free.pop(0)
        for curve in curves:
            sizes = [point["size"] for point in curve["points"]]
            label = curve["what"] if curve["slope"] is None else f"{curve['what']} (slope {curve['slope']:.2f})"
            axis.plot(sizes, [point["times"]["median_ms"] for point in curve["points"]], marker="o", markersize=3, label=label)
        axis.set(xscale="log", yscale="log", xlabel="size", ylabel="ms (median)")
        plain_logarithmic(axis.xaxis)
        plain_logarithmic(axis.yaxis)
        axis.set_title("Cost against size", loc="left")
        axis.legend(frameon=False, fontsize=8)
    for axis in axes[0]:
        axis.spines[["top", "right"]].set_visible(False)
    run = bench["run"]
    names = f"{run['pair']['sender']['name']} → {run['pair']['receiver']['name']}"
    threads = f"{run['threads']} thread{'' if run['threads'] == 1 else 's'}"
    figure.suptitle(f"{names}, {run['task']} · {run['hardware']['name']}, {threads}", x=0.01, ha="left", fontsize=11)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    pyplot.close(figure)


def _draw_methods(axis: Any, cases: list[LatencyCase]) -> None:
    height = 0.8 / len(LABELS)
    for index, (method, (label, colour)) in enumerate(LABELS.items()):
        for place, case in enumerate(cases):
            times = next((row["times"] for row in case["methods"] if row["method"] == method), None)
            if times is not None:
                spread = [[times["median_ms"] - times["p25_ms"]], [times["p75_ms"] - times["median_ms"]]]
                at = place + (index - (len(LABELS) - 1) / 2) * height
                axis.barh([at], [times["median_ms"]], height, xerr=spread, color=colour, label=label if place == 0 else None)
                said = f"{times['median_ms']:.3g}" if times["median_ms"] < 1000 else f"{times['median_ms']:,.0f}"
                axis.annotate(said, (times["p75_ms"], at), (3, 0), textcoords="offset points", va="center", fontsize=7)
    axis.set_yticks(range(len(cases)), [case["case"] for case in cases])
    axis.invert_yaxis()
    axis.set_xlabel("ms (median, quartiles)")
    axis.margins(x=0.1)  # room for the numbers; bars begin at nothing all the same
    axis.set_title("Texts to answers", loc="left")
    axis.legend(frameon=False, fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.4, -0.13))


def _draw_stages(axis: Any, cases: list[LatencyCase]) -> None:
    left = [0.0] * len(cases)
    for stage, colour in zip(cases[0]["stages"]["stages_ms"], STAGE_COLOURS, strict=True):
        values = [100 * case["stages"]["stages_ms"][stage] / case["stages"]["total_ms"] for case in cases]
        axis.barh(range(len(cases)), values, left=left, color=colour, label=stage)
        left = [before + value for before, value in zip(left, values, strict=True)]
    axis.set_yticks(range(len(cases)), [""] * len(cases))
    axis.invert_yaxis()
    axis.set(xlim=(0, 100), xlabel="% of the bridge's time")
    axis.set_title("Stages of the bridge's path", loc="left")
    # behind the axis: a full bar leaves no room for it
    axis.legend(frameon=False, fontsize=8, ncols=6, loc="upper center", bbox_to_anchor=(0.5, -0.13))
