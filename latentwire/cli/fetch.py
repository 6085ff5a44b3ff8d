"""``latentwire fetch``: models and data of a config into the Hub cache, for nodes without network."""

from __future__ import annotations

import typer

from latentwire.cli.console import say

CONFIG = typer.Argument(help="YAML file, for example configs/llama_to_mistral.yaml.", show_default=False)
SET = typer.Option(None, "--set", metavar="KEY=VALUE", help="Override one setting. Repeatable.")


def fetch(config: str = CONFIG, set_: list[str] | None = SET) -> None:
    """Prefetch the models and data of a config for offline nodes."""
    from latentwire.config import load_config
    from latentwire.data.readers import read_task
    from latentwire.data.task import load_task
    from latentwire.models.source import fetch_model

    run = load_config(config, set_ or [])
    for settings in (run.sender, run.receiver):
        say(f"{settings.model}: {fetch_model(settings.model, settings.revision)}")
    for name in run.task:
        task = load_task(name, run.variant)
        for split in ("train", "test"):
            rows = read_task(task, split, data_dir=run.data.data_dir)
            say(f"{task.name}: {split}, {len(rows.examples)} rows, {rows.revision}")
    say("all here; on nodes without network set HF_HUB_OFFLINE=1")
