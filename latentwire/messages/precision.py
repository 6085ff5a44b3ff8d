"""Soft tokens as bytes and back: float32, bf16, float16, int8 and int4.

A message is its real soft tokens end to end, without a header: the two ends of a channel agree on format and width. All numbers
are little-endian. A token of width D is

    float32, bf16, float16   D values
    int8                     the largest absolute value (float32), then D values in -127…127
    int4                     the same, then D values in -7…7 plus 8, two to a byte, the first in the low half; of an odd width
                             the last high half is 0

An integer q stands for q / 127 (or 7) of the largest absolute value: symmetric quantisation with one scale per token (as for
activations in Dettmers et al. 2022, LLM.int8()). The error of a value is at most half a step, and packing again changes nothing.

Shapes: B rows, K soft tokens, N real soft tokens of all rows, D receiver width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from latentwire.errors import ArtefactError, ModelError
from latentwire.messages.settings import Precision
from latentwire.models.soft_tokens import SoftTokens

#: what is on the wire: ``auto`` is one of the three floats
WireFormat = Literal["float32", "bf16", "float16", "int8", "int4"]
_FLOATS: dict[str, torch.dtype] = {"float32": torch.float32, "bf16": torch.bfloat16, "float16": torch.float16}
#: the largest integer of a format, which stands for the largest absolute value of a token
_LEVELS = {"int8": 127, "int4": 7}
_SCALE_BYTES = 4
#: a token all of whose values are smaller is sent as zeros: quotients of denormal numbers are not exact
_SMALLEST_SCALE = torch.finfo(torch.float32).tiny


def wire_format(precision: Precision, dtype: torch.dtype) -> WireFormat:
    """The format on the wire for a receiver that computes in ``dtype``."""
    if precision != "auto":
        return precision
    if dtype == torch.bfloat16:
        return "bf16"
    return "float16" if dtype == torch.float16 else "float32"


def bytes_per_token(form: WireFormat, width: int) -> int:
    """Bytes of one packed soft token."""
    if form in _FLOATS:
        return width * _FLOATS[form].itemsize
    return _SCALE_BYTES + (width if form == "int8" else (width + 1) // 2)


def pack(soft: SoftTokens, form: WireFormat) -> list[bytes]:
    """The soft part of each message as bytes, one soft token behind the other, padding left out.

    A float format keeps what is no number: a damaged bridge is for the check of the predictions to report.

    Raises:
        ModelError: a value is too large for a float format, or no finite number in an integer one; the message names the row.
    """
    mask = soft.mask.cpu()
    whole = bool(mask.all())
    values = (soft.vectors.flatten(0, 1) if whole else soft.vectors[soft.mask]).detach().float().cpu()
    counts = [mask.shape[1]] * len(mask) if whole else mask.sum(dim=1).tolist()
    wire = values.to(_FLOATS[form]) if form in _FLOATS else values
    _check_fits(wire, values, counts, form)
    content = _as_bytes(wire, form)
    if len(counts) == 1:
        return [content.tobytes()]
    ends = np.cumsum(counts)
    return [content[end - count : end].tobytes() for end, count in zip(ends, counts, strict=True)]


def unpack(
    packed: Sequence[bytes], form: WireFormat, width: int, *, device: torch.device | str = "cpu", finite: bool = True
) -> SoftTokens:
    """The soft tokens [B, K, D] of packed messages, in float32, padded at the end.

    Args:
        finite: refuse what is no finite number, as whoever gets a message from elsewhere must.

    Raises:
        ArtefactError: a message is cut or corrupt, or was packed in another format or for another width.
    """
    size = bytes_per_token(form, width)
    for row, content in enumerate(packed):
        if len(content) % size:
            raise ArtefactError(
                f"message {row} has {len(content)} bytes, which are no whole soft tokens of {size} ({form}, width {width}); "
                "it is cut, or was packed with another precision or for another receiver"
            )
    sizes = [len(content) // size for content in packed]
    raw = torch.from_numpy(np.frombuffer(b"".join(packed), dtype=np.uint8).reshape(-1, size).copy())
    values = _from_bytes(raw, form, width)
    if finite and not values.isfinite().all():
        row = _row_of(~values.isfinite().all(dim=1), sizes)
        raise ArtefactError(f"message {row} holds a value that is no finite number; it is corrupt, or was packed as something else")
    most = max(sizes, default=0)
    if most and len(values) == most * len(packed):  # nothing to pad
        mask, vectors = torch.ones(len(packed), most, dtype=torch.bool), values.view(len(packed), most, width)
    else:
        mask = torch.arange(most)[None, :] < torch.tensor(sizes, dtype=torch.long)[:, None]
        vectors = torch.zeros(*mask.shape, width)
        vectors[mask] = values
    return SoftTokens(vectors.to(device), mask.to(device))


def quantised(soft: SoftTokens, form: WireFormat) -> SoftTokens:
    """What the receiver gets of these soft tokens: the values of ``unpack(pack(…))``, in the same places, on the same device."""
    values = soft.vectors.float()
    if form in _FLOATS:
        found = values.to(_FLOATS[form]).float()
    else:
        integers, scales = _quantise(values, _LEVELS[form])
        found = _dequantise(integers, scales, _LEVELS[form])
    return replace(soft, vectors=found * soft.mask[..., None])


def straight_through(soft: SoftTokens, form: WireFormat) -> SoftTokens:
    """``quantised`` for training: its values, and the gradient as if nothing had been rounded (Bengio et al. 2013)."""
    if form == "float32":
        return soft
    found = quantised(soft, form).vectors
    return replace(soft, vectors=soft.vectors + (found - soft.vectors).detach())


# ---------------------------------------------------------------------------------------------------------------- numbers


def _quantise(values: Float[Tensor, "*N D"], most: int) -> tuple[Float[Tensor, "*N D"], Float[Tensor, "*N 1"]]:
    """Integers in -most…most (still as floats), and the largest absolute value of each token."""
    scales = values.abs().amax(dim=-1, keepdim=True)
    scales = torch.where(scales < _SMALLEST_SCALE, torch.zeros_like(scales), scales)
    shares = values / torch.where(scales > 0, scales, torch.ones_like(scales))
    return (shares * most).round() * (scales > 0), scales


def _dequantise(integers: Float[Tensor, "*N D"], scales: Float[Tensor, "*N 1"], most: int) -> Float[Tensor, "*N D"]:
    # the share first: the largest value comes back as it was, so that packing again finds the same scale
    return (integers / most) * scales


def _as_bytes(values: Tensor, form: WireFormat) -> np.ndarray:
    """Packed tokens [N, bytes per token]."""
    if form in _FLOATS:
        return _raw(values)
    integers, scales = _quantise(values, _LEVELS[form])
    if form == "int8":
        return np.concatenate([_raw(scales), _raw(integers.to(torch.int8))], axis=1)
    halves = torch.nn.functional.pad((integers + 8).to(torch.uint8), (0, values.shape[1] % 2))
    return np.concatenate([_raw(scales), _raw(halves[:, ::2] | (halves[:, 1::2] << 4))], axis=1)


def _from_bytes(raw: UInt8[Tensor, "N size"], form: WireFormat, width: int) -> Float[Tensor, "N D"]:
    if form in _FLOATS:
        return _numbers(raw, _FLOATS[form]).float()
    scales, content = _numbers(raw[:, :_SCALE_BYTES], torch.float32), raw[:, _SCALE_BYTES:]
    if form == "int8":
        integers = _numbers(content, torch.int8).float()
    else:
        integers = torch.stack([content & 15, content >> 4], dim=-1).flatten(1)[:, :width].float() - 8
    return _dequantise(integers, scales, _LEVELS[form])


def _raw(values: Tensor) -> np.ndarray:
    """The bytes of each row of ``values``, little-endian."""
    values = values.contiguous()
    size = values.dtype.itemsize
    whole = values.view({1: torch.uint8, 2: torch.int16, 4: torch.int32}[size]).numpy()
    return whole.astype(whole.dtype.newbyteorder("<"), copy=False).view(np.uint8).reshape(len(values), values.shape[1] * size)


def _numbers(raw: UInt8[Tensor, "N size"], dtype: torch.dtype) -> Tensor:
    """The inverse of ``_raw``."""
    size = dtype.itemsize
    if size == 1:
        return raw.contiguous().view(dtype)
    order, kind = {2: ("<i2", np.int16), 4: ("<i4", np.int32)}[size]
    whole = np.ascontiguousarray(raw.numpy()).view(order).astype(kind)
    return torch.from_numpy(whole.reshape(len(raw), raw.shape[1] // size)).view(dtype)


def _check_fits(wire: Tensor, values: Tensor, counts: Sequence[int], form: WireFormat) -> None:
    """Refuses what the format cannot say: a finite number beyond a float's range, anything not finite as an integer."""
    if form == "float32":
        return
    bad = ~wire.isfinite()
    if form in _FLOATS:
        bad &= values.isfinite()
    if not bad.any():
        return
    row = _row_of(bad.any(dim=1), counts)
    if form in _FLOATS:
        most = torch.finfo(_FLOATS[form]).max
        raise ModelError(f"message {row} holds a value beyond {most:g}, the largest {form} number; send it as float32 or int8")
    raise ModelError(
        f"message {row} holds a value that is no finite number and cannot be packed as {form}; the bridge's weights are damaged "
        "or the sender overflows in its number format: train again with sender.dtype=bfloat16 or float32"
    )


def _row_of(bad: Tensor, counts: Sequence[int]) -> int:
    """The message that the first bad token belongs to."""
    token = int(bad.int().argmax())
    return int(np.searchsorted(np.cumsum(counts), token, side="right"))
