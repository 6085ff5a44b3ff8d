"""What rows begin with alike is read once, and changes nothing in what they get."""

from __future__ import annotations

import pytest
import torch

from latentwire.models.past import SHARED_TOKENS, shared_start
from latentwire.models.receiver import Receiver, load_receiver
from latentwire.models.soft_tokens import SoftTokens
from latentwire.prompts import Prompt
from tests.conftest import FAMILIES

SOLVED = "Anna has 4 red boats. What? boats\n\n" * 3
PROMPTS = [Prompt(SOLVED + before, "\nWhat?\nAnswer:") for before in ("Tom sings", "The box is blue and far away from here", "Eve")]
OPTIONS = [("a red boat", "a red box", "blue")] * 3


def receiver_and_tokens_read(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Receiver, list[int]]:
    receiver = load_receiver(name, device="cpu")
    read: list[int] = []
    forward = receiver.model.forward

    def counted(*args: object, **settings: torch.Tensor) -> object:
        read.append(settings["position_ids"].numel())
        return forward(*args, **settings)

    monkeypatch.setattr(receiver.model, "forward", counted)
    return receiver, read


@pytest.mark.parametrize("with_soft_tokens", [False, True], ids=["text only", "soft tokens"])
@pytest.mark.parametrize("family", [*FAMILIES, "nano-mistral"])
@torch.no_grad()
def test_a_shared_start_is_read_once_and_changes_no_answer(
    family_folder: dict[str, str], family: str, with_soft_tokens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, read = receiver_and_tokens_read(family_folder.get(family, family), monkeypatch)
    soft = None
    if with_soft_tokens:
        torch.manual_seed(0)
        mask = torch.tensor([[True, True], [True, False], [True, True]])
        soft = SoftTokens(torch.randn(3, 2, receiver.width) * receiver.embedding_rms, mask)
    prefix, tries = receiver.prefix(PROMPTS, soft), receiver.tries(PROMPTS, OPTIONS)
    found, tokens = [], []
    for least in (10**9, 32):
        monkeypatch.setattr("latentwire.models.past.SHARED_TOKENS", least)
        read.clear()
        scores = receiver.score_options(prefix, tries)
        best = [row.max() for row in receiver.score_contenders(prefix, tries)]
        found.append((torch.stack(scores), torch.stack(best), receiver.generate_ids(prefix, max_new_tokens=4)))
        tokens.append(sum(read))
    for one, other in zip(found[0][:2], found[1][:2], strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert found[0][2] == found[1][2]
    # each of the three calls reads the solved rows once and not three times
    solved = len(receiver.tokenizer(SOLVED, add_special_tokens=False)["input_ids"])
    assert tokens[0] - tokens[1] > 3 * (solved - 8)


def test_where_a_gradient_is_asked_for_nothing_is_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentwire.models.past.SHARED_TOKENS", 32)
    receiver = load_receiver("nano-mistral", device="cpu")
    prefix = receiver.prefix(PROMPTS)
    assert receiver.with_shared_start_read(prefix) is prefix
    with torch.no_grad():
        assert receiver.with_shared_start_read(prefix).past is not None


def test_only_a_start_that_saves_enough_counts_and_every_row_keeps_a_position() -> None:
    length = SHARED_TOKENS
    rows = torch.ones(2, length + 1, 3)
    mask = torch.ones(2, length + 1, dtype=torch.bool)
    assert shared_start(rows, mask) == length
    assert shared_start(rows[:, 1:], mask[:, 1:]) == 0
    rows[1, length // 2] = 0
    assert shared_start(rows, mask) == 0
    assert shared_start(rows[[0, 0, 0, 1]], mask[[0, 0, 0, 1]]) == length // 2
