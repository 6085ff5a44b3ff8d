from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from latentwire.errors import ArtefactError, ModelError
from latentwire.messages.precision import WireFormat, bytes_per_token, pack, quantised, straight_through, unpack, wire_format
from latentwire.models.soft_tokens import SoftTokens

FORMS: tuple[WireFormat, ...] = ("float32", "bf16", "float16", "int8", "int4")
#: half a step of the largest absolute value of a token, or half a unit in the last place of the value
STEP = {"int8": 1 / 254, "int4": 1 / 14}
PLACE = {"float32": 0.0, "bf16": 2.0**-8, "float16": 2.0**-11}


def batch(values: object, mask: object) -> SoftTokens:
    return SoftTokens(torch.as_tensor(values, dtype=torch.float32), torch.as_tensor(mask, dtype=torch.bool))


def random_batch(width: int = 5) -> SoftTokens:
    generator = torch.Generator().manual_seed(3)
    mask = torch.tensor([[True, True, True, True], [True, False, False, False], [True, True, False, False]])
    return SoftTokens(torch.randn(3, 4, width, generator=generator) * mask[..., None], mask)


#: of the sizes that embeddings have and far beyond, with zeros; float16 holds nothing larger
NUMBERS = st.floats(-60_000, 60_000, width=32) | st.floats(-1.0, 1.0, width=32) | st.just(0.0)


