"""One message, explained: the table for a terminal, the figure, and a page that holds both."""

from __future__ import annotations

import html
import io
from pathlib import Path
from typing import Any

from rich.table import Table

from latentwire.analysis.explain import Explanation, SoftTokenStory
from latentwire.errors import UsageError
from latentwire.files import replacing, write_text

FIGURES, PAGES = ("png", "svg", "pdf"), ("html",)
#: more sender tokens than this have no room for their words along an axis
_MOST_LABELS = 90
#: where no soft token's effect reaches this share of what the message brought, they repeat each other
_REDUNDANT = 0.1


def head_lines(found: Explanation) -> list[str]:
    """The row, its answers and what the message as a whole brought."""
    right = "right" if found.right else "wrong"
    gold, alone = found.gold_log_likelihood, found.gold_without_message
    brought = f"{_plus_zero(gold):.2f} nats with the message, {alone:.2f} without any ({gold - alone:+.2f})"
    lines = [
        f"{found.task}, {found.split}, row {found.row}: {found.sender} → {found.bridge} → {found.receiver}",
        f"sender reads:   {' '.join(found.sender_tokens)}",
        f"receiver reads: {' ⏎ '.join(found.reads.splitlines())}",
        *([f"beside the soft tokens, as text: {found.verbatim!r}"] if found.verbatim else []),
        f"gold {found.gold!r}, predicted {found.predicted!r} ({right})",
        f"log-likelihood of the gold answer: {brought}",
    ]
    if found.gold_without_verbatim is not None:
        left = found.gold_without_verbatim
        lines.append(f"without the text beside the soft tokens: {left:.2f}, so it brought {gold - left:+.2f}")
    if found.predicted != found.gold:
        own, without = found.predicted_log_likelihood, found.predicted_without_message
        lines.append(f"of the predicted answer: {own:.2f} with the message, {without:.2f} without any ({own - without:+.2f})")
    brought_by_one = max((abs(story.gold_effect) for story in found.soft_tokens), default=0.0)
    if not found.verbatim and len(found.soft_tokens) > 1 and gold - alone > 0 and brought_by_one < _REDUNDANT * (gold - alone):
        lines.append("no soft token alone carries the answer: the others make up for each")
    return lines


def foot_lines(found: Explanation) -> list[str]:
    """How to read the columns."""
    heard = (
        f"attention: of the answer's tokens, mean over heads and layers; prompt and answer get {found.attention_elsewhere:.0%}"
        + (f", the text beside the soft tokens {found.attention_on_verbatim:.0%}" if found.verbatim else "")
        if found.attention_how == "attention"
        else "attention: this model shows none; shares of |gradient × vector| instead"
    )
    lines = [
        f"nearest: readable vocabulary by cosine; in brackets what is below {found.noise:.2f}, which random directions reach too",
        "from: how far the soft token moves (1 = its own length) when that sender token's state is hidden behind the mean of all",
        heard,
        "effect: change of the log-likelihood in nats when this soft token is left out; ! the answer becomes another",
    ]
    if any(story.gradient_sources for story in found.soft_tokens):
        lines.insert(2, "gradient: share of that sender token in gradient × state of the soft token")
    return lines


def story_table(found: Explanation) -> Table:
    """One line per soft token."""
    table = Table(title_justify="left")
    pooled = any(story.group for story in found.soft_tokens)
    headings = ["#", *(["place of"] if pooled else []), "nearest vocabulary (cosine)", "from sender tokens"]
    gradient = any(story.gradient_sources for story in found.soft_tokens)
    headings += ["gradient"] if gradient else []
    differs = found.predicted != found.gold
    headings += ["attention", "effect on gold", *(["effect on predicted"] if differs else []), ""]
    for heading in headings:
        words = heading in ("place of", "nearest vocabulary (cosine)", "from sender tokens", "gradient")
        table.add_column(heading, justify="left" if words else "right")
    for story in found.soft_tokens:
        own = [" ".join(found.sender_tokens[story.group[0] : story.group[1] + 1])] if story.group else []
        cells = [str(story.index), *own, _near(story, found.noise), _places(found, story.sources)]
        cells += [_places(found, story.gradient_sources)] if gradient else []
        cells += [f"{100 * story.attention:.1f} %", _nats(story.gold_effect)]
        cells += [_nats(story.predicted_effect)] if differs else []
        table.add_row(*(cell.replace("[", "\\[") for cell in (*cells, "!" if story.changes_answer else "")))
    return table


def _nats(change: float) -> str:
    return f"{_plus_zero(change):+.2f}"


def _plus_zero(value: float) -> float:
    """The value to two places, without the minus of nothing."""
    return round(value, 2) + 0.0


def _near(story: SoftTokenStory, noise: float) -> str:
    clear = [f"{near.token} {near.cosine:.2f}" for near in story.neighbours if near.cosine >= noise]
    rest = [f"{near.token} {near.cosine:.2f}" for near in story.neighbours if near.cosine < noise]
    return ", ".join([*clear, *([f"({', '.join(rest)})"] if rest else [])])


