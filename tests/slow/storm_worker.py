"""One worker of the registry storm. Runs on the standard library alone, so that it starts quickly after every kill.

storm_worker.py RUNS WITNESS SEED: claims what can be claimed and works on it until nothing is left and WITNESS/stop exists. Every
answer of the registry goes to WITNESS/acknowledged.<pid>, and the work itself is done under a lock of the kernel's, which ends with
the process: two that work on one experiment at once are seen without the registry's help.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from latentwire.experiments.registry.model import ErrorClass
from latentwire.experiments.registry.registry import Claim, Registry, StaleClaimError

LEASE_S = 8.0


def main(runs: Path, witness: Path, seed: int) -> None:
    rng = random.Random(seed)
    registry = Registry(runs)
    with (witness / f"acknowledged.{os.getpid()}").open("a", buffering=1) as acknowledged:
        while not (witness / "stop").exists():
            names = [entry.name for entry in registry.overview() if entry.state != "completed"]
            rng.shuffle(names)
            if not any(work_on(registry, name, witness, rng, acknowledged) for name in names[:20]):
                registry.reap()
                time.sleep(0.3)


def work_on(registry: Registry, name: str, witness: Path, rng: random.Random, acknowledged) -> bool:  # type: ignore[no-untyped-def]
    claim = registry.claim(name, lease_s=LEASE_S)
    if claim is None:
        return False
    print(json.dumps([name, claim.generation, claim.owner, "running"]), file=acknowledged)
    ended = threading.Event()
    threading.Thread(target=beat, args=(registry, claim, ended), daemon=True).start()
    with (witness / f"{name}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            (witness / f"twice.{name}.{claim.generation}").touch()
        result = registry.layout.runs / f"out/{name}/results.json"
        result.parent.mkdir(parents=True, exist_ok=True)
        time.sleep(rng.uniform(0.3, 1.2))
        part = result.with_name(claim.owner)
        part.write_text(json.dumps({"accuracy": rng.random()}))
        os.replace(part, result)
    try:
        state = end(registry, claim, rng, f"runs/out/{name}/results.json")
        print(json.dumps([name, claim.generation, claim.owner, state]), file=acknowledged)
    except StaleClaimError:
        print(json.dumps([name, claim.generation, claim.owner, "stale"]), file=acknowledged)
    finally:
        ended.set()
    return True


def beat(registry: Registry, claim: Claim, ended: threading.Event) -> None:
    while not ended.wait(LEASE_S / 8):
        try:
            registry.heartbeat(claim)
        except StaleClaimError:
            return


def end(registry: Registry, claim: Claim, rng: random.Random, result: str) -> str:
    draw = rng.random()
    if draw < 0.2:
        registry.preempt(claim)
        return "preempted"
    if draw < 0.25:
        registry.fail(claim, error="connection reset", error_class=ErrorClass.NETWORK, exit_code=1)
        return "failed"
    return registry.complete(claim, result_file=result).value


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
