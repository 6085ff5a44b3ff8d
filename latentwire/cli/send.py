"""``latentwire send``: a text in, an answer out, through soft tokens."""

from __future__ import annotations

from pathlib import Path

import typer

from latentwire.cli.console import DEVICE, emit_json, say

TEXT = typer.Argument(help="What the sender reads.", show_default=False)
ASK = typer.Option(..., "--ask", help="The question that the receiver answers without seeing the text. Repeatable.")
BRIDGE = typer.Option("runs/demo/bridge", "--bridge", help="Folder or Hub id of a trained bridge.")
PRECISION = typer.Option(
    None, "--precision", help="Number format of the message: auto, float32, bf16, int8, int4; default: as the bridge was trained."
)
JSON = typer.Option(False, "--json", help="Print answers and message size as JSON on stdout.")


def send(
    text: str = TEXT,
    ask: list[str] = ASK,
    bridge: str = BRIDGE,
    precision: str | None = PRECISION,
    device: str | None = DEVICE,
    as_json: bool = JSON,
) -> None:
    """Send a text through a bridge and ask the receiver about it."""
    from latentwire.errors import ArtefactError
    from latentwire.messages.settings import as_precision

    chosen = None if precision is None else as_precision(precision)
    if bridge == "runs/demo/bridge" and not Path(bridge).is_dir():
        raise ArtefactError("no bridge at runs/demo/bridge yet; run `make demo`, or name another with --bridge")
    from latentwire.telepathy import Telepathy

    wire = Telepathy.from_pretrained(bridge, device=device, precision=chosen)
    message = wire.send([text])
    answers = [wire.ask(message, [question])[0] for question in ask]
    if as_json:
        sizes = {"soft_tokens": message.soft_tokens[0], "message_bytes": message.message_bytes[0]}
        emit_json({"answers": answers, **sizes, "precision": message.precision, "verbatim": message.verbatim[0]})
        return
    beside = f" and {message.verbatim[0]!r}" if message.verbatim[0] else ""
    size = f"{message.soft_tokens[0]} soft tokens ({message.precision}){beside}, {message.message_bytes[0]} bytes"
    say(f"{wire.sender.source.name} → {size} → {wire.receiver.source.name}")
    for answer in answers:
        print(answer)
