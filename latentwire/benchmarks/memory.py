"""Memory of answering at batch 1, measured in a process of its own, against the weights that are used and what a plan counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import latentwire
from latentwire.benchmarks.bench_file import MemoryCase, Ratio, ratio_row
from latentwire.benchmarks.pair import measured_config
from latentwire.benchmarks.timing import PairedRatio
from latentwire.errors import LatentWireError, UsageError
from latentwire.training.plan import plan_run

#: of the used weights at most, and how far the estimate may be off on either side
PEAK_MOST, ESTIMATE_OFF = 1.15, 0.10


@dataclass(frozen=True)
class MemoryRequest:
    """Which pair, on which rows."""

    folder: Path
    task: str | None = None
    data_dir: str | None = None
    device: str | None = None
    dtype: str | None = None
    threads: int = 1
    #: whether anything is asked of it: beside a pair of a few MB everything else is large
    asked: bool = True


def measure_memory(request: MemoryRequest) -> tuple[MemoryCase, list[Ratio]]:
    """Raises ``UsageError`` where the system does not say what a process holds (no ``/proc``)."""
    if not Path("/proc/self/statm").exists():
        raise UsageError("memory is read from /proc, which this system does not have; leave --benchmark memory out")
    found = _in_child(request)
    plan = plan_run(measured_config(request.folder, request.dtype), device=request.device)
    case = MemoryCase(
        used_weights_bytes=found["used_weights_bytes"],
        estimated_bytes=plan.answering_memory_bytes,
        after_imports_bytes=found["after_imports_bytes"],
        after_imports_resident_bytes=found["after_imports_resident_bytes"],
        peak_bytes=found["peak_bytes"],
        device_peak_bytes=found["device_peak_bytes"],
        resident_peak_bytes=found["resident_peak_bytes"],
    )
    most = PEAK_MOST if request.asked else None
    used, estimated = case["used_weights_bytes"], case["estimated_bytes"]
    anonymous = case["peak_bytes"] - case["after_imports_bytes"]
    # weights that stay mapped from their file are resident, not anonymous
    held = case["device_peak_bytes"] or case["resident_peak_bytes"] - case["after_imports_resident_bytes"]
    return case, [
        _plain("anonymous peak / used weights", anonymous / used, most),
        _plain("peak / used weights", held / used, most),
        _plain("peak / estimate", held / estimated, *((1 + ESTIMATE_OFF, 1 - ESTIMATE_OFF) if request.asked else (None, None))),
    ]


def _plain(name: str, value: float, most: float | None, least: float | None = None) -> Ratio:
    return ratio_row("memory", name, "batch 1", PairedRatio(value, value, value), 1, most=most, least=least)


def _in_child(request: MemoryRequest) -> dict[str, int]:
    """What the child printed."""
    asked = {
        "folder": str(request.folder.resolve()),
        "task": request.task,
        "data_dir": None if request.data_dir is None else str(Path(request.data_dir).resolve()),
        "device": request.device,
        "dtype": request.dtype,
        "threads": request.threads,
    }
    # the code that is running, wherever the environment's own is
    paths = [str(Path(latentwire.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", "latentwire.benchmarks.memory_child", json.dumps(asked)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise LatentWireError(f"the process whose memory was to be measured ended with {done.returncode}: {last}")
    found: dict[str, int] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
