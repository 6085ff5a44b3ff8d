"""``latentwire slurm``: job scripts for a cluster."""

from __future__ import annotations

from pathlib import Path

import typer

from latentwire.cli.console import say

app = typer.Typer(help="Job scripts: one worker per GPU over the experiments of a suite.", no_args_is_help=True)

CONFIG = typer.Argument(help="Suite, for example configs/paper.yaml.", show_default=False)
CLUSTER = typer.Option("generic", "--cluster", help="Name of a file in configs/clusters/, or its path.")
ACCOUNT = typer.Option(None, "--account", help="Slurm account; default: that of the cluster's file.")
PARTITION = typer.Option(None, "--partition", help="Slurm partition.")
GPUS = typer.Option(None, "--gpus", min=0, help="GPUs of the job, one worker each; 0: one worker on the CPU.")
TIME = typer.Option(None, "--time", help="Time limit, for example 12:00:00.")
OUT = typer.Option(None, "--out", help="Write the script to this file instead of stdout.")
DRY_RUN = typer.Option(False, "--dry-run", help="Print the script and submit nothing.")


def _script(
    config: str, cluster: str, account: str | None, partition: str | None, gpus: int | None, time: str | None, name: str
) -> str:
    from latentwire.experiments.work.plan import load_suite
    from latentwire.experiments.work.slurm import changed, load_cluster, render

    load_suite(config)
    place = changed(load_cluster(cluster), account=account, partition=partition, gpus=gpus, time=time)
    return render(config, place, script=name)


@app.command("render")
def render_(
    config: str = CONFIG,
    cluster: str = CLUSTER,
    account: str | None = ACCOUNT,
    partition: str | None = PARTITION,
    gpus: int | None = GPUS,
    time: str | None = TIME,
    out: Path | None = OUT,
) -> None:
    """Print the job script, or write it to a file."""
    from latentwire.files import write_text

    text = _script(config, cluster, account, partition, gpus, time, str(out or "job.slurm"))
    if out is None:
        print(text, end="")
    else:
        write_text(out, text)
        say(f"next: sbatch {out} {config}")


@app.command("submit")
def submit_(
    config: str = CONFIG,
    cluster: str = CLUSTER,
    account: str | None = ACCOUNT,
    partition: str | None = PARTITION,
    gpus: int | None = GPUS,
    time: str | None = TIME,
    dry_run: bool = DRY_RUN,
) -> None:
    """Render the job script and hand it to sbatch."""
    from latentwire.experiments.work.slurm import submit

    text = _script(config, cluster, account, partition, gpus, time, f"runs/slurm/{Path(config).stem}.slurm")
    if dry_run:
        print(text, end="")
    else:
        print(submit(text, config, folder=Path.cwd()))
