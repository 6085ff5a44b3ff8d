from __future__ import annotations

import pytest

from latentwire.bridges import BRIDGES, bridge_config
from latentwire.bridges.base import BridgeEnds
from latentwire.bridges.costs import bridge_costs

ENDS = BridgeEnds(sender_width=24, sender_layers=3, receiver_width=40, receiver_rms=0.4)


def test_a_linear_bridge_costs_its_matrix_for_every_token() -> None:
    costs = bridge_costs(bridge_config({"name": "linear"}), ENDS, context_tokens=10)
    # weights and bias, the norm's two vectors, the gain
    assert costs.params == 24 * 40 + 40 + 2 * 24 + 1
    assert costs.soft_tokens == 10
    assert costs.flops == 2 * 10 * 24 * 40


@pytest.mark.parametrize("name", BRIDGES)
def test_costs_are_those_of_the_bridge_that_would_be_built(name: str) -> None:
    config = bridge_config({"name": name})
    short, long = (bridge_costs(config, ENDS, context_tokens=tokens) for tokens in (16, 32))
    assert short.params == long.params == config.num_params(ENDS)
    assert 0 < short.flops < long.flops
    rate = config.sender_tokens_per_soft_token
    assert long.soft_tokens == (32 // rate if rate else config.fixed_soft_tokens)
