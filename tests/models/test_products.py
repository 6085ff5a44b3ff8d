"""Products by oneDNN: the same numbers, gradients and counts as torch's own, wherever they stand in."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from latentwire.benchmarks.timing import count_flops
from latentwire.bridges import bridge_config
from latentwire.bridges.base import Bridge, BridgeEnds
from latentwire.models import products
from latentwire.models.products import FastLinear, plain_products, with_fast_products
from latentwire.models.receiver import load_receiver
from latentwire.models.sender import load_sender

pytestmark = pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")),
    reason="this torch comes without oneDNN",
)
WIDTH, OUT = 160, 432


@pytest.fixture(autouse=True)
def _pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor on which it pays."""
    monkeypatch.setattr(products, "pays", lambda: True)


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of every product that oneDNN made."""
    found: list[int] = []
    product = products._product

    def counted(input: torch.Tensor, *others: torch.Tensor | None) -> torch.Tensor:
        found.append(input.numel() // input.shape[-1])
        return product(input, *others)

    monkeypatch.setattr(products, "_product", counted)
    return found


def _layers(*, bias: bool = True, frozen: bool = True) -> tuple[nn.Sequential, nn.Sequential]:
    """The same layers twice, plain and fast."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(WIDTH, OUT, bias=bias), nn.GELU(), nn.Linear(OUT, WIDTH, bias=bias)).requires_grad_(not frozen)
    return plain, with_fast_products(copy.deepcopy(plain))


@pytest.mark.parametrize("shape", [(97, WIDTH), (3, 50, WIDTH), (2, 7, 40, WIDTH)])
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_those_of_torch(shape: tuple[int, ...], bias: bool, used: list[int]) -> None:
    plain, fast = _layers(bias=bias)
    inputs = [torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2)]
    outputs = [layers(own) for layers, own in zip((plain, fast), inputs, strict=True)]
    assert outputs[0].shape == outputs[1].shape
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)
    for output in outputs:
        output.square().sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-4, atol=1e-4)
    assert len(used) == 4  # two forwards, two backwards


def test_inputs_that_do_not_lie_in_a_row_and_gradients_that_are_expanded(used: list[int]) -> None:
    plain, fast = _layers()
    inputs = [torch.randn(WIDTH, 128, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2)]
    for layers, own in zip((plain, fast), inputs, strict=True):
        layers(own.t()).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-4, atol=1e-4)
    assert used


def test_a_row_gets_the_same_bits_in_any_number_of_rows() -> None:
    _, fast = _layers()
    rows = torch.randn(2000, WIDTH)
    with torch.no_grad():
        whole = fast(rows)
        for count in (60, 97, 128, 333, 1500):
            assert torch.equal(fast(rows[:count]), whole[:count])


def test_few_products_weights_that_learn_and_other_formats_stay_with_torch(used: list[int]) -> None:
    plain, fast = _layers()
    few = torch.randn(4, WIDTH)
    assert torch.equal(plain(few), fast(few))
    many = torch.randn(300, WIDTH)
    with plain_products():
        assert torch.equal(plain(many), fast(many))
    assert torch.equal(plain.bfloat16()(many.bfloat16()), fast.bfloat16()(many.bfloat16()))
    learning, fast_learning = _layers(frozen=False)
    assert torch.equal(learning(many), fast_learning(many))
    only_bias = with_fast_products(nn.Linear(WIDTH, OUT))
    only_bias.weight.requires_grad_(False)
    only_bias(many).sum().backward()
    assert only_bias.bias.grad is not None
    assert not used
    with torch.no_grad():
        fast_learning(many)
    assert used


def test_numbers_of_rows_are_taken_up_to_one_of_eight_between_two_powers_of_two() -> None:
    taken = {rows: products._taken_up(rows) for rows in range(1, 5000)}
    assert all(rows <= up <= 1.125 * rows + 1 for rows, up in taken.items())
    assert len({up for rows, up in taken.items() if 1024 < rows <= 2048}) == 8
    assert all(taken[up] == up for up in set(taken.values()) if up in taken)


def test_multiplications_are_counted_as_torch_counts_them() -> None:
    plain, fast = _layers()
    rows = torch.randn(97, WIDTH)
    assert count_flops(lambda: fast(rows)) == count_flops(lambda: plain(rows)) == 2 * 2 * 97 * WIDTH * OUT


def test_only_linear_layers_change_and_their_weights_keep_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(nn.Linear):
        """A layer of a library with products of its own."""

    model = nn.ModuleDict({"plain": nn.Linear(8, 8), "other": Other(8, 8), "norm": nn.LayerNorm(8)})
    names = list(model.state_dict())
    monkeypatch.setattr(products, "pays", lambda: False)
    assert type(with_fast_products(model)["plain"]) is nn.Linear
    monkeypatch.setattr(products, "pays", lambda: True)
    assert type(with_fast_products(model)["plain"]) is FastLinear
    assert type(model["other"]) is Other
    # what is elsewhere or in another format has products of its own
    assert type(with_fast_products(nn.Linear(8, 8, device="meta"))) is nn.Linear
    assert type(with_fast_products(nn.Linear(8, 8, dtype=torch.bfloat16))) is nn.Linear
    assert list(model.state_dict()) == names


def test_what_is_loaded_multiplies_by_it(used: list[int], tmp_path: Path) -> None:
    receiver = load_receiver("nano-mistral", device="cpu")
    sender = load_sender("nano-llama", layer=1, device="cpu")
    ends = BridgeEnds(sender_width=sender.width, receiver_width=receiver.width, receiver_rms=receiver.embedding_rms)
    bridge_config({"name": "perceiver"}).build(ends).save_pretrained(tmp_path)
    bridge = Bridge.from_pretrained(tmp_path)
    for part in (receiver.model, sender.model, bridge):
        linear = [layer for layer in part.modules() if isinstance(layer, nn.Linear)]
        assert linear
        assert all(type(layer) is FastLinear for layer in linear)
    states = sender.read(["Maria left 47 apples in Lisbon. " * 20] * 2)
    assert used
    used.clear()
    with torch.no_grad():
        bridge(states)
    assert used


def test_it_pays_on_an_amd_processor_with_avx512_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # of this file's fixture
    for name, units, expected in (
        ("AMD EPYC 9654", "AVX512", True),
        ("AMD EPYC 7502", "AVX2", False),
        ("Intel(R) Xeon(R) Platinum 8480+", "AVX512", False),
        ("Apple M3", "DEFAULT", False),
    ):
        monkeypatch.setattr(products, "processor_name", lambda name=name: name)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda units=units: units)
        monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
        assert products.pays() is expected


def test_compiled_layers_take_the_compilers_products(used: list[int]) -> None:
    plain, fast = _layers()
    rows = torch.randn(300, WIDTH)
    with torch.no_grad():
        compiled = torch.compile(fast, backend="eager")(rows)
    assert not used
    torch.testing.assert_close(compiled, plain(rows), rtol=1e-5, atol=1e-5)
    assert torch.equal(compiled, F.linear(F.gelu(F.linear(rows, fast[0].weight, fast[0].bias)), fast[2].weight, fast[2].bias))