@st.composite
def soft_tokens(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Values and mask of a batch."""
    rows, tokens, width = draw(st.integers(1, 3)), draw(st.integers(0, 4)), draw(st.integers(1, 7))
    values = draw(arrays.arrays(np.float32, (rows, tokens, width), elements=NUMBERS))
    return values, draw(arrays.arrays(np.bool_, (rows, tokens)))


@pytest.mark.parametrize("form", FORMS)
@given(drawn=soft_tokens())
@settings(max_examples=60, deadline=None)
def test_what_arrives_is_what_was_sent_up_to_half_a_step(form: WireFormat, drawn: tuple[np.ndarray, np.ndarray]) -> None:
    soft = batch(*drawn)
    packed = pack(soft, form)
    width = soft.vectors.shape[-1]
    assert [len(part) for part in packed] == [count * bytes_per_token(form, width) for count in soft.tokens_per_row.tolist()]
    arrived = unpack(packed, form, width)
    assert torch.equal(arrived.tokens_per_row, soft.tokens_per_row)
    sent, got = soft.vectors[soft.mask], arrived.vectors[arrived.mask]
    if form in STEP:
        bound = sent.abs().amax(dim=-1, keepdim=True) * STEP[form] * (1 + 1e-5) + 2e-38
    else:
        bound = sent.abs() * PLACE[form] + (1e-7 if form == "float16" else 1e-38)
    assert ((sent - got).abs() <= bound).all()
    assert arrived.vectors[~arrived.mask].abs().sum() == 0


@pytest.mark.parametrize("form", FORMS)
@given(drawn=soft_tokens())
@settings(max_examples=60, deadline=None)
def test_rounding_in_place_gives_what_the_bytes_give_and_rounding_again_changes_nothing(
    form: WireFormat, drawn: tuple[np.ndarray, np.ndarray]
) -> None:
    soft = batch(*drawn)
    once = quantised(soft, form)
    arrived = unpack(pack(soft, form), form, soft.vectors.shape[-1])
    assert torch.equal(once.vectors[once.mask], arrived.vectors[arrived.mask])
    assert torch.equal(once.mask, soft.mask)
    assert torch.equal(quantised(once, form).vectors, once.vectors)
    assert pack(once, form) == pack(soft, form)


@pytest.mark.parametrize(
    ("form", "width", "expected"),
    [("float32", 160, 640), ("bf16", 160, 320), ("float16", 160, 320), ("int8", 160, 164), ("int4", 160, 84), ("int4", 7, 8)],
)
def test_a_soft_token_weighs(form: WireFormat, width: int, expected: int) -> None:
    packed = pack(batch(torch.ones(1, 3, width), [[True, False, True]]), form)
    assert len(packed[0]) == 2 * expected


def test_the_bytes_are_little_endian_as_documented() -> None:
    soft = batch([[[1.0, -0.5, 0.25]]], [[True]])
    one = b"\x00\x00\x80\x3f"
    assert pack(soft, "float32") == [one + b"\x00\x00\x00\xbf" + b"\x00\x00\x80\x3e"]
    assert pack(soft, "bf16") == [b"\x80\x3f" + b"\x00\xbf" + b"\x80\x3e"]
    assert pack(soft, "int8") == [one + bytes([127, 256 - 64, 32])]  # halves go to the even number
    assert pack(soft, "int4") == [one + bytes([15 | (8 - 4) << 4, 8 + 2])]


def test_every_int4_value_survives_two_to_a_byte() -> None:
    values = torch.arange(-7, 8).float() / 7
    soft = batch(values[None, None], [[True]])
    torch.testing.assert_close(unpack(pack(soft, "int4"), "int4", 15).vectors[0, 0], values, atol=0, rtol=0)


def test_zeros_and_empty_messages_cross() -> None:
    soft = batch(torch.zeros(2, 2, 3), [[True, True], [False, False]])
    for form in FORMS:
        packed = pack(soft, form)
        assert packed[1] == b""
        arrived = unpack(packed, form, 3)
        assert arrived.mask.tolist() == [[True, True], [False, False]]
        assert not arrived.vectors.any()


def test_a_message_does_not_depend_on_its_batch() -> None:
    soft = random_batch()
    for form in FORMS:
        assert pack(soft, form)[2] == pack(soft[2:3], form)[0]


@pytest.mark.parametrize("form", ["int8", "int4"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_integers_refuse_what_is_no_number_and_name_its_row(form: WireFormat, value: float) -> None:
    soft = random_batch()
    soft.vectors[2, 1, 3] = value
    with pytest.raises(ModelError, match=rf"message 2 holds a value that is no finite number and cannot be packed as {form}"):
        pack(soft, form)
    soft.mask[2, 1] = False  # under the padding nobody looks
    assert len(pack(soft, form)) == 3


@pytest.mark.parametrize("form", ["float32", "bf16", "float16"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_floats_carry_what_is_no_number_to_whoever_asks_for_it(form: WireFormat, value: float) -> None:
    soft = random_batch()
    soft.vectors[2, 1, 3] = value
    packed = pack(soft, form)
    with pytest.raises(ArtefactError, match="message 2 holds a value that is no finite number"):
        unpack(packed, form, 5)
    torch.testing.assert_close(unpack(packed, form, 5, finite=False).vectors[2, 1, 3], torch.tensor(value), equal_nan=True)


def test_a_value_too_large_for_the_format_is_refused_with_the_way_out() -> None:
    soft = batch([[[1e5, 0.0]]], [[True]])
    with pytest.raises(ModelError, match=r"beyond 65504, the largest float16 number; send it as float32 or int8"):
        pack(soft, "float16")
    assert unpack(pack(soft, "int8"), "int8", 2).vectors[0, 0].tolist() == [1e5, 0.0]


def test_a_cut_message_is_named() -> None:
    packed = pack(random_batch(), "int8")
    with pytest.raises(ArtefactError, match=r"message 1 has 8 bytes.*int8, width 5.*cut"):
        unpack([packed[0], packed[1][:-1], packed[2]], "int8", 5)
    with pytest.raises(ArtefactError, match=r"message 0 holds a value that is no finite number"):
        unpack([b"\xff" * 9], "int8", 5)


def test_auto_is_the_receivers_own_format() -> None:
    assert [wire_format("auto", dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)] == [
        "float32",
        "bf16",
        "float16",
    ]
    assert wire_format("int4", torch.bfloat16) == "int4"


@pytest.mark.parametrize("form", FORMS)
def test_training_sees_rounded_values_and_gradients_pass(form: WireFormat) -> None:
    soft = random_batch()
    vectors = soft.vectors.clone().requires_grad_(True)
    rounded = straight_through(SoftTokens(vectors, soft.mask), form)
    torch.testing.assert_close(rounded.vectors, quantised(soft, form).vectors)
    weights = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(1))
    (rounded.vectors * weights).sum().backward()
    assert vectors.grad is not None
    assert torch.equal(vectors.grad, weights)
