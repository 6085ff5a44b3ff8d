"""A capacity measurement as tables and as a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from latentwire.analysis.capacity.file import Capacity, CeilingPoint, CurvePoint, Interval
from latentwire.files import replacing

#: control → colour; a palette that survives colour blindness (Okabe & Ito 2008)
CONTROL_COLOURS = {"zero": "#999999", "shuffled": "#E69F00", "noise": "#56B4E9"}
BRIDGE_COLOUR, CEILING_COLOUR, TEXT_COLOUR, PROBE_COLOUR = "#D55E00", "#0072B2", "#009E73", "#CC79A7"
#: why no longer codes were tried for the ceiling
_ENDS = {"inexact": "inexact codes", "receiver": "the receiver's length", "longest": "no longer ones"}


def curve_table(capacity: Capacity) -> Table:
    """Bits delivered and exact codes by length, the controls below each."""
    run = capacity["run"]
    bridge, alphabet, models = run["models"]["bridge"], run["alphabet"], run["models"]
    table = _table(
        f"{models['sender']['name']} → {bridge['name']} → {models['receiver']['name']} · {bridge['rate']} · {run['codes']} codes a "
        f"length, {alphabet['symbols']} symbols ({alphabet['bits_per_symbol']:.2f} bits)",
        ("code", "bits", "soft tokens", "bytes", "delivered", "per soft token", "per byte", "greedy exact", "but for the end"),
    )
    for point in capacity["curve"]:
        own = point["control"] is None
        table.add_row(
            symbols(point["length"]) if own else f"  control: {point['control']}",
            f"{point['code_bits']:.0f}" if own else "",
            f"{point['soft_tokens']:.1f}" if own else "",
            f"{point['message_bytes']:,.0f}" if own else "",
            interval(point["bits"]),
            interval(point["bits_per_soft_token"], 2),
            f"{point['bits_per_byte']['value']:.4f}" if own else "",
            percent(point["exact"]),
            f"{point['exact_code']['value']:.0%}" if own else "",
            style=None if own else "dim",
        )
    return table


def ceiling_table(capacity: Capacity) -> Table | None:
    """The longest codes that directly optimised soft tokens hold; None where no ceiling was looked for."""
    ceiling = capacity["ceiling"]
    if ceiling is None:
        return None
    settings = ceiling["settings"]
    title = (
        f"ceiling: soft tokens optimised for single codes, at most {settings['steps']} steps, {settings['codes']} codes a length"
    )
    table = _table(title, ("soft tokens", "longest code", "bits", "delivered", "per soft token", "greedy exact", "ended by"))
    best = {point["soft_tokens"]: point for point in ceiling["best"]}
    for soft_tokens, ended_by in ceiling["ended_by"].items():
        point = best.get(int(soft_tokens))
        table.add_row(*_ceiling_cells(soft_tokens, point), _ENDS[ended_by])
    return table


def _ceiling_cells(soft_tokens: str, point: CeilingPoint | None) -> tuple[str, ...]:
    if point is None:
        return soft_tokens, "none", "–", "–", "–", "–"
    return (
        soft_tokens, symbols(point["length"]), f"{point['code_bits']:.0f}",
        interval(point["bits"]), interval(point["bits_per_soft_token"], 2), percent(point["exact"]),
    )  # fmt: skip


def places_table(capacity: Capacity) -> Table | None:
    """Where the bits are lost; None where that was not measured."""
    if not capacity["places"]:
        return None
    table = _table(
        "where the bits are lost (means; greedy exact in brackets)",
        (
            "code",
            "bits",
            "in the sender's states",
            "delivered",
            "receiver reads the text",
            "ceiling",
            "lost: sender",
            "bridge",
            "receiver",
            "mainly",
        ),
    )
    for place in capacity["places"]:
        table.add_row(
            symbols(place["length"]),
            f"{place['code_bits']:.0f}",
            *(
                f"{bits['value']:.1f} ({exact['value']:.0%})"
                for bits, exact in (
                    (place["sender_bits"], place["sender_exact"]),
                    (place["bridge_bits"], place["bridge_exact"]),
                    (place["receiver_bits"], place["receiver_exact"]),
                )
            ),
            "–" if place["ceiling_bits"] is None else f"{place['ceiling_bits']:.1f}",
            *(f"{place[key]:.1f}" for key in ("lost_at_sender", "lost_at_bridge", "lost_at_receiver")),  # type: ignore[literal-required]
            place["mainly"],
        )
    return table


def best_lines(capacity: Capacity) -> list[str]:
    """What it comes to, in words."""
    best, most = capacity["best"], capacity["best"]["most"]
    exact = best["exact"]
    share = f"{best['exact_share']:.0%}"
    if exact is None:
        lines = [f"no length is greedy-exact in {share} of its codes"]
    else:
        lines = [f"most bits with {share} of the codes exact: {_point(exact)}"]
    lines.append(f"most bits at all: {_point(most)}, {percent(most['exact'])} exact")
    if best["share_of_ceiling"] is not None:
        point, which = (most, "the latter") if exact is None else (exact, "the former")
        tokens = f"{best['ceiling_soft_tokens']} soft token{'' if best['ceiling_soft_tokens'] == 1 else 's'}"
        lines.append(
            f"{which} is {best['share_of_ceiling']:.0%} of the ceiling of {tokens}, per soft token; such codes hold no more than "
            f"{point['code_bits'] / point['soft_tokens']:.2f} bits per soft token of this message"
        )
    return lines


def _point(point: CurvePoint) -> str:
    return (
        f"{interval(point['bits'])} of {point['code_bits']:.0f} bits in {point['soft_tokens']:.1f} soft tokens "
        f"({interval(point['bits_per_soft_token'], 2)} each), codes of {point['length']}"
    )


def symbols(length: int) -> str:
    """``1 symbol``, ``2 symbols``."""
    return f"{length} symbol{'' if length == 1 else 's'}"


def interval(found: Interval, digits: int = 1) -> str:
    """``38.9 (38.4 to 39.2)``; "to", since ends may be negative."""
    return f"{found['value']:.{digits}f} ({found['low']:.{digits}f} to {found['high']:.{digits}f})"


def percent(found: Interval) -> str:
    """``94 % (92–96)``."""
    return f"{found['value']:.0%} ({100 * found['low']:.0f}–{100 * found['high']:.0f})"


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column in ("code", "ended by", "mainly") else "right")
    return table


# ------------------------------------------------------------------------------------------------------------ figure


def draw_capacity(capacity: Capacity, path: Path) -> None:
    """Writes a PNG with two panels over the length of the codes: bits per soft token with bands and ceiling, and exact codes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (bits, exact) = pyplot.subplots(1, 2, figsize=(12, 5), constrained_layout=True)
    _draw_bits(bits, capacity)
    _draw_exact(exact, capacity)
    lengths = sorted({point["length"] for point in capacity["curve"]})
    for axis, title, unit in (
        (bits, "Bits delivered per soft token, 95 % intervals", "bits"),
        (exact, "Greedy-exact codes, 95 % intervals", "%"),
    ):
        axis.set_xscale("log", base=2)
        axis.set_xticks(lengths, [str(length) for length in lengths])
        axis.minorticks_off()
        axis.set_title(title, loc="left")
        axis.set_xlabel("symbols in a code")
        axis.set_ylabel(unit)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)
    models = capacity["run"]["models"]
    sender, bridge, receiver = models["sender"]["name"], models["bridge"], models["receiver"]["name"]
    title = f"Capacity: {sender} → {bridge['name']}, {bridge['rate']} → {receiver}, {capacity['run']['codes']} codes a length"
    figure.suptitle(title, x=0.01, ha="left")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    pyplot.close(figure)


