"""Attention of half-precision receivers on a CPU: widened where gradients lead through it, and nowhere else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from latentwire.models import attention
from latentwire.models.attention import WIDENED
from latentwire.models.receiver import Receiver, load_receiver
from latentwire.models.soft_tokens import SoftTokens
from latentwire.prompts import Prompt

PROMPTS = [Prompt("", " Question: how many? Answer:"), Prompt("", " Question: of which colour are they? Answer:")]
ANSWERS = ["47 .", "blue and green ."]


@pytest.fixture(scope="module")
def receiver() -> Receiver:
    return load_receiver("nano-mistral", device="cpu", dtype="bfloat16")


@pytest.fixture
def widths(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """The number format in which each call of the kernel computed."""
    import transformers.integrations.sdpa_attention as kernels

    found: list[torch.dtype] = []
    kernel = kernels.sdpa_attention_forward

    def counted(module: object, query: Tensor, *others: Tensor, **settings: object) -> object:
        found.append(query.dtype)
        return kernel(module, query, *others, **settings)

    monkeypatch.setattr(kernels, "sdpa_attention_forward", counted)
    return found


def _soft() -> SoftTokens:
    vectors = torch.randn(2, 4, 160, generator=torch.Generator().manual_seed(0)) / 10
    return SoftTokens(vectors.requires_grad_(), torch.ones(2, 4, dtype=torch.bool))


def _scores(receiver: Receiver, kind: str, soft: SoftTokens) -> Tensor:
    """Of plain answers, or over tries, whose pass has a bias."""
    prefix = receiver.prefix(PROMPTS, soft)
    if kind == "answers":
        ids = [receiver.answer_ids(prompt, answer) for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]
        return receiver.answer_log_probs(prefix, ids)[0].sum()
    return torch.cat(receiver.score_options(prefix, receiver.tries(PROMPTS, [ANSWERS, ANSWERS]))).sum()


def _gradient(receiver: Receiver, kind: str) -> Tensor:
    soft = _soft()
    (gradient,) = torch.autograd.grad(_scores(receiver, kind, soft), soft.vectors)
    return gradient.flatten()


@pytest.mark.parametrize("kind", ["answers", "tries"])
def test_gradients_go_by_float32_and_are_no_worse(receiver: Receiver, kind: str, widths: list[torch.dtype]) -> None:
    exact = _gradient(load_receiver("nano-mistral", device="cpu", dtype="float32"), kind)
    widths.clear()
    widened = _gradient(receiver, kind)
    assert set(widths) == {torch.float32}
    receiver.model.set_attn_implementation("sdpa")
    try:
        plain = _gradient(receiver, kind)
    finally:
        receiver.model.set_attn_implementation(WIDENED)
    assert not torch.equal(widened, plain)
    off = [float((gradient - exact).norm() / exact.norm()) for gradient in (widened, plain)]
    assert off[0] < max(0.1, 1.5 * off[1])


@pytest.mark.parametrize("kind", ["answers", "tries"])
def test_without_gradients_nothing_changes(receiver: Receiver, kind: str, widths: list[torch.dtype]) -> None:
    with torch.no_grad():
        widened = _scores(receiver, kind, _soft())
        assert set(widths) == {torch.bfloat16}
        receiver.model.set_attn_implementation("sdpa")
        try:
            assert torch.equal(widened, _scores(receiver, kind, _soft()))
        finally:
            receiver.model.set_attn_implementation(WIDENED)


def test_other_models_keep_their_attention() -> None:
    whole = load_receiver("nano-mistral", device="cpu", dtype="float32").model
    assert whole.config._attn_implementation == "sdpa"
    half = load_receiver("nano-mistral", device="cpu", dtype="bfloat16").model
    half.set_attn_implementation("eager")
    assert attention.with_widened_attention(half).config._attn_implementation == "eager"
