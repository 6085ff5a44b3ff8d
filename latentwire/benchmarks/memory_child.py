"""A process of its own that loads a pair, answers at batch 1 and prints what memory that took, as JSON on stdout.

    python -m latentwire.benchmarks.memory_child '{"folder": …, "task": …, "data_dir": …, "device": …, "threads": …}'

Anonymous memory is what the process holds and no file backs: resident minus shared pages of ``/proc/self/statm``, sampled by a
thread every half millisecond. Weights that are mapped from their file are not in it until something copies them.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

_PAGE = os.sysconf("SC_PAGE_SIZE")
_INTERVAL_S = 0.0005


def memory_bytes() -> tuple[int, int]:
    """(anonymous, resident) bytes of this process now."""
    resident, shared = (int(part) for part in Path("/proc/self/statm").read_text().split()[1:3])
    return (resident - shared) * _PAGE, resident * _PAGE


class Peak:
    """The most anonymous and resident memory seen since ``start``."""

    def __init__(self) -> None:
        self.anonymous, self.resident = 0, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    def _look(self) -> None:
        anonymous, resident = memory_bytes()
        self.anonymous, self.resident = max(self.anonymous, anonymous), max(self.resident, resident)

    def _watch(self) -> None:
        while not self._stop.wait(_INTERVAL_S):
            self._look()


def measured(request: dict[str, Any]) -> dict[str, Any]:
    """Loads the pair as an evaluation of the bridge does and answers a few rows one by one."""
    import torch
    import transformers

    from latentwire.benchmarks.pair import measured_config
    from latentwire.bridges.base import Bridge
    from latentwire.config import ARTEFACT_FOLDER
    from latentwire.data.budget import fit_rows
    from latentwire.data.readers import read_task
    from latentwire.data.task import load_task
    from latentwire.evaluation.run import load_parts
    from latentwire.methods import build_method
    from latentwire.models.source import resolve
    from latentwire.training.run import load_prompters

    torch.set_num_threads(request["threads"])
    folder = Path(request["folder"])
    config = measured_config(folder, request["dtype"])
    for end in (config.sender, config.receiver):
        for architecture in resolve(end.model, end.revision).config.architectures or ():
            getattr(transformers, architecture)  # the family's module, which is imported on first use
    sender_end, receiver_end = load_prompters(config)
    task = load_task(request["task"] or config.task[0], config.variant)
    read = read_task(task, "test", data_dir=request["data_dir"] or config.data.data_dir, max_rows=8)
    rows = fit_rows(task, read, sender=sender_end, receiver=receiver_end).examples
    before, before_resident = memory_bytes()
    peak = Peak()
    peak.start()
    bridge = Bridge.from_pretrained(folder / ARTEFACT_FOLDER)
    parts = load_parts(config, bridge, device=request["device"], writer=False)
    method = build_method("bridge", parts)
    for row in rows:
        method.predict([row], max_new_tokens=task.config.max_new_tokens)
    peak.stop()
    device = parts.receiver.device
    modules = (parts.sender.model, parts.receiver.model, bridge)
    return {
        "used_weights_bytes": sum(item.numel() * item.element_size() for module in modules for item in module.parameters()),
        "after_imports_bytes": before,
        "after_imports_resident_bytes": before_resident,
        "peak_bytes": peak.anonymous,
        "resident_peak_bytes": peak.resident,
        "device_peak_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    }


if __name__ == "__main__":
    print(json.dumps(measured(json.loads(sys.argv[1]))))
