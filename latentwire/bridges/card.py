"""The card that travels with a bridge: what it connects, how it was trained, what it cannot be used for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latentwire.bridges.base import Bridge


def bridge_card(bridge: Bridge, config: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """Markdown with Hub front matter. Everything in it is read from the run, nothing is typed by hand."""
    pair = bridge.pair
    assert pair is not None, "only a trained bridge has a card"
    training = config["training"]
    sender, receiver = (f"weights `{end.fingerprint}`, tokenizer `{end.tokenizer_hash}`" for end in (pair.sender, pair.receiver))
    data = "; ".join(f"{task}: {revision}" for task, revision in summary["data_revisions"].items())
    optimizer = f"{training['optimizer']} {training['lr']}"
    return f"""---
library_name: latentwire
license: mit
base_model: [{pair.sender.name}, {pair.receiver.name}]
tags: [latentwire, soft-tokens]
---

# LatentWire bridge: {pair.sender.name} → {pair.receiver.name}

| | |
| --- | --- |
| bridge | {bridge.config.name}, {bridge.config.describe_rate()}, {bridge.num_params:,} parameters, float32 |
| sender | {pair.sender.name}, layer {pair.sender_layer}, {sender} |
| receiver | {pair.receiver.name}, {receiver} |
| message | {bridge.message.describe()} |
| tasks | {", ".join(config["task"])} |
| data | {data} |
| rows | {summary["train_rows"]:,} to train, {summary["validation_rows"]:,} to validate |
| training | {training["steps"]} steps of {training["batch_size"]} rows, {optimizer}, seed {config["seed"]} |
| validation | {summary["validation"]:.4f} at step {summary["best_step"]} (the checkpoint was chosen on it) |

Test scores with intervals and controls: run `latentwire eval` on the run folder; they are in its `results.json`.

It works with exactly the two models above; LatentWire refuses others. Outside the tasks above nothing is promised.

```python
from latentwire import Telepathy

wire = Telepathy.from_pretrained("path/to/this/folder")
message = wire.send(["Maria left 47 apples in Lisbon."])
print(wire.ask(message, ["How many apples?"]))
```
"""
