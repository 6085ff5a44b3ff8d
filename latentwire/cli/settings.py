"""``latentwire settings``: every setting of a run that ``--set`` takes, with what is allowed, its default and what it does."""

from __future__ import annotations

from typing import Any

import typer

from latentwire.cli.console import JSON, emit_json

NAME = typer.Argument("", help="Only settings whose name has this in it, such as training. or lr.", show_default=False)
CONFIG = typer.Option(None, "--config", help="Also show what this config, or the config.json of a run, sets them to.")


def settings(name: str = NAME, config: str | None = CONFIG, as_json: bool = JSON) -> None:
    """List the settings of a run; those of a bridge belong to the bridges that are named."""
    from dataclasses import asdict

    from latentwire.config import load_config, settings_of
    from latentwire.errors import UsageError, suggestion

    known = settings_of()
    found = [setting for setting in known if name in setting.name]
    if not found:
        raise UsageError(f"no setting has {name!r} in its name; {suggestion(name, {setting.name for setting in known})}")
    run = None if config is None else load_config(config).model_dump(mode="json")
    rows = [asdict(setting) | ({} if run is None else {"here": _value(run, setting.name)}) for setting in found]
    emit_json(rows) if as_json else _print(rows)


def _value(run: dict[str, Any], name: str) -> Any:
    """What a config holds under a dotted name; None where it says nothing."""
    value: Any = run
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from latentwire.report.tables import print_tables

    table = Table(title="--set NAME=VALUE", title_justify="left")
    columns = ("setting", "allowed", "default", *(["here"] if "here" in rows[0] else []), "what")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        shown = {"setting": row["name"], "allowed": row["allowed"], "default": _text(row["default"]), "what": row["what"]}
        if "here" in row:
            here = _text(row["here"])
            shown["here"] = here if here != shown["default"] and row["here"] is not None else ""
        table.add_row(*(shown[column] for column in columns))
    print_tables([table])


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
