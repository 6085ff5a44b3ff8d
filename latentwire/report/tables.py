"""Terminal tables from ``results.json``."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from latentwire.evaluation.results import ResultRow, Results

LABELS = {"receiver_only": "receiver alone", "receiver_text": "receiver reads the text", "text_relay": "text relay"}


def tasks_of(results: Results) -> list[str]:
    """Tasks in the order they were evaluated."""
    return list(dict.fromkeys(row["task"] for row in results["rows"]))


def metrics_of(results: Results, task: str) -> list[str]:
    """Metrics of a task in the order they were computed, its headline first."""
    return list(dict.fromkeys(row["metric"] for row in results["rows"] if row["task"] == task))


def find(
    results: Results, task: str, method: str, control: str | None = None, subset: str = "all", metric: str | None = None
) -> ResultRow | None:
    """The row of a method (``bridge`` finds any bridge), or None. ``metric``: None takes the first that the method has."""
    for row in results["rows"]:
        same_method = row["method"] == method or (method == "bridge" and row["method"].startswith("bridge:"))
        same_rows = row["task"] == task and row["control"] == control and row["subset"] == subset
        if same_method and same_rows and metric in (None, row["metric"]):
            return row
    return None


def method_labels(results: Results) -> list[str]:
    """Methods in the order they were evaluated."""
    return list(dict.fromkeys(row["method"] for row in results["rows"]))


def score(row: ResultRow | None) -> str:
    """``94.2 % (92.6-95.5)``."""
    if row is None:
        return "–"
    return f"{row['value']:.1%} ({100 * row['ci_low']:.1f}–{100 * row['ci_high']:.1f})"


def task_table(results: Results, task: str, metric: str) -> Table:
    """Every method and control of one task under one metric, with message size and latency."""
    rows = [row for row in results["rows"] if (row["task"], row["subset"], row["metric"]) == (task, "all", metric)]
    partial = " · a part of the split" if task in results["run"]["partial"] else ""
    head = rows[0]
    table = Table(
        title=f"{task} · {head['split']} · {head['metric']} · n = {head['n']:,} · chance {head['chance']:.1%}{partial}",
        title_justify="left",
    )
    for column in ("method", "score (95 % interval)", "message", "latency"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for row in rows:
        name = f"  control: {row['control']}" if row["control"] else LABELS.get(row["method"], row["method"])
        table.add_row(name, score(row), message_size(row), latency(row), style="dim" if row["control"] else None)
    return table


def subset_table(results: Results, task: str) -> Table | None:
    """Scores (headline metric) by field and on held-out words, the methods side by side; None where the task has no subsets."""
    methods = method_labels(results)
    subsets = [row["subset"] for row in results["rows"] if row["task"] == task and row["subset"] != "all"]
    if not subsets:
        return None
    table = Table(title=f"{task} by subset", title_justify="left")
    table.add_column("subset")
    table.add_column("n", justify="right")
    for method in methods:
        table.add_column(LABELS.get(method, method), justify="right")
    for subset in dict.fromkeys(subsets):
        found = [find(results, task, method, subset=subset, metric=metrics_of(results, task)[0]) for method in methods]
        n = next(row["n"] for row in found if row is not None)
        table.add_row(subset, str(n), *(f"{row['value']:.1%}" if row else "–" for row in found))
    return table


def demo_score_table(results: Results) -> Table:
    """One line per task: the bridge between the receiver alone and the receiver reading the text, and its controls."""
    table = Table(title="Right answers on unseen rows, % (95 % interval)", title_justify="left")
    table.add_column("task")
    for column in ("receiver alone", "reads the text", "text relay", "bridge", "zero", "shuffled", "noise"):
        table.add_column(column, justify="right")
    for task in tasks_of(results):
        main = [find(results, task, method) for method in ("receiver_only", "receiver_text", "text_relay", "bridge")]
        controls = [find(results, task, "bridge", control) for control in ("zero", "shuffled", "noise")]
        table.add_row(
            task.removeprefix("tinyworld_"),
            *(_percent(row, interval=index == 3) for index, row in enumerate(main)),
            *(_percent(row, interval=False) for row in controls),
        )
    return table


def demo_cost_table(results: Results) -> Table:
    """One line per task: what the message weighs and how long an answer takes."""
    table = Table(title="Message size and time from text to answer (median, batch 1)", title_justify="left")
    for column in ("task", "bridge message", "relay note", "receiver reads the text", "text relay", "bridge", "bridge vs relay"):
        table.add_column(column, justify="left" if column == "task" else "right")
    for task in tasks_of(results):
        text, relay, bridge = (find(results, task, method) for method in ("receiver_text", "text_relay", "bridge"))
        assert text is not None
        assert relay is not None
        assert bridge is not None
        table.add_row(
            task.removeprefix("tinyworld_"),
            message_size(bridge),
            f"{relay['message_tokens']:.0f} tok, {relay['message_bytes']:.0f} B",
            latency(text),
            latency(relay),
            latency(bridge),
            f"{(relay['latency_ms_p50'] or 0) / (bridge['latency_ms_p50'] or 1):.1f} × faster",
        )
    return table


def message_size(row: ResultRow) -> str:
    """Tokens and bytes that crossed the channel."""
    return f"{row['message_tokens']:.0f} tok, {row['message_bytes']:,.0f} B" if row["message_bytes"] else "–"


def latency(row: ResultRow) -> str:
    """Median milliseconds, or nothing where none was measured."""
    return f"{row['latency_ms_p50']:.1f} ms" if row["latency_ms_p50"] is not None else ""


def _percent(row: ResultRow | None, *, interval: bool) -> str:
    if row is None:
        return "–"
    return (
        f"{100 * row['value']:.1f} ({100 * row['ci_low']:.1f}–{100 * row['ci_high']:.1f})"
        if interval
        else f"{100 * row['value']:.1f}"
    )


def print_tables(tables: Iterable[Table | None]) -> None:
    """Prints the tables, as wide as they are where there is no terminal."""
    from rich.console import Console
    from rich.measure import Measurement

    shown, console = [table for table in tables if table is not None], Console()
    if not console.is_terminal:
        # a pipe has no width of its own, and cut numbers are worse than long lines
        unbounded = Console(width=10_000)
        widths = [Measurement.get(unbounded, unbounded.options, table).maximum for table in shown]
        console = Console(width=max(140, *widths, 0))
    for table in shown:
        console.print(table)
