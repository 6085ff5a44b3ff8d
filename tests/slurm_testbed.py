"""A real Slurm on this machine for tests: two virtual nodes with two pretended GPUs each, nothing installed, 4 s to start.

Debian's packages are downloaded and unpacked into a temporary folder. No munge, no cgroups, no accounting.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins", "libmunge2", "libhwloc15", "liblua5.1-0")
NODES = ("n1", "n2")
KILL_WAIT_S = 20


class UnavailableError(Exception):
    """No Slurm can be had here; the message says why."""


class SlurmTestbed:
    """Starts with ``with SlurmTestbed(folder) as slurm:``; ``slurm.environment`` makes its commands found."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "root"
        self.environment: dict[str, str] = {}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> SlurmTestbed:
        if platform.system() != "Linux" or shutil.which("apt-get") is None or os.geteuid() != 0:
            raise UnavailableError("the Slurm testbed needs Linux, apt-get and root")
        self._unpack()
        libraries = next(self.root.glob("usr/lib/*/slurm-wlm"), None)
        if libraries is None:
            raise UnavailableError("the downloaded Slurm packages hold no plugins")
        self._configure(libraries)
        try:
            self._start()
        except UnavailableError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *args: object) -> None:
        self._cancel_all()
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in reversed(self._daemons):
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def __call__(self, *command: str, folder: Path | None = None, more: Mapping[str, str] | None = None) -> str:
        """Standard output of a command with Slurm's programs in its path."""
        environment = {**self.environment, **(more or {})}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.stderr or done.stdout}")
        return done.stdout

    def job(self, number: str) -> dict[str, str]:
        """What ``scontrol show job`` says, key by key."""
        return dict(part.split("=", 1) for part in self("scontrol", "show", "job", "-o", number).split() if "=" in part)

    def start_now(self, number: str) -> None:
        """Slurm lets a requeued job wait for two minutes; a test does not."""
        self.wait_for(number, "PENDING")
        # Slurm tells the credentials of two starts apart by the second
        time.sleep(2.5)
        self("scontrol", "update", f"JobId={number}", "StartTime=now")

    def wait_for(self, number: str, *states: str, timeout_s: float = 120) -> str:
        """Waits until the job is in one of the states and returns it."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            state = self.job(number)["JobState"]
            if state in states:
                return state
            time.sleep(0.5)
        raise AssertionError(f"job {number} is {state} after {timeout_s:.0f} s, not {' or '.join(states)}")

    def _cancel_all(self) -> None:
        """Jobs outlive the daemons: none may be left behind."""
        ask = ["squeue", "--noheader", "--format=%A"]
        for _ in range(60):
            seen = subprocess.run(ask, env=self.environment, capture_output=True, text=True, check=False)
            jobs = seen.stdout.split()
            if seen.returncode or not jobs:
                return
            subprocess.run(["scancel", *jobs], env=self.environment, capture_output=True, check=False)
            time.sleep(0.5)

    # ------------------------------------------------------------------------------------------------------------ set-up

    def _unpack(self) -> None:
        packages = self.folder / "debs"
        packages.mkdir(parents=True)
        download = ["apt-get", "download", "-q", *PACKAGES]
        if subprocess.run(download, cwd=packages, capture_output=True, check=False).returncode:
            subprocess.run(["apt-get", "update", "-q"], capture_output=True, check=False)
            done = subprocess.run(download, cwd=packages, capture_output=True, text=True, check=False)
            if done.returncode:
                raise UnavailableError(f"Slurm cannot be downloaded: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
        for package in packages.glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(package), str(self.root)], check=True)
        for program in ("slurmctld", "slurmd", "slurmstepd"):
            # Slurm decides by its own name which daemon it is, and Debian adds a suffix
            (self.root / "usr/sbin" / program).symlink_to(f"{program}-wlm")

    def _configure(self, libraries: Path) -> None:
        for name in ("etc", "state", "spool/n1", "spool/n2", "log", "run", "gpu"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(2):
            device = self.folder / "gpu" / f"nvidia{index}"
            if subprocess.run(["mknod", str(device), "c", "1", "3"], capture_output=True, check=False).returncode:
                device.touch()
        (self.folder / "etc/gres.conf").write_text(f"NodeName=n[1-2] Name=gpu File={self.folder}/gpu/nvidia[0-1]\n")
        (self.folder / "etc/slurm.conf").write_text(self._slurm_conf(libraries))
        self.environment = {
            **os.environ,
            "SLURM_CONF": str(self.folder / "etc/slurm.conf"),
            "LD_LIBRARY_PATH": f"{libraries.parent}:{libraries}",
            "PATH": f"{self.root}/usr/bin:{self.root}/usr/sbin:{os.environ['PATH']}",
        }

    def _slurm_conf(self, libraries: Path) -> str:
        host, user, folder = socket.gethostname().split(".")[0], getpass.getuser(), self.folder
        ports = _free_ports(3)
        nodes = [
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=4000 Gres=gpu:2"
            for name, port in zip(NODES, ports[1:], strict=True)
        ]
        settings = f"""ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
PluginDir={libraries}
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MpiDefault=none
MinJobAge=3600
KillWait={KILL_WAIT_S}
ReturnToService=2
GresTypes=gpu"""
        partition = f"PartitionName=debug Nodes={','.join(NODES)} Default=YES MaxTime=60 State=UP"
        return "\n".join([settings, *nodes, partition, ""])

    def _start(self) -> None:
        self._daemon("slurmctld", "slurmctld", "-c", "-D")
        time.sleep(1.5)
        for node in NODES:
            self._daemon(node, "slurmd", "-c", "-D", "-d", str(self.root / "usr/sbin/slurmstepd"), "-N", node)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            seen = subprocess.run(["sinfo", "-h", "-o", "%T"], env=self.environment, capture_output=True, text=True, check=False)
            if seen.stdout.split() == ["idle"]:
                return
            time.sleep(0.25)
        said = (self.folder / "log/slurmctld.out").read_text(errors="replace").strip().splitlines()
        raise UnavailableError(f"Slurm does not start here: {said[-1] if said else seen.stderr.strip()}")

    def _daemon(self, name: str, *command: str) -> None:
        with (self.folder / "log" / f"{name}.out").open("wb") as log:
            program = str(self.root / "usr/sbin" / command[0])
            self._daemons.append(
                subprocess.Popen(
                    [program, *command[1:]],
                    env=self.environment,
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


if __name__ == "__main__":  # a Slurm to try things in: python tests/slurm_testbed.py FOLDER, until Ctrl-C
    with SlurmTestbed(Path(sys.argv[1]).resolve()) as testbed:
        for key in ("SLURM_CONF", "LD_LIBRARY_PATH", "PATH"):
            print(f"export {key}={testbed.environment[key]}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(24 * 3600)
