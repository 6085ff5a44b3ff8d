"""Job scripts for Slurm: plain bash rendered from a template, a cluster's YAML file and flags.

Nothing here knows a cluster: account, partition, folders and sizes are data (``configs/clusters/``).
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from pydantic import Field

from latentwire.config import read_mapping
from latentwire.errors import ConfigError, LatentWireError, UnknownNameError, UsageError
from latentwire.files import write_text
from latentwire.schema import Schema, validated

TEMPLATE = Path(__file__).parent / "slurm_job.sh"
CLUSTERS = Path("configs/clusters")
#: seconds between the warning and the time limit
WARNING_S = 120


class Cluster(Schema):
    """Where and with what a job runs. ``workdir`` and ``scratch`` are only defaults of the script's variables."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    account: str | None = None
    partition: str | None = None
    workdir: str = "."
    scratch: str = ".cache"
    gpus: int = Field(1, ge=0)
    cpus_per_gpu: int = Field(8, ge=1)
    memory_per_gpu: str = Field("64G", pattern=r"^\d+[KMGT]?$")
    time: str = Field("12:00:00", pattern=r"^(\d+-)?\d+(:\d+){0,2}$")
    extra: tuple[str, ...] = Field((), description="further sbatch flags, for example --constraint=a100")


def load_cluster(name: str) -> Cluster:
    """The cluster of ``configs/clusters/NAME.yaml``, or of a YAML file.

    Raises:
        UnknownNameError: no such file. ConfigError: it does not fit.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else CLUSTERS / f"{name}.yaml"
    if not path.is_file():
        raise UnknownNameError("cluster", name, (item.stem for item in CLUSTERS.glob("*.yaml")))
    content = read_mapping(path, what="cluster")
    return validated(Cluster, content, where=f"cluster {str(path)!r}")


def changed(cluster: Cluster, *, account: str | None, partition: str | None, gpus: int | None, time: str | None) -> Cluster:
    """The cluster with flags in the place of what its file says."""
    flags = {"account": account, "partition": partition, "gpus": gpus, "time": time}
    given = {key: value for key, value in flags.items() if value is not None}
    return validated(Cluster, cluster.model_dump() | given, where="slurm flags")


def render(config: str, cluster: Cluster, *, script: str = "job.slurm") -> str:
    """The whole job script for the suite ``config``; ``script`` is only how its usage line names it."""
    if not re.fullmatch(r"[A-Za-z0-9_./-]+", config):
        raise UsageError(f"config {config!r} does not fit into a script; use letters, digits and ._-/ in its path")
    for key in ("workdir", "scratch"):
        value = getattr(cluster, key)
        if not re.fullmatch(r"[A-Za-z0-9_./${}-]+", value):
            raise ConfigError(f"cluster {cluster.name!r}: {key} = {value!r} does not fit; use a path without spaces")
    return TEMPLATE.read_text(encoding="utf-8").format(
        directives="\n".join(f"#SBATCH {line}" for line in directives(config, cluster)),
        config=config,
        cluster_flag=f" --cluster {cluster.name}",
        script=script,
        workdir=cluster.workdir,
        scratch=cluster.scratch,
    )


def directives(config: str, cluster: Cluster) -> list[str]:
    """The ``#SBATCH`` lines, as flags."""
    units = max(1, cluster.gpus)
    number, unit = re.fullmatch(r"(\d+)([KMGT]?)", cluster.memory_per_gpu).groups()  # type: ignore[union-attr]
    lines = [f"--job-name=latentwire-{Path(config).stem}", "--nodes=1", "--ntasks=1"]
    lines += [f"--account={cluster.account}"] if cluster.account else []
    lines += [f"--partition={cluster.partition}"] if cluster.partition else []
    lines += [f"--gpus={cluster.gpus}"] if cluster.gpus else []
    lines += [
        f"--cpus-per-task={units * cluster.cpus_per_gpu}",
        f"--mem={units * int(number)}{unit}",
        f"--time={cluster.time}",
        "--requeue",
        # before the time limit, to the script alone; NCCL and others may catch USR1
        f"--signal=B:USR2@{WARNING_S}",
        "--open-mode=append",
        "--output=latentwire-%j.out",
    ]
    return lines + list(cluster.extra)


def submit(script: str, config: str, *, folder: Path) -> str:
    """Writes the script below ``runs/`` and hands it to ``sbatch``; returns what sbatch says.

    Raises:
        LatentWireError: there is no sbatch here, or it refuses.
    """
    path = folder / "runs" / "slurm" / f"{Path(config).stem}.slurm"
    write_text(path, script)
    command = ["sbatch", str(path.relative_to(folder)), config]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise LatentWireError("there is no sbatch here; run the same command in a clone on a login node of the cluster") from None
    if done.returncode:
        raise LatentWireError(
            f"sbatch refused: {' '.join(done.stderr.split())}; change it with --account, --partition, --gpus, --time"
        )
    return done.stdout.strip()
