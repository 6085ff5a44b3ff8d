from __future__ import annotations

import torch

from latentwire.models.sender import SenderStates
from latentwire.training.learners import without_some


def test_some_tokens_are_hidden_and_never_all_of_a_row() -> None:
    torch.manual_seed(0)
    lengths = torch.tensor([400, 1, 2] * 20)
    mask = torch.arange(400)[None] < lengths[:, None]
    kept = without_some(SenderStates(torch.zeros(60, 400, 2), mask), 0.5).mask
    assert (kept & ~mask).sum() == 0
    assert kept.any(dim=1).all()
    assert 0.45 < (kept.sum() / mask.sum()).item() < 0.55
    assert not torch.equal(kept[0], kept[3])
