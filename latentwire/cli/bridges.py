"""``latentwire bridges``: every bridge with what it costs between a pair of models."""

from __future__ import annotations

import typer

from latentwire.cli.console import JSON, emit_json

CONFIG = typer.Argument("configs/nano.yaml", help="Run config whose pair, sender layer and message format count.")
SET = typer.Option(
    None, "--set", metavar="KEY=VALUE", help="Override one setting; settings of a bridge apply to that bridge alone. Repeatable."
)
CONTEXT_TOKENS = typer.Option(64, "--context_tokens", min=1, max=1_000_000, help="Sender tokens of the context.")


def bridges(config: str = CONFIG, set_: list[str] | None = SET, context_tokens: int = CONTEXT_TOKENS, as_json: bool = JSON) -> None:
    """List the bridges: parameters, soft tokens, bytes of a message and FLOPs for one context. No model is loaded."""
    from rich.table import Table

    from latentwire.config import load_config
    from latentwire.report.tables import print_tables
    from latentwire.training.plan import cost_cards

    run = load_config(config, set_ or [])
    cards = cost_cards(run, context_tokens=context_tokens)
    if as_json:
        emit_json([card.as_dict() for card in cards])
        return
    ends = f"{run.sender.model} → {run.receiver.model}"
    table = Table(title=f"{ends}, {context_tokens:,} sender tokens, {cards[0].precision}", title_justify="left")
    for column in ("bridge", "what", "parameters", "soft tokens", "bytes", "MFLOPs"):
        table.add_column(column, justify="left" if column in ("bridge", "what") else "right")
    for card in cards:
        costs = card.costs
        figures = (f"{costs.params:,}", f"{costs.soft_tokens:,}", f"{card.message_bytes:,}", f"{costs.flops / 1e6:.1f}")
        table.add_row(card.name, card.what, *figures)
    print_tables([table])
