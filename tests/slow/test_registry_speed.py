"""A status over ten thousand experiments costs a small multiple of reading one JSON file of ten thousand entries."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from latentwire.experiments.registry.events import COMPLETED, FAILED, PLAN, RERUN, START, Event
from latentwire.experiments.registry.registry import Registry

pytestmark = pytest.mark.slow
MANAGER = Path(__file__).resolve().parents[2] / "scripts/experiment_manager.py"
EXPERIMENTS, REPEATS, MOST = 10_000, 9, 3.0
READ = "import json, sys; print(len(json.load(open(sys.argv[1]))['experiments']))"


def fill(registry: Registry) -> None:
    """Planned, started, ended; written plainly, for speed, as the registry would have written them."""
    started, ended = "2030-01-01T00:00:00Z", "2030-01-01T01:00:00Z"
    start = {"host": "node17", "job_id": "4711", "gpu": "0", "place": "x"}
    failed = {"error": "OSError: Disk quota exceeded", "error_class": "disk_quota", "exit_code": 1}
    for number in range(EXPERIMENTS):
        owner, folder = f"{number:032x}", f"runs/out/{number}"
        plan = {"version": 1, "config_hash": "0" * 64, "command": ["latentwire", "train"], "run_folder": folder}
        metrics = {"sst2/bridge/accuracy/seed42": 0.9}
        result = {"result_file": f"{folder}/results.json", "result_sha256": "0" * 64, "exit_code": 0, "metrics": metrics}
        ending = (FAILED, failed) if number % 50 == 0 else (COMPLETED, result)
        events = registry.layout.events(f"sst2-bridge-perceiver-seed{number:05d}")
        events.mkdir(parents=True)
        for event in (
            Event(PLAN, 0, owner[:16], "", started, plan),
            Event(START, 1, owner[:16], owner, started, start),
            Event(ending[0], 1, owner[:16], owner, ended, ending[1]),
        ):
            (events / event.file_name).write_text(event.text())


def cpu_seconds(environment: dict[str, str], *command: str) -> float:
    """Of a whole command, its start included. Time of the processor: what else the machine does must not decide."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_status_over_ten_thousand(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "runs")
    fill(registry)
    # compiled once and kept, as for a user
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path / "compiled")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    flags = ("--runs", str(registry.layout.runs), "--status", "--json")
    status = (sys.executable, "-S", str(MANAGER), *flags)
    first = subprocess.run(status, check=True, capture_output=True, text=True, env=environment).stdout
    assert '"failed": 200' in first
    time.sleep(2.5)  # folders that have just changed are read again
    assert subprocess.run(status, check=True, capture_output=True, text=True, env=environment).stdout == first
    read = (sys.executable, "-S", "-c", READ, str(registry.layout.view))
    pairs = [(cpu_seconds(environment, *status), cpu_seconds(environment, *read)) for _ in range(REPEATS)]
    # the least of each: what disturbs a measurement only ever adds to it
    ratio = min(one for one, _ in pairs) / min(other for _, other in pairs)
    assert ratio <= MOST, f"{ratio:.2f}"
    # and it is not the cache that is believed
    event = Event(RERUN, 1, "f" * 16, "", "2030-01-02T00:00:00Z", {"reason": "test"})
    (registry.layout.events("sst2-bridge-perceiver-seed00050") / event.file_name).write_text(event.text())
    assert '"failed": 199' in subprocess.run(status, check=True, capture_output=True, text=True, env=environment).stdout


def test_status_imports_nothing_heavy() -> None:
    code = (
        "import runpy, sys\nsys.argv[1:] = ['--status']\n"
        f"try: runpy.run_path({str(MANAGER)!r}, run_name='__main__')\nexcept SystemExit: pass\n"
        "print({'torch', 'transformers', 'numpy', 'pydantic', 'typer', 'rich', 'yaml'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()"
