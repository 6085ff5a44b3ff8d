"""The bridge's path cut into stages that add up, measured in the path itself: its own calls are timed, nothing is re-enacted.

``tokenise``  texts to tokens and back, option tries too
``sender``    padding and the truncated sender's pass
``bridge``    the module
``message``   packing, unpacking and weighing
``receiver``  the prompt around the message, and the first pass (over trie nodes where options are scored)
``decode``    every later pass, and what picks tokens

A call inside another is counted for the inner one only. On an accelerator each stage waits for the device, so that it pays for
its own work; the total is that of the path so measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

from latentwire.benchmarks.bench_file import Stages
from latentwire.benchmarks.pair import BenchPair
from latentwire.data.task import Example
from latentwire.messages.channel import Channel
from latentwire.methods.base import Method
from latentwire.models.device import synchronise

STAGES = ("tokenise", "sender", "bridge", "message", "receiver", "decode")


class _Watch:
    """Adds up the time of each stage, inner calls apart."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.spent = dict.fromkeys(STAGES, 0.0)
        self._open: list[float] = []
        self.passes = 0

    def timed(self, call: Callable[..., Any], stage: str | Callable[[], str]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            name = stage if isinstance(stage, str) else stage()
            synchronise(self.device)
            started = time.perf_counter()
            self._open.append(0.0)
            try:
                return call(*arguments, **named)
            finally:
                synchronise(self.device)
                whole = time.perf_counter() - started
                self.spent[name] += whole - self._open.pop()
                if self._open:
                    self._open[-1] += whole

        return run

    def receiver_pass(self) -> str:
        """The first pass of an answer reads, all others decode."""
        self.passes += 1
        return "receiver" if self.passes == 1 else "decode"


def measure_stages(
    pair: BenchPair, method: Method, batches: Callable[[int], Sequence[Example]], *, repetitions: int, warmup: int = 2
) -> Stages:
    """Median milliseconds of each stage of the bridge's path over the batches of the repetitions."""
    totals: list[float] = []
    spent: dict[str, list[float]] = {stage: [] for stage in STAGES}
    watch = _Watch(pair.device)
    with _watched(pair, watch):
        for turn in range(warmup + repetitions):
            watch.spent, watch.passes = dict.fromkeys(STAGES, 0.0), 0
            rows = batches(turn)
            synchronise(pair.device)
            started = time.perf_counter()
            pair.predict(method, rows)
            synchronise(pair.device)
            if turn >= warmup:
                totals.append(1000 * (time.perf_counter() - started))
                for stage, seconds in watch.spent.items():
                    spent[stage].append(1000 * seconds)
    covered = np.sum([spent[stage] for stage in STAGES], axis=0) / np.asarray(totals)
    return Stages(
        n=repetitions,
        total_ms=round(float(np.median(totals)), 4),
        stages_ms={stage: round(float(np.median(values)), 4) for stage, values in spent.items()},
        covered=round(float(np.median(covered)), 4),
    )


@contextmanager
def _watched(pair: BenchPair, watch: _Watch) -> Iterator[None]:
    """The calls of the path, timed, for as long as the block lasts."""
    sender, receiver = pair.parts.sender, pair.parts.receiver
    places: list[tuple[Any, str, str | Callable[[], str]]] = [
        (sender.prompter, "context_ids", "tokenise"),
        (sender, "read_ids", "sender"),
        (pair.bridge, "forward", "bridge"),
        (Channel, "written", "message"),
        (Channel, "deliver", "message"),
        (receiver.prompter, "prefix_ids", "tokenise"),
        (receiver, "tries", "tokenise"),
        (receiver, "prefix", "receiver"),
        (receiver, "score_options", "receiver"),
        (receiver, "generate_ids", "decode"),
        (receiver, "generate", "tokenise"),
        (receiver.model, "forward", watch.receiver_pass),
    ]
    with ExitStack() as stack:
        for owner, name, stage in places:
            own = name in vars(owner)
            before = getattr(owner, name)
            setattr(owner, name, watch.timed(before, stage))
            stack.callback(_restored, owner, name, before if own else None)
        yield


def _restored(owner: Any, name: str, before: Any) -> None:
    if before is None:
        delattr(owner, name)
    else:
        setattr(owner, name, before)
