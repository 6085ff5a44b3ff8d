"""Parts of a batch: rows of like length together, few enough at a time to stay in fast memory, equal rows only once.

Neither changes what a row gets: a row's result does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

#: tokens read in one pass without gradients. A CPU loses half its speed where activations leave its caches;
#: an accelerator wants long batches, but logits of large vocabularies are what fills its memory
PART_TOKENS = {"cpu": 4096}
PART_TOKENS_ELSEWHERE = 32_768


def parts(lengths: Sequence[int], device: torch.device | None = None) -> list[list[int]]:
    """Row numbers in groups of similar length, each of at most so many (padded) tokens as the device likes at a time; without a
    device as many as memory should hold.
    """
    most = PART_TOKENS_ELSEWHERE if device is None else PART_TOKENS.get(device.type, PART_TOKENS_ELSEWHERE)
    found: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if found and (len(found[-1]) + 1) * lengths[row] <= most:
            found[-1].append(row)
        else:
            found.append([row])
    return found


#: a group of rows alike in length: at least so many rows, and where there are more, none below this share of the longest
ALIKE_ROWS, ALIKE_SHARE = 16, 0.75


def alike(lengths: Sequence[int]) -> list[list[int]]:
    """Row numbers in groups of similar length, the longest rows first, so that little of a group is padding.

    A group has ``ALIKE_ROWS`` rows or more (but for all rows that are left), since a pass has a price of its own.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    groups: list[list[int]] = []
    for place, row in enumerate(order):
        group = groups[-1] if groups else []
        ends = len(group) >= ALIKE_ROWS and lengths[row] < ALIKE_SHARE * lengths[group[0]] and len(order) - place >= ALIKE_ROWS
        if not groups or ends:
            groups.append([row])
        else:
            group.append(row)
    return groups


@torch.no_grad()
def first_of_equals(embeddings: Float[Tensor, "B P D"], mask: Bool[Tensor, "B P"]) -> list[int]:
    """For every row the number of the first row with exactly the same embeddings and mask (its own, if there is none)."""
    if len(mask) == 1:
        return [0]
    # sums find candidates, a comparison of all values decides
    sums = embeddings.float().sum(dim=(1, 2)).tolist()
    known: dict[float, list[int]] = {}
    first = []
    for row, total in enumerate(sums):
        candidates = known.setdefault(total, [])
        same = next((other for other in candidates if _equal(embeddings, row, other) and _equal(mask, row, other)), None)
        if same is None:
            candidates.append(row)
        first.append(row if same is None else same)
    return first


def _equal(values: Tensor, row: int, other: int) -> bool:
    return torch.equal(values[row], values[other])
