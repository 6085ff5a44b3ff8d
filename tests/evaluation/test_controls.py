from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentwire.data.readers import read_task
from latentwire.data.task import load_task
from latentwire.errors import UnknownNameError
from latentwire.evaluation.controls import applicable, build_control, derangement
from latentwire.models.soft_tokens import SoftTokens


@given(st.integers(2, 300), st.integers(0, 5))
def test_no_row_keeps_its_own_message(count: int, seed: int) -> None:
    partners = derangement(count, seed)
    assert sorted(partners) == list(range(count))
    assert all(partner != row for row, partner in enumerate(partners))


def soft(rows: int) -> SoftTokens:
    torch.manual_seed(0)
    return SoftTokens(torch.randn(rows, 5, 8), torch.ones(rows, 5, dtype=torch.bool))


def test_shuffled_rows_read_other_rows_whatever_the_batch() -> None:
    examples = read_task(load_task("tinyworld_record1"), "test", max_rows=20).examples
    control = build_control("shuffled", examples)
    assert control.replace_texts is not None
    whole = control.replace_texts(examples)
    assert all(text != example.sender_prompt for text, example in zip(whole, examples, strict=True))
    assert control.replace_texts(examples[7:9]) == whole[7:9]


def test_noise_keeps_the_norms_and_nothing_else() -> None:
    control = build_control("noise", ())
    assert control.replace_vectors is not None
    message = soft(3)
    noise = control.replace_vectors(message, ["a", "b", "c"])
    assert isinstance(noise, SoftTokens)
    torch.testing.assert_close(noise.vectors.norm(dim=-1), message.vectors.norm(dim=-1))
    cosines = torch.nn.functional.cosine_similarity(noise.vectors, message.vectors, dim=-1)
    assert cosines.abs().mean() < 0.6
    alone = control.replace_vectors(message[1:2], ["b"])
    assert isinstance(alone, SoftTokens)
    torch.testing.assert_close(alone.vectors[0], noise.vectors[1])


def test_noise_of_a_row_does_not_depend_on_how_long_its_neighbours_are() -> None:
    control = build_control("noise", ())
    assert control.replace_vectors is not None
    message = soft(1)
    longer = SoftTokens(torch.nn.functional.pad(message.vectors, (0, 0, 0, 4)), torch.nn.functional.pad(message.mask, (0, 4)))
    own, padded = (control.replace_vectors(tokens, ["a"]) for tokens in (message, longer))
    assert isinstance(own, SoftTokens)
    assert isinstance(padded, SoftTokens)
    assert torch.equal(padded.vectors[padded.mask], own.vectors[own.mask])
    assert not padded.vectors[~padded.mask].any()


def test_a_single_row_is_not_shuffled_with_itself() -> None:
    assert applicable(("zero", "shuffled", "noise"), 1) == ("zero", "noise")
    assert applicable(("zero", "shuffled"), 2) == ("zero", "shuffled")


def test_zero_is_zero() -> None:
    control = build_control("zero", ())
    assert control.replace_vectors is not None
    zero = control.replace_vectors(soft(2), ["a", "b"])
    assert isinstance(zero, SoftTokens)
    assert not zero.vectors.any()


def test_an_unknown_control_is_named() -> None:
    with pytest.raises(UnknownNameError, match="did you mean shuffled"):
        build_control("shufled", ())
