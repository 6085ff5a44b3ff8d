"""``latentwire cache``: the sender states on disk."""

from __future__ import annotations

import typer

from latentwire.cli.console import JSON, emit_json, gib

app = typer.Typer(help="Look at or empty the cache of sender states.", no_args_is_help=True)
YES = typer.Option(False, "--yes", help="Do not ask.")


@app.command()
def info(as_json: bool = JSON) -> None:
    """What is cached, by sender and layer."""
    from latentwire.training.features import cache_folder, cache_summary

    entries = cache_summary()
    if as_json:
        emit_json({"folder": str(cache_folder()), "entries": entries})
        return
    print(f"{cache_folder()}: {gib(sum(int(str(entry['bytes'])) for entry in entries))}")
    for entry in entries:
        size = gib(int(str(entry["bytes"])))
        print(f"  {entry['sender']} layer {entry['layer']}: {entry['texts']} texts, {entry['segments']} segments, {size}")


@app.command()
def clear(yes: bool = YES) -> None:
    """Delete every cached state; they are computed again when needed."""
    from latentwire.training.features import cache_folder, clear_cache

    if not yes:
        typer.confirm(f"Delete all sender states in {cache_folder()}?", abort=True)
    print(f"freed {gib(clear_cache())}")
