"""``latentwire ablate``: train a config and its variations, and compare them on validation."""

from __future__ import annotations

from pathlib import Path

import typer

from latentwire.cli.console import SEEDS, emit_json, parse_seeds, same_command_goes_on, say
from latentwire.cli.train import CONFIG, DEVICE, SET

VARY = typer.Option(
    ..., "--vary", metavar="KEY=VALUE,VALUE", help="Values to try instead of the config's, for example training.terms.align=0,0.1."
)
GRID = typer.Option(False, "--grid", help="Every combination of all --vary; without it, one change at a time.")
OUT = typer.Option(None, "--out", help="Folder; default: runs/ablate-CONFIG. The same command goes on where it stopped.")
JSON = typer.Option(False, "--json", help="Print the comparison as JSON on stdout.")


def ablate(
    config: str = CONFIG,
    vary: list[str] = VARY,
    set_: list[str] | None = SET,
    seeds: str | None = SEEDS,
    grid: bool = GRID,
    out: Path | None = OUT,
    device: str | None = DEVICE,
    as_json: bool = JSON,
) -> None:
    """Train a config and its variations; print validation scores and differences. Test rows are not read."""
    from latentwire.cli.train import learn_packing_with_progress, train_with_progress
    from latentwire.config import load_config
    from latentwire.files import write_json
    from latentwire.training.ablation import ablation_rows, variations

    folder = out or Path("runs") / f"ablate-{Path(config).stem}"
    chosen = parse_seeds(seeds) if seeds else [load_config(config, set_ or []).seed]
    planned = variations(config, set_ or [], vary, chosen, folder, grid=grid)
    done: dict[str, list[float]] = {}
    for number, variation in enumerate(planned, start=1):
        say(f"{number} of {len(planned)}: {variation.name}")
        scores = done[variation.name] = []
        for run in variation.configs:
            if run.needs_own_packing:
                learn_packing_with_progress(run, device=device)
            with same_command_goes_on():
                scores.append(float(train_with_progress(run, resume=True, device=device)["validation"]))
    rows = ablation_rows(done)
    write_json(folder / "ablation.json", {"config": config, "seeds": chosen, "rows": rows})
    if as_json:
        emit_json(rows)
        return
    from rich.table import Table

    from latentwire.report.tables import print_tables

    table = Table(title=f"validation, seeds {', '.join(map(str, chosen))}", title_justify="left")
    for column in ("variation", "right", "against base", "by seed"):
        table.add_column(column, justify="left" if column == "variation" else "right")
    for row in rows:
        by_seed = row["by_seed"]
        assert isinstance(by_seed, list)
        table.add_row(
            str(row["variation"]),
            f"{row['validation']:.1%}",
            f"{row['difference_points']:+.1f}",
            " ".join(f"{score:.1%}" for score in by_seed),
        )
    print_tables([table])