def _places(found: Explanation, sources: tuple[tuple[int, float], ...]) -> str:
    return ", ".join(f"{found.sender_tokens[place]} {value:.2f}" for place, value in sources)


# ------------------------------------------------------------------------------------------------------------ figures


def check_ending(out: Path) -> None:
    """Raises ``UsageError`` where nothing can be written to ``out``, before any work is done."""
    if out.suffix.removeprefix(".") not in (*FIGURES, *PAGES):
        raise UsageError(f"--out {str(out)!r} does not fit; end it in .html for a page, or in .png, .svg or .pdf for the figure")


def write_explanation(found: Explanation, out: Path) -> None:
    """A page (``.html``) or the figure alone, by the ending of ``out``."""
    check_ending(out)
    if out.suffix == ".html":
        write_text(out, explanation_page(found))
        return
    figure = _figure(found)
    with replacing(out) as temporary:
        figure.savefig(temporary, dpi=130, format=out.suffix.removeprefix("."))
    _close(figure)


def explanation_page(found: Explanation) -> str:
    """The head, the table and the figure as one HTML page that needs nothing else."""
    figure, drawn = _figure(found), io.StringIO()
    figure.savefig(drawn, format="svg")
    _close(figure)
    svg = drawn.getvalue()
    table = story_table(found)
    columns = [str(column.header) for column in table.columns]
    cells = zip(*([str(cell).replace("\\[", "[") for cell in column.cells] for column in table.columns), strict=True)
    rows = "\n".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in cells)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{html.escape(found.task)}, row {html.escape(found.row)}</title>
<style>body {{ font: 15px/1.45 system-ui, sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em }}
table {{ border-collapse: collapse }} td, th {{ padding: .2em .7em; border-bottom: 1px solid #ddd; text-align: left }}
pre {{ white-space: pre-wrap }} svg {{ max-width: 100%; height: auto }}</style>
<h1>What one message says</h1>
<pre>{html.escape(chr(10).join(head_lines(found)))}</pre>
<table><tr>{"".join(f"<th>{html.escape(column)}</th>" for column in columns)}</tr>
{rows}
</table>
<pre>{html.escape(chr(10).join(foot_lines(found)))}</pre>
{svg[svg.index("<svg") :]}
</html>
"""


def _figure(found: Explanation) -> Any:
    """Which sender tokens make which soft token (left); attention and effect of each (right)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    count, length = len(found.soft_tokens), len(found.sender_tokens)
    size = (min(24.0, 7.5 + 0.28 * length), min(30.0, 3.2 + 0.3 * count))
    figure, (sources, attention, effect) = pyplot.subplots(
        1, 3, figsize=size, width_ratios=(max(2.0, min(6.0, length / 5)), 1, 1), sharey=True, constrained_layout=True
    )
    image = sources.imshow(
        found.sources, aspect="auto", cmap="Greys", vmin=0, vmax=max(map(max, found.sources), default=1.0) or 1.0
    )
    step = -(-length // _MOST_LABELS)
    places = range(0, length, step)
    sources.set_xticks(places, [_plain(found.sender_tokens[place]) for place in places], rotation=90, fontsize=8)
    labels = [f"{story.index}  {_plain(story.neighbours[0].token) if story.neighbours else ''}" for story in found.soft_tokens]
    sources.set_yticks(range(count), labels, fontsize=8)
    sources.set_ylabel("soft token, and the nearest word")
    sources.set_xlabel("sender token")
    sources.set_title("Change of the soft token when a sender token is hidden", loc="left", fontsize=10)
    figure.colorbar(image, ax=sources, fraction=0.03, pad=0.01)
    attention.barh(range(count), [100 * story.attention for story in found.soft_tokens], color="#56B4E9")
    attention.set_title("Attention" if found.attention_how == "attention" else "|gradient × vector|", loc="left", fontsize=10)
    attention.set_xlabel("% of the answer's")
    colours = ["#D55E00" if story.changes_answer else "#999999" for story in found.soft_tokens]
    effect.barh(range(count), [story.gold_effect for story in found.soft_tokens], color=colours)
    effect.axvline(0, color="black", linewidth=0.6)
    effect.set_title("Left out: gold answer", loc="left", fontsize=10)
    effect.set_xlabel("nats (orange: other answer)")
    for axis in (attention, effect):
        axis.spines[["top", "right"]].set_visible(False)
    question = " ⏎ ".join(found.question.splitlines())[-80:]
    title = f"{found.task}, row {found.row}: {question} – gold {found.gold[:40]!r}, predicted {found.predicted[:40]!r}"
    figure.suptitle(_plain(title), x=0.01, ha="left", fontsize=10)
    return figure


def _plain(text: str) -> str:
    """Text that matplotlib does not take for a formula, on one line."""
    return " ".join(text.split()).replace("$", r"\$")


def _close(figure: Any) -> None:
    from matplotlib import pyplot

    pyplot.close(figure)
