"""The sender: the lower blocks of a frozen language model, read once per context.

Hidden state k is the output of block k (0 = embeddings). The model is loaded with k blocks and without its final norm,
which is bit-equal to ``hidden_states[k]`` of the whole model (k below its depth) and never reads the upper weights.

Shapes: B rows, S sender tokens, D_s sender width.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from latentwire.errors import UsageError
from latentwire.files import digest
from latentwire.models.chat import Prompter, PromptStyle
from latentwire.models.device import QUANTISED, loading, pick_device, pick_dtype, placed
from latentwire.models.freezing import freeze
from latentwire.models.products import with_fast_products
from latentwire.models.receiver import Receiver, load_receiver
from latentwire.models.source import ModelSource, check_config, check_loaded, explained, resolve
from latentwire.models.tokens import pad_right

#: a hidden state, or several that are read side by side, from the lowest up
Layer = int | tuple[int, ...]


@dataclass(frozen=True)
class SenderStates:
    """``states`` [B, S, D_s] of a batch of contexts; ``mask`` [B, S] is True at real tokens."""

    states: Float[Tensor, "B S D_s"]
    mask: Bool[Tensor, "B S"]


class Sender:
    """A truncated, frozen language model that turns contexts into hidden states."""

    def __init__(
        self,
        source: ModelSource,
        model: nn.Module,
        *,
        layer: Layer,
        device: torch.device,
        dtype: torch.dtype,
        weights: str | None = None,
        writer: Receiver | None = None,
        prompt_style: PromptStyle = "auto",
    ) -> None:
        self.source, self.model, self.layer, self.device, self.dtype = source, model, layer, device, dtype
        #: the format of quantised weights, else nothing
        self.quantised = [weights] if weights in QUANTISED else []
        self.writer = writer
        self.prompter = Prompter(source, prompt_style)
        self.tokenizer = source.tokenizer
        #: of all layers side by side
        self.width: int = source.config.hidden_size * len(as_layers(layer))
        self.max_tokens: int = source.config.max_position_embeddings

    @property
    def key(self) -> str:
        """Identifies what the states depend on besides the text; the feature cache files them under it."""
        style = [] if self.prompter.turn is None else [self.prompter.style]
        parts = (self.source.fingerprint, self.source.tokenizer_hash, str(self.layer), str(self.dtype), *style, *self.quantised)
        return digest(*parts)[:16]

    def read(self, contexts: Sequence[str]) -> SenderStates:
        """Hidden states of the contexts, each with what the chat template puts behind it.

        What stands before every context is read, but its states are left out: the begin-of-text token carries a huge norm
        and no content, the head of a user turn is the same for all.

        Raises:
            DataError: a context is empty or longer than the model can read.
        """
        return self.read_ids(*self.prompter.context_ids(contexts))

    @torch.no_grad()
    def read_ids(self, encoded: Sequence[Sequence[int]], skip: int) -> SenderStates:
        """Hidden states of tokens, of which the first ``skip`` of every row are read and left out (``Prompter.context_ids``)."""
        ids, mask = pad_right(encoded, self.tokenizer.pad_token_id or 0, self.device)
        several = not isinstance(self.layer, int)
        # known without asking the device: rows of one length need no mask
        padded = len({len(row) for row in encoded}) > 1
        output = self.model(
            input_ids=ids, attention_mask=mask.long() if padded else None, use_cache=False, output_hidden_states=several
        )
        states = output.last_hidden_state
        if several:
            states = torch.cat([output.hidden_states[layer] for layer in as_layers(self.layer)], dim=-1)
        return SenderStates(states[:, skip:], mask[:, skip:])


def as_layers(layer: Layer) -> tuple[int, ...]:
    """The hidden states that are read, from the lowest up."""
    return (layer,) if isinstance(layer, int) else layer


def load_sender(
    name: str,
    *,
    layer: Layer | None = None,
    full: bool = False,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    prompt_style: PromptStyle = "auto",
) -> Sender:
    """A frozen sender up to block ``layer`` (default: half of the model's depth).

    Args:
        name: embedded name, folder or Hub id.
        layer: 0 (embeddings) to the model's depth; the depth itself gives the last block's output before the final norm.
            Several layers are read side by side.
        full: also load the upper blocks and the LM head, for senders that must write text; ``sender.writer`` then holds
            the whole model, which shares its lower blocks with the sender.
        dtype: ``float32``, ``bfloat16`` or ``float16``; by default bfloat16 on accelerators, float32 on a CPU. On a CUDA GPU also
            ``int8`` or ``int4`` (bitsandbytes).
        prompt_style: ``plain`` text, inside the user turn of the ``chat`` template, or ``auto``: chat where there is one.
    """
    from transformers import AutoModel

    source = resolve(name, revision)
    check_config(source)
    depth: int = source.config.num_hidden_layers
    layer = depth // 2 if layer is None else layer
    blocks = check_layer(layer, source.name, depth)
    if full:
        writer = load_receiver(name, revision=revision, device=device, dtype=dtype, prompt_style=prompt_style)
        lower = freeze(lower_blocks(writer.model.get_decoder(), blocks))
        return Sender(
            source, lower, layer=layer, device=writer.device, dtype=writer.dtype, weights=dtype, writer=writer,
            prompt_style=prompt_style,
        )  # fmt: skip
    chosen_device = pick_device(device)
    chosen_dtype = pick_dtype(dtype, chosen_device)
    if source.is_part_of_a_model:
        # its weights have names of their own; the upper blocks go when the whole model does
        whole = load_receiver(name, revision=revision, device=device, dtype=dtype, prompt_style=prompt_style)
        lower = freeze(lower_blocks(whole.model.get_decoder(), blocks))
        return Sender(source, lower, layer=layer, device=whole.device, dtype=whole.dtype, weights=dtype, prompt_style=prompt_style)
    config = copy.deepcopy(source.config)
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:blocks]
    config.num_hidden_layers = blocks
    arguments = loading(dtype, chosen_device)
    with explained(source):
        model, found = AutoModel.from_pretrained(
            source.location, config=config, output_loading_info=True, **arguments, **source.load_arguments()
        )
    check_loaded(source, model, found)
    model.norm = nn.Identity()
    model = with_fast_products(placed(freeze(model), chosen_device))
    return Sender(source, model, layer=layer, device=chosen_device, dtype=chosen_dtype, weights=dtype, prompt_style=prompt_style)


def check_layer(layer: Layer, name: str, depth: int) -> int:
    """How many blocks of the named model must be loaded for these layers. Raises ``UsageError`` where one does not exist."""
    for wanted in as_layers(layer):
        if not 0 <= wanted <= depth:
            raise UsageError(f"sender layer {wanted} does not exist: {name!r} has blocks 1-{depth} (0 = embeddings)")
    return max(as_layers(layer))


def lower_blocks(decoder: nn.Module, layer: int) -> nn.Module:
    """A view of the first ``layer`` blocks of ``decoder`` that shares their weights and leaves ``decoder`` as it is."""
    lower = copy.copy(decoder)
    lower._modules = dict(decoder._modules)
    # a hook that accelerate put in the place of the method would run the whole decoder
    lower.__dict__.pop("forward", None)
    lower.layers = decoder.layers[:layer]  # type: ignore[index, assignment]
    lower.norm = nn.Identity()
    return lower
