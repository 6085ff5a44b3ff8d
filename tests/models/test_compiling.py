from __future__ import annotations

import shutil

import pytest
import torch

from latentwire.errors import UsageError
from latentwire.models.compiling import compiled_forward, passing_through


def test_a_forward_pass_is_exchanged_for_a_block_only() -> None:
    model = torch.nn.Linear(2, 2)
    before = model(torch.ones(1, 2))
    with passing_through(model, lambda values: values + 1):
        assert model(torch.ones(1, 2)).tolist() == [[2, 2]]
    assert torch.equal(model(torch.ones(1, 2)), before)
    with pytest.raises(ValueError, match="inside"), passing_through(model, lambda values: values):
        raise ValueError("inside")
    assert torch.equal(model(torch.ones(1, 2)), before)
    with passing_through(model, None):
        assert torch.equal(model(torch.ones(1, 2)), before)


def test_a_cpu_without_a_compiler_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UsageError, match="needs a C\\+\\+ compiler"):
        compiled_forward(torch.nn.Linear(2, 2), torch.device("cpu"))
