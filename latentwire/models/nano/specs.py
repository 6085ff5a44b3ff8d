"""What the embedded models are: two families, two tokenizers, two widths, two depths.

They are small enough to ship inside the package and to train on a laptop, and different enough that nothing can pass
from one to the other by accident. They are a test bench, never evidence for larger models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BOS_ID, EOS_ID, PAD_ID = 1, 2, 0
MAX_POSITIONS = 1024
SPECIAL_TOKENS = ("<pad>", "<s>", "</s>")


@dataclass(frozen=True)
class NanoSpec:
    """Architecture of one embedded model. ``family`` chooses the transformers class and the kind of tokenizer."""

    name: str
    family: Literal["llama", "mistral"]
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int

    def build(self) -> PreTrainedModel:
        """A randomly initialised model. Embeddings start wide (0.1): with 0.02 words of one type collapse together."""
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

        config_class, model_class = {
            "llama": (LlamaConfig, LlamaForCausalLM),
            "mistral": (MistralConfig, MistralForCausalLM),
        }[self.family]
        config = config_class(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            num_key_value_heads=self.num_key_value_heads,
            max_position_embeddings=MAX_POSITIONS,
            tie_word_embeddings=True,
            bos_token_id=BOS_ID,
            eos_token_id=EOS_ID,
            pad_token_id=PAD_ID,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        )
        model = model_class(config)
        torch.nn.init.normal_(model.get_input_embeddings().weight, std=0.1)
        return model


NANO_SPECS = {
    spec.name: spec
    for spec in (
        NanoSpec("nano-llama", "llama", 2048, 128, 352, 5, 4, 2),
        NanoSpec("nano-mistral", "mistral", 1536, 160, 432, 6, 5, 5),
    )
}
