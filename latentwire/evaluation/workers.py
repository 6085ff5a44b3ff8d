"""A suite shared by several processes: each takes the next unit of work that nobody has, then one collects what they kept.

Small models leave most of a machine idle within one process; two processes with one thread each do nearly twice the work.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from latentwire.errors import LatentWireError, StoppedEarlyError
from latentwire.evaluation.results import Results
from latentwire.evaluation.suite import GOES_ON, SuiteRequest, fill, run_suite

#: fields of a request that a process cannot be given: they are made anew in it
LOCAL_FIELDS = ("advance", "say", "should_stop", "mine")


def run_suite_in(workers: int, request: SuiteRequest) -> Results:
    """``run_suite`` with the work shared by ``workers`` processes, the threads of the machine divided among them.

    Raises:
        LatentWireError: a process failed; what the others did is kept.
        StoppedEarlyError: asked to stop; what is done is kept.
    """
    if workers > 1:
        with tempfile.TemporaryDirectory(prefix="latentwire-claims-") as claims:
            _finish(_start(workers, request, Path(claims)), request)
    return run_suite(request)


def _start(workers: int, request: SuiteRequest, claims: Path) -> list[BaseProcess]:
    fields = {name: getattr(request, name) for name in request.__dataclass_fields__ if name not in LOCAL_FIELDS}
    threads = max(1, (os.cpu_count() or 1) // workers)
    context = multiprocessing.get_context("spawn")
    started: list[BaseProcess] = []
    for number in range(1, workers + 1):
        process = context.Process(target=_work, args=(fields, number, threads, claims), name=f"worker {number}")
        process.start()
        started.append(process)
    return started


def _finish(processes: Sequence[BaseProcess], request: SuiteRequest) -> None:
    """Waits for all; a failure or a wish to stop ends the others after their current step."""
    told = False
    while any(process.is_alive() for process in processes):
        if not told and (request.should_stop() or any(process.exitcode for process in processes)):
            told = True
            for process in processes:
                process.terminate()
        time.sleep(0.2)
    failed = [process for process in processes if process.exitcode not in (0, StoppedEarlyError.exit_code, -signal.SIGTERM)]
    if failed:
        raise LatentWireError(f"{failed[0].name} failed with exit code {failed[0].exitcode}, see above; {GOES_ON}")
    if told:
        raise StoppedEarlyError(f"stopped; {GOES_ON}")


def _work(fields: dict[str, Any], number: int, threads: int, claims: Path) -> None:
    import torch

    torch.set_num_threads(threads)
    stops: list[int] = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent passes the wish on
    signal.signal(signal.SIGTERM, lambda received, frame: stops.append(received))

    def say(line: str) -> None:
        print(f"[{number}] {line}", file=sys.stderr, flush=True)

    def mine(unit: str) -> bool:
        try:
            (claims / unit.replace("/", "_")).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    request = replace(SuiteRequest(**fields), say=say, should_stop=lambda: bool(stops), mine=mine)
    try:
        fill(request)
    except LatentWireError as error:
        say(f"{'' if isinstance(error, StoppedEarlyError) else 'error: '}{error}")
        sys.exit(error.exit_code)