def _draw_bits(axis: Any, capacity: Capacity) -> None:
    own = [point for point in capacity["curve"] if point["control"] is None]
    lengths = [point["length"] for point in own]
    whole = [point["code_bits"] / point["soft_tokens"] for point in own]
    _band(axis, lengths, [point["bits_per_soft_token"] for point in own], BRIDGE_COLOUR, "bridge")
    axis.plot(lengths, whole, color="black", lw=0.9, ls=":", label="all bits of the code")
    top = max(whole)
    if capacity["ceiling"] is not None and capacity["ceiling"]["best"]:
        best = capacity["ceiling"]["best"]
        shown = next((point for point in best if point["soft_tokens"] == capacity["best"]["ceiling_soft_tokens"]), best[-1])
        found = shown["bits_per_soft_token"]
        axis.axhspan(found["low"], found["high"], color=CEILING_COLOUR, alpha=0.15, lw=0)
        tokens = f"{shown['soft_tokens']} soft token{'s' if shown['soft_tokens'] > 1 else ''}"
        axis.axhline(found["value"], color=CEILING_COLOUR, lw=1.2, ls="--", label=f"ceiling ({tokens})")
        top = max(top, found["high"])
    # a receiver that is sure of the wrong code loses without limit; the arrows say that a control lies below the axis
    floor = -0.12 * top
    for index, (control, colour) in enumerate(CONTROL_COLOURS.items()):
        points = [point for point in capacity["curve"] if point["control"] == control]
        values = [point["bits_per_soft_token"]["value"] for point in points]
        heights = [max(value, floor * (0.7 + 0.1 * index)) for value in values]
        if points:
            axis.plot(lengths, heights, color=colour, lw=0.8, label=f"control: {control}")
            below = [place for place, value in enumerate(values) if value < heights[place]]
            axis.plot([lengths[place] for place in below], [heights[place] for place in below], "v", color=colour, ms=4)
    axis.plot([], [], "v", color="#555555", ms=4, label="lower still")
    axis.axhline(0, color="black", lw=0.6)
    axis.set_ylim(floor * 1.1, top * 1.06)


def _draw_exact(axis: Any, capacity: Capacity) -> None:
    for control, colour, label in (
        (None, BRIDGE_COLOUR, "bridge"),
        *((control, colour, f"control: {control}") for control, colour in CONTROL_COLOURS.items()),
    ):
        points = [point for point in capacity["curve"] if point["control"] == control]
        if points:
            _band(axis, [point["length"] for point in points], [_hundred(point["exact"]) for point in points], colour, label)
    places = capacity["places"]
    if places:
        lengths = [place["length"] for place in places]
        _band(axis, lengths, [_hundred(place["receiver_exact"]) for place in places], TEXT_COLOUR, "receiver reads the text")
        _band(axis, lengths, [_hundred(place["sender_exact"]) for place in places], PROBE_COLOUR, "probe of the sender's states")
    axis.set_ylim(-3, 103)


def _band(axis: Any, lengths: list[int], found: list[Interval], colour: str, label: str) -> None:
    """A line with its 95 % band."""
    axis.plot(lengths, [item["value"] for item in found], color=colour, marker="o", ms=3.5, lw=1.4, label=label)
    axis.fill_between(lengths, [item["low"] for item in found], [item["high"] for item in found], color=colour, alpha=0.18, lw=0)


def _hundred(found: Interval) -> Interval:
    """A share as percent."""
    return Interval(value=100 * found["value"], low=100 * found["low"], high=100 * found["high"], how=found["how"])
