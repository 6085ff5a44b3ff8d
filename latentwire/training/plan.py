"""What a run would do and cost, worked out before anything is loaded: ``--dry-run``."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from latentwire.bridges import BRIDGES, bridge_config
from latentwire.bridges.base import BridgeEnds
from latentwire.bridges.costs import BridgeCosts, bridge_costs
from latentwire.config import STAGE_ONE, RunConfig
from latentwire.data.readers import GENERATED_ROWS
from latentwire.data.task import load_task
from latentwire.messages.precision import bytes_per_token, wire_format
from latentwire.models.costs import causal_lm_bytes, sender_bytes
from latentwire.models.device import pick_device, pick_dtype
from latentwire.models.sender import Layer, as_layers, check_layer
from latentwire.models.source import ModelSource, check_config, resolve

#: what a process holds beside the weights when it answers: tokenizers, code that is loaded on first use, a row's activations and
#: copies of a layer's weights; 24 to 58 MB with the embedded and the sized pair
WORKING_BYTES = 32 << 20


@dataclass(frozen=True)
class RunPlan:
    """The figures of a dry run. Memory is that of weights, gradients and optimiser; activations come on top."""

    name: str
    folder: str
    tasks: list[str]
    train_rows_per_task: str
    validation_rows_per_task: str
    sender: str
    sender_layer: Layer
    sender_blocks: int
    receiver: str
    bridge: str
    message: str
    device: str
    trainable_params: int
    sender_memory_bytes: int
    receiver_memory_bytes: int
    answering_memory_bytes: int
    bridge_training_memory_bytes: int
    checkpoint_disk_bytes: int
    artefact_disk_bytes: int
    steps: int
    rows_seen: int

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def plan_run(config: RunConfig, *, device: str | None = None) -> RunPlan:
    """Checks every name in the config and computes the figures; only the models' config files are read."""
    chosen_device = pick_device(device)
    is_stage_one = config.task == (STAGE_ONE,)
    for name in () if is_stage_one else config.task:
        load_task(name, config.variant)
    sender, receiver = (resolve(item.model, item.revision) for item in (config.sender, config.receiver))
    for source in (sender, receiver):
        check_config(source)
    layer, blocks = _layer(config, sender)
    bridge = bridge_config(config.bridge)
    ends = _ends(sender, receiver, layer)
    params = bridge.num_params(ends)

    training = config.training
    sender_weights = sender_bytes(sender, blocks, config.sender.dtype, chosen_device)
    receiver_weights = causal_lm_bytes(receiver, config.receiver.dtype, chosen_device)
    return RunPlan(
        name=config.name,
        folder=str(config.folder),
        tasks=list(config.task),
        train_rows_per_task="texts as they are needed" if is_stage_one else _rows(config, "train", config.data.train_rows),
        validation_rows_per_task=(
            str(config.pretraining.validation_rows) if is_stage_one else _rows(config, "validation", config.data.validation_rows)
        ),
        sender=sender.name,
        sender_layer=layer,
        sender_blocks=blocks,
        receiver=receiver.name,
        bridge=f"{bridge.name}, {bridge.describe_rate()}",
        message=_message(config, receiver.config.hidden_size, pick_dtype(config.receiver.dtype, chosen_device)),
        device=str(chosen_device),
        trainable_params=params,
        sender_memory_bytes=sender_weights,
        receiver_memory_bytes=receiver_weights,
        # the layers that are used and the bridge in float32
        answering_memory_bytes=sender_weights + receiver_weights + 4 * params + WORKING_BYTES,
        # weights, gradients and two moments in float32
        bridge_training_memory_bytes=16 * params,
        # weights, best weights and two moments
        checkpoint_disk_bytes=16 * params,
        artefact_disk_bytes=4 * params,
        steps=training.steps,
        rows_seen=training.steps * training.batch_size,
    )


@dataclass(frozen=True)
class CostCard:
    """One bridge between the pair of a config."""

    name: str
    what: str
    costs: BridgeCosts
    message_bytes: int
    precision: str

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def cost_cards(config: RunConfig, *, context_tokens: int) -> list[CostCard]:
    """The cards of all bridges with their default settings, and of the config's own with its settings."""
    sender, receiver = (resolve(item.model, item.revision) for item in (config.sender, config.receiver))
    layer, blocks = _layer(config, sender)
    form = wire_format(config.message.precision, pick_dtype(config.receiver.dtype, pick_device(None)))
    token_bytes = bytes_per_token(form, receiver.config.hidden_size)
    cards = []
    for name in BRIDGES:
        bridge = bridge_config(config.bridge if name == config.bridge.get("name") else {"name": name})
        # what mixes layers is counted with all that a sender of this depth reads
        read = tuple(range(blocks + 1)) if bridge.mixes_layers and isinstance(layer, int) else layer
        costs = bridge_costs(bridge, _ends(sender, receiver, read), context_tokens=context_tokens)
        cards.append(CostCard(name, bridge.describe_rate(), costs, costs.soft_tokens * token_bytes, form))
    return cards


def _layer(config: RunConfig, sender: ModelSource) -> tuple[Layer, int]:
    """The sender layer of the run, by default half of the depth, and how many blocks it needs. ``UsageError`` if there is none."""
    depth = sender.config.num_hidden_layers
    layer = depth // 2 if config.sender.layer is None else config.sender.layer
    return layer, check_layer(layer, config.sender.model, depth)


def _ends(sender: ModelSource, receiver: ModelSource, layer: Layer) -> BridgeEnds:
    """The widths of a pair that is not loaded; the scale of the receiver's embeddings stays open."""
    layers = len(as_layers(layer))
    return BridgeEnds(
        sender_width=sender.config.hidden_size * layers,
        sender_layers=layers,
        receiver_width=receiver.config.hidden_size,
        receiver_rms=1.0,
    )


def _message(config: RunConfig, width: int, dtype: torch.dtype) -> str:
    """How messages cross, and what one soft token of them weighs."""
    size = bytes_per_token(wire_format(config.message.precision, dtype), width)
    return f"{config.message.describe()}, {size:,} bytes per soft token"


def _rows(config: RunConfig, split: str, wanted: int | None) -> str:
    if wanted is not None:
        return f"at most {wanted}"
    generated = all(load_task(name).config.source.generated for name in config.task)
    return str(GENERATED_ROWS[split]) if generated else "all"
