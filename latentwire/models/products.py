"""Matrix products on processors on which torch's own leave half of the units idle.

torch multiplies float32 matrices by Intel's MKL, which on an AMD processor with AVX-512 computes as if there were AVX2 alone.
oneDNN, which comes with torch as well, takes the whole width: up to twice as fast (``docs/performance.md``). The sums are the same
in another order, so results agree to rounding. Gradients of weights stay with torch.

Shapes: N rows (all leading dimensions together), I and O widths of a layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from latentwire.provenance import processor_name

Model = TypeVar("Model", bound=nn.Module)

#: below so many multiplications, or rows, a call of oneDNN costs more than it saves
LEAST_PRODUCTS, LEAST_ROWS = 3_000_000, 8
#: oneDNN makes a kernel for every number of rows it meets, which takes as long as a product, and keeps 1,024 of them; numbers of
#: rows are therefore taken up to one of eight between two powers of two
_STEPS = 8


def pays() -> bool:
    """Whether this processor is one of those on which oneDNN multiplies float32 faster than torch's own products."""
    return (
        torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and processor_name().startswith("AMD")
    )


class FastLinear(nn.Linear):
    """A linear layer whose products are oneDNN's where its weights take no gradient and there is enough to multiply."""

    plain: ClassVar[bool] = False

    def forward(self, input: Tensor) -> Tensor:
        """[..., I] to [..., O]; compilers trace it, so shapes are not checked here."""
        # what is small pays for one comparison only; what is compiled has the compiler's products
        if torch.compiler.is_compiling() or input.numel() * self.out_features < LEAST_PRODUCTS or not self._fits(input):
            return F.linear(input, self.weight, self.bias)
        product: Tensor = _Product.apply(input, self.weight, self.bias)
        return product

    def _fits(self, input: Tensor) -> bool:
        return (
            input.device.type == "cpu"
            and input.dtype is torch.float32
            and input.numel() >= LEAST_ROWS * self.in_features
            and not self.plain
            and not (torch.is_grad_enabled() and any(own.requires_grad for own in self.parameters()))
        )


class _Product(torch.autograd.Function):
    """Input times weights that take no gradient; that of the input needs neither kept."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        return _product(input, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return _product(gradient, ctx.weight.t(), None), None, None


def _product(input: Float[Tensor, "... I"], weight: Float[Tensor, "O I"], bias: Tensor | None) -> Float[Tensor, "... O"]:
    rows = input.reshape(-1, input.shape[-1])
    count = len(rows)
    missing = _taken_up(count) - count
    rows = F.pad(rows, (0, 0, 0, missing)) if missing else rows
    found: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return found[:count].view(*input.shape[:-1], len(weight))


def _taken_up(rows: int) -> int:
    step = max(1, (1 << (rows - 1).bit_length()) // (2 * _STEPS))
    return -(-rows // step) * step


def with_fast_products(model: Model) -> Model:
    """The model, or bridge, with its linear layers' products as fast as this processor has them, in place."""
    if pays():
        for part in model.modules():
            if type(part) is nn.Linear and part.weight.device.type == "cpu" and part.weight.dtype is torch.float32:
                part.__class__ = FastLinear
    return model


@contextmanager
def plain_products() -> Iterator[None]:
    """Torch's own products while the block runs: those that its counters know."""
    before = FastLinear.plain
    FastLinear.plain = True
    try:
        yield
    finally:
        FastLinear.plain = before
