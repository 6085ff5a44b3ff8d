"""Tokenizers of the embedded models: byte-level BPE for the Llama, metaspace BPE with byte fallback for the Mistral.

Both treat each digit, each word and each run of punctuation apart, and put a space before a text that starts without
one. A text split at white space therefore gives the same tokens as its parts, which keeps prompts and answers aligned.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from latentwire.models.nano.specs import BOS_ID, EOS_ID, MAX_POSITIONS, PAD_ID, SPECIAL_TOKENS, NanoSpec

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

_PAD, _BOS, _EOS = SPECIAL_TOKENS
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def train_tokenizer(spec: NanoSpec, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Learn the merges of ``spec``'s tokenizer from ``texts``; the same texts give the same tokenizer."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    # tokenizers 0.23 panics on zero-width replacements, hence: put a space first, then drop it where white space follows
    leading_space = normalizers.Sequence([normalizers.Prepend(" "), normalizers.Replace(Regex(r"\A (?=\s)"), "")])
    specials = [*SPECIAL_TOKENS]
    if spec.family == "llama":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = leading_space
        pieces = pre_tokenizers.Split(Regex(r"\n| ?[0-9]| ?[A-Za-z]+| ?[^\sA-Za-z0-9]+|\s+"), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pieces, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token=_PAD, fuse_unk=False))
        tokenizer.normalizer = normalizers.Sequence([leading_space, normalizers.Replace(" ", "▁")])
        pieces = pre_tokenizers.Split(Regex(r"\n|▁?[0-9]|▁?[A-Za-z]+|▁?[^\s▁A-Za-z0-9]+|▁+|\s+"), "isolated")
        tokenizer.pre_tokenizer = pieces
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        specials += _BYTES
        alphabet = [chr(code) for code in range(33, 127)] + ["▁", "\n"]
    trainer = trainers.BpeTrainer(
        vocab_size=spec.vocab_size, special_tokens=specials, initial_alphabet=alphabet, show_progress=False, limit_alphabet=256
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{_BOS} $A", special_tokens=[(_BOS, BOS_ID)])
    if tokenizer.get_vocab_size() != spec.vocab_size:
        raise ValueError(
            f"{spec.name}: the texts gave {tokenizer.get_vocab_size()} tokens, {spec.vocab_size} wanted; give more text"
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=_without_special_bytes(tokenizer),
        pad_token=_PAD,
        bos_token=_BOS,
        eos_token=_EOS,
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
    )


def _without_special_bytes(tokenizer: Tokenizer) -> Tokenizer:
    """Byte tokens are ordinary vocabulary: a text that spells ``<0x41>`` must not become one."""
    import json

    from tokenizers import Tokenizer as Loader

    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] not in _BYTES]
    return Loader.from_str(json.dumps(state))


assert (PAD_ID, BOS_ID, EOS_ID) == (0, 1, 2)
