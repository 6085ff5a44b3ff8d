"""One training over several processes, as ``torchrun`` or ``accelerate launch`` start them: a batch is shared, gradients are added.

Every process holds the same bridge and computes the gradient of its rows of the one global batch; the sum over the
processes is the gradient that one process would have computed, so the size of the team changes speed and nothing else
(apart from the order of float additions; where a task has more options than are scored, other ones may be drawn).
The same sharing inside one process (``LATENTWIRE_BATCH_PARTS``) trades time for memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import count
from typing import TypeVar

import torch
from torch import distributed, nn

from latentwire.errors import UsageError
from latentwire.processes import die_with_parent

Row = TypeVar("Row")
PARTS_VARIABLE = "LATENTWIRE_BATCH_PARTS"
#: the first process may read all texts through the sender while the others wait
TIMEOUT = timedelta(hours=4)
#: numbers the groups of this process
_TEAMS = count()


class Team:
    """The processes of a training and this one's place among them. Without arguments: one process, the batch in one part."""

    def __init__(self, rank: int = 0, size: int = 1, parts: int | None = None) -> None:
        self.rank, self.size = rank, size
        self.parts = _parts() if parts is None else parts

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    @property
    def shares(self) -> int:
        """In how many parts a batch is cut."""
        return self.size * self.parts

    def share(self, rows: Sequence[Row]) -> list[tuple[int, Sequence[Row]]]:
        """This process's parts of a global batch with their numbers; those without a row are left out."""
        numbers = range(self.rank, self.shares, self.size)
        return [(number, part) for number in numbers if (part := rows[number :: self.shares])]

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replaces every gradient by the sum over all processes, in one message."""
        if self.size == 1:
            return
        gradients = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        distributed.all_reduce(flat)
        for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def add(self, values: Sequence[float], device: torch.device) -> list[float]:
        """Sums over all processes, number by number."""
        if self.size == 1:
            return list(values)
        # Metal has no float64, but Metal has no team either
        total = torch.tensor(values, dtype=torch.float64, device=device)
        distributed.all_reduce(total)
        return [float(value) for value in total.tolist()]

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether any process says yes: all must stop at the same step."""
        return self.add([float(flag)], device)[0] > 0

    def agree(self, module: nn.Module) -> None:
        """Gives every process the first one's weights."""
        if self.size > 1:
            for tensor in module.state_dict().values():
                distributed.broadcast(tensor, src=0)

    def wait(self) -> None:
        """Returns when all processes are here."""
        if self.size > 1:
            distributed.barrier()


def join_team(device: str | None) -> tuple[Team, str | None]:
    """This process's team, and the device it works on: with CUDA every process of a node takes its own GPU."""
    size = processes()
    if size == 1:
        return Team(), device
    # torchrun gives each process a session of its own, which no signal to torchrun's group reaches
    die_with_parent()
    wanted = device or os.environ.get("LATENTWIRE_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    if wanted == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        torch.cuda.set_device(local)
        wanted = f"cuda:{local}"
    if not distributed.is_initialized():
        # each training of a command makes a group; what an earlier one left in torchrun's store must not meet this one
        store, rank, size = next(distributed.rendezvous("env://"))
        backend, own = "nccl" if wanted.startswith("cuda") else "gloo", distributed.PrefixStore(f"team{next(_TEAMS)}", store)
        distributed.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=TIMEOUT)
    return Team(distributed.get_rank(), distributed.get_world_size()), wanted


def leave_team() -> None:
    """Ends the group where there is one; without it torch complains at exit."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def processes() -> int:
    """How many were started together (torchrun)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this process prints and evaluates, known before any group exists."""
    return os.environ.get("RANK", "0") == "0"


def _parts() -> int:
    text = os.environ.get(PARTS_VARIABLE, "1")
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"{PARTS_VARIABLE}={text!r} does not fit; give 1 (the batch at once), 2, 4 … parts")
    return int(text)
