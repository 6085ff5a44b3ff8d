"""The receiver: a frozen language model that answers from a prompt in which a message stands.

Layout of every pass: prefixes are padded on the left, so that all rows end at the same position, and what follows (an
answer, the nodes of an option trie, generated tokens) is padded on the right. Positions count real tokens only (a soft
token as many as its message's stride), hence a row's result does not depend on its batch.

Shapes: B rows, K soft tokens, P prefix positions, T answer tokens, N trie nodes, D_r receiver width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from latentwire.errors import DataError, MismatchError
from latentwire.models.attention import with_widened_attention
from latentwire.models.batching import parts
from latentwire.models.chat import Prompter, PromptStyle
from latentwire.models.device import loading, pick_device, pick_dtype, placed
from latentwire.models.freezing import freeze
from latentwire.models.past import Past, keeps_all_positions, shared_start
from latentwire.models.products import with_fast_products
from latentwire.models.scoring import ScoresOptions
from latentwire.models.soft_tokens import Prefix, SoftTokens, positions_of
from latentwire.models.source import ModelSource, check_config, check_loaded, explained, resolve
from latentwire.models.tokens import encode_plain
from latentwire.models.trie import Branches, OptionTrie, behind, build_trie
from latentwire.models.windows import Windows
from latentwire.prompts import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: what a model is told of who sees whom: real positions, a bias, a bias for each kind of layer, or nothing where all are real
Attention = Tensor | dict[str, Tensor] | None


class Receiver(ScoresOptions):
    """A frozen causal language model that reads soft tokens, scores options and generates greedily."""

    def __init__(
        self,
        source: ModelSource,
        model: PreTrainedModel,
        *,
        device: torch.device,
        dtype: torch.dtype,
        prompt_style: PromptStyle = "auto",
    ) -> None:
        self.source, self.model, self.device, self.dtype = source, model, device, dtype
        self.prompter = Prompter(source, prompt_style)
        self.tokenizer = source.tokenizer
        self.embed = model.get_input_embeddings()
        self.width: int = source.config.hidden_size
        self.max_tokens: int = source.config.max_position_embeddings
        #: the token that closes an answer in training, and all that end one
        self.end_id = self.prompter.end_id
        self.end_ids: set[int] = {self.end_id, *_end_ids(model, source)}
        self.embedding_rms = self._embedding_rms()
        self.pair_cost, self.vocabulary = _pair_cost(model), self.embed.weight.shape[0]
        #: most rows of a task share their options and the end of their prompt
        self._trie = lru_cache(maxsize=64)(self._built_trie)
        # transformers 5.24 renamed it
        self.cache_name = "cache" if "cache" in signature(model.forward).parameters else "past_key_values"
        self._can_resume = keeps_all_positions(source.config)
        self.windows = Windows.of(source.config)

    @torch.no_grad()
    def _embedding_rms(self) -> float:
        """Root mean square of the embedding table as the model reads it: the scale of a soft token."""
        ids = torch.arange(self.embed.weight.shape[0], device=self.device)
        squares = [self.embed(part).float().pow(2).mean().item() * len(part) for part in ids.split(8192)]
        return float((sum(squares) / len(ids)) ** 0.5)

    # ------------------------------------------------------------------------------------------------ tokenisation

    def answer_ids(self, prompt: Prompt, answer: str, *, end: bool = True) -> list[int]:
        """Tokens of ``answer`` behind the prompt, closed by the end token unless told otherwise."""
        return self.prompter.answer_ids(prompt, answer, end=end)

    def count_tokens(self, prompt: Prompt) -> int:
        return self.prompter.count([prompt])[0]

    def prefix(self, prompts: Sequence[Prompt], soft: SoftTokens | None = None, *, open_end: bool = False) -> Prefix:
        """Embeds the prompts with the messages of ``soft`` (row by row) in their holes: soft tokens, then verbatim text.

        ``open_end`` leaves out what stands behind the holes, which a tree of questions then takes up.

        Raises:
            DataError: a row is longer than the model can read.
            MismatchError: the soft tokens have another width than the receiver.
        """
        if soft is not None and soft.vectors.shape[-1] != self.width:
            raise MismatchError(
                f"soft tokens of width {soft.vectors.shape[-1]} cannot enter {self.source.name!r} (width {self.width}); "
                "use the receiver the bridge was trained for"
            )
        pieces = [self.prompter.prefix_ids(prompt) for prompt in prompts]
        if open_end:
            pieces = [(before, []) for before, _ in pieces]
        if all(piece == pieces[0] for piece in pieces) and (soft is None or soft.has_no_gaps):
            return self._even_prefix(len(pieces), *pieces[0], soft)
        flat = torch.tensor([token for before, after in pieces for token in (*before, *after)], device=self.device)
        embedded = self.embed(flat)
        messages = None if soft is None else self.messages(soft)
        rows, spread, at = [], [], 0
        for index, (before, after) in enumerate(pieces):
            head, tail = at + len(before), at + len(before) + len(after)
            middle = [] if messages is None else messages[index]
            rows.append(torch.cat([embedded[at:head], *middle, embedded[head:tail]]))
            at = tail
            positions = self._positions(index, len(rows[-1]), len(before), soft, len(middle[0]) if middle else 0)
            if positions is not None:
                spread.append(positions)
        length = max(len(row) for row in rows)
        stacked = torch.stack([F.pad(own, (length - len(own), 0)) for own in spread]).to(self.device) if spread else None
        if len(rows) == 1:
            return Prefix(rows[0][None], torch.ones(1, length, dtype=torch.bool, device=self.device), spread=stacked)
        embeddings = torch.stack([F.pad(row, (0, 0, length - len(row), 0)) for row in rows])
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        mask = torch.arange(length, device=self.device)[None, :] >= (length - lengths)[:, None]
        return Prefix(embeddings, mask, spread=stacked)

    def _even_prefix(self, rows: int, before: list[int], after: list[int], soft: SoftTokens | None) -> Prefix:
        """The same prompt in all rows, around messages of one length: nothing is padded, so nothing is done row by row."""
        words = self.embed(torch.tensor([[*before, *after]], dtype=torch.long, device=self.device)).expand(rows, -1, -1)
        middle = [] if soft is None else [soft.as_read(soft.vectors.to(self.embed.weight.dtype))]
        embeddings = torch.cat([words[:, : len(before)], *middle, words[:, len(before) :]], dim=1)
        mask = torch.ones(embeddings.shape[:2], dtype=torch.bool, device=self.device)
        length = embeddings.shape[1]
        positions = self._positions(0, length, len(before), soft, middle[0].shape[1] if middle else 0)
        return Prefix(embeddings, mask, spread=None if positions is None else positions.to(self.device)[None].expand(rows, -1))

    def _positions(self, row: int, length: int, before: int, soft: SoftTokens | None, read: int) -> Int[Tensor, " length"] | None:
        """Where the vectors of a row stand, ``read`` of them the message's; None where they stand one behind another.

        Raises ``DataError`` where the row has more vectors or positions than the model reads.
        """
        if soft is None or not soft.is_spread:
            self._check_length(row, length, "")
            return None
        each = soft.read_per_token
        count = read // each
        positions = soft.positions(length, before=before, count=count)
        most = max(length, length + count * (soft.stride - each))
        self._check_length(row, most, f" (each soft token counts as {max(soft.stride, each)})")
        return positions

    def _check_length(self, row: int, tokens: int, counted: str) -> None:
        if tokens >= self.max_tokens:
            raise DataError(
                f"row {row} gives the receiver {tokens} tokens{counted}, {self.source.name!r} reads at most {self.max_tokens}; "
                "shorten the context or send a shorter message"
            )

    def messages(self, soft: SoftTokens) -> list[list[Float[Tensor, "_ D_r"]]]:
        """What stands in the hole of each row: soft tokens as read and, where there is any, verbatim text as ordinary tokens."""
        # taken apart at once: every look at a mask waits for the device
        real = soft.vectors[soft.mask].to(self.embed.weight.dtype).split(soft.tokens_per_row.tolist())
        found = [[soft.as_read(own)] for own in real]
        for own, text in zip(found, soft.verbatim, strict=False):
            if text:
                ids = encode_plain(self.tokenizer, text)
                own.append(self.embed(torch.tensor(ids, dtype=torch.long, device=self.device)))
        return found

    # ------------------------------------------------------------------------------------------------------ answers

    def answer_log_probs(
        self, prefix: Prefix, answers: Sequence[Sequence[int]]
    ) -> tuple[Float[Tensor, "B T"], Bool[Tensor, "B T"]]:
        """Log-probability in nats of every answer token given all before it, and the mask of real ones. Differentiable."""
        logits, targets, mask = self.answer_logits(prefix, answers)
        log_probs = -F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
        return log_probs * mask, mask

    def predicted_exactly(self, prefix: Prefix, answers: Sequence[Sequence[int]]) -> Bool[Tensor, " B"]:
        """Whether greedy decoding would give exactly these answers (teacher forcing shows the same in one pass)."""
        logits, targets, mask = self.answer_logits(prefix, answers)
        return ((logits.argmax(-1) == targets) | ~mask).all(dim=1)

    def graded_answers(
        self, prefix: Prefix, answers: Sequence[Sequence[int]]
    ) -> tuple[Float[Tensor, "B T"], Bool[Tensor, "B T"], Bool[Tensor, "B T"]]:
        """``answer_log_probs`` and, in the same pass, which tokens are the likeliest in their places (padding is).

        Where all of a row are, greedy decoding gives exactly this answer. The log-probabilities are differentiable.
        """
        logits, targets, mask = self.answer_logits(prefix, answers)
        log_probs = -F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
        return log_probs * mask, mask, (logits.argmax(-1) == targets) | ~mask

    def answer_logits(
        self, prefix: Prefix, answers: Sequence[Sequence[int]]
    ) -> tuple[Float[Tensor, "B T V"], Int[Tensor, "B T"], Bool[Tensor, "B T"]]:
        """Logits at the places of every answer token, the tokens themselves, and the mask of real ones. Differentiable."""
        length = max(len(answer) for answer in answers)
        targets = torch.tensor([[*answer, *[0] * (length - len(answer))] for answer in answers], device=self.device)
        lengths = torch.tensor([len(answer) for answer in answers], device=self.device)
        mask = torch.arange(length, device=self.device)[None, :] < lengths[:, None]
        # the last answer token predicts nothing, so it is not read
        embeddings = torch.cat([prefix.embeddings, self.embed(targets[:, :-1])], dim=1)
        attention = torch.cat([prefix.whole_mask, mask[:, :-1]], dim=1)
        read = prefix.positions
        positions = torch.cat([read, read[:, -1:] + positions_of(mask)[:, :-1] + 1], dim=1)
        output = self._pass(prefix.past, embeddings, attention.long(), positions, logits_to_keep=length, use_cache=False)
        return output.logits.float(), targets, mask

    def tries(self, prompts: Sequence[Prompt], options: Sequence[Sequence[str]]) -> list[OptionTrie]:
        """The option trie of each row; rows with the same options and prompt ending share one."""
        # what stands directly before an answer decides how it is cut into tokens
        in_turn = self.prompter.turn is not None
        endings = [prompt.after if in_turn else prompt.after or prompt.before for prompt in prompts]
        return [self._trie(ending, tuple(row)) for ending, row in zip(endings, options, strict=True)]

    def _built_trie(self, ending: str, options: tuple[str, ...]) -> OptionTrie:
        prompt = Prompt("", ending)
        return build_trie([self.answer_ids(prompt, option, end=False) for option in options], self.end_id)

    def branch_log_probs(self, prefix: Prefix, trees: Sequence[Branches]) -> list[list[Float[Tensor, " T"]]]:
        """Log-probabilities in nats of the answer tokens of every branch of every row, each as if asked alone. Differentiable."""
        found, logits = [], self.tree_logits(prefix, trees)
        steps = [[step for path in tree.paths for step in path] for tree in trees]
        asked = torch.tensor([step for row in steps for step in row], device=self.device).split([len(row) for row in steps])
        for tree, own, (places, answers) in zip(trees, logits, (row.unbind(-1) for row in asked), strict=True):
            log_probs = -F.cross_entropy(own[places], answers, reduction="none")
            found.append(list(log_probs.split([len(path) for path in tree.paths])))
        return found

    def tree_logits(self, prefix: Prefix, trees: Sequence[OptionTrie | Branches]) -> Float[Tensor, "B N V"]:
        """Logits at the root (the last position of the prefix) and at the nodes of each row's tree. Differentiable."""
        embeddings, bias, positions = self.tree_inputs(prefix, trees)
        asked = embeddings.shape[1] - prefix.mask.shape[1] + 1
        return self._pass(prefix.past, embeddings, bias, positions, logits_to_keep=asked, use_cache=False).logits.float()

    def tree_inputs(
        self, prefix: Prefix, trees: Sequence[OptionTrie | Branches]
    ) -> tuple[Float[Tensor, "B T D_r"], Attention, Int[Tensor, "B T"]]:
        """What one pass over prefixes and the nodes of their trees reads: embeddings, attention bias, positions.

        A bias for each kind of layer where some see less far back than the pass is long; none where no tree has a node.
        """
        if not any(tree.tokens for tree in trees):
            # without a mask, positions that do not follow each other would be taken for several texts in one row
            needs_no_mask = prefix.spread is None and prefix.has_no_gaps
            return prefix.embeddings, None if needs_no_mask else prefix.whole_mask.long(), prefix.positions
        tokens, bias, positions = behind(prefix, trees, dtype=self.dtype)
        nodes = self.embed(tokens).expand(len(prefix.mask), -1, -1)
        return torch.cat([prefix.embeddings, nodes], dim=1), self.windows.kept(bias, positions, tokens.shape[1]), positions

    # ---------------------------------------------------------------------------------------------- what is read once

    def with_shared_start_read(self, prefix: Prefix, *, behind: int = 0) -> Prefix:
        """The prefix with the beginning that its rows share (solved rows, a system prompt) read once, where that pays.

        Only where no gradient is asked for. ``behind``: how many positions will follow it.
        """
        if torch.is_grad_enabled() or not self._can_resume or prefix.past is not None or len(prefix.mask) == 1:
            return prefix
        shared = shared_start(prefix.embeddings, prefix.mask)
        if not shared:
            return prefix
        starts = (~prefix.mask).sum(dim=1) + shared
        begin, length = int(starts.min()), prefix.mask.shape[1]
        # masks count a window's positions by their place, and shorter rows have padding between what is read and the rest
        if self.windows.end_before(length + behind) and int(starts.max()) > begin:
            return prefix
        first = slice(int(starts[0]) - shared, int(starts[0]))
        past = self._read(prefix.part(slice(1), first))[1]
        mask = torch.arange(begin, length, device=self.device)[None, :] >= starts[:, None]
        return prefix.part(slice(None), slice(begin, None), past=past, mask=mask)

    def read_but_for_the_last(self, prefix: Prefix) -> tuple[Float[Tensor, "B V"], Prefix]:
        """Log-probabilities behind the prefix, and the prefix with all but its last position read (if the model can resume)."""
        log_probs, past = self._read(prefix, but_for=1)
        return log_probs, prefix if past is None else prefix.part(slice(None), slice(-1, None), past=past)

    @torch.no_grad()
    def _read(self, prefix: Prefix, *, but_for: int = 0) -> tuple[Float[Tensor, "B V"], Past | None]:
        """Log-probabilities behind the prefix, and what was read of it without its last ``but_for`` positions."""
        mask, positions = prefix.whole_mask, prefix.positions
        past = (prefix.past or Past.nothing(mask)) if self._can_resume else None
        output = self._pass(past, prefix.embeddings, mask.long(), positions, logits_to_keep=1, use_cache=past is not None)
        log_probs = output.logits[:, -1].float().log_softmax(-1)
        return log_probs, past and Past.of(getattr(output, self.cache_name), mask[:, : mask.shape[1] - but_for])

    def _pass(self, past: Past | None, embeddings: Tensor, attention: Attention, positions: Tensor, **settings: Any) -> Any:
        """One pass of the model over what stands behind ``past``."""
        if past is not None:
            settings[self.cache_name] = past.cache(len(embeddings))
        return self.model(inputs_embeds=embeddings, attention_mask=attention, position_ids=positions, **settings)

    # --------------------------------------------------------------------------------------------------- generation

    @torch.no_grad()
    def generate_ids(self, prefix: Prefix, *, max_new_tokens: int) -> list[list[int]]:
        """Greedy continuation of each prefix with a KV cache, up to its end token (left out) or ``max_new_tokens``."""
        rows: list[list[int]] = [[] for _ in prefix.mask]
        prefix = self.with_shared_start_read(prefix, behind=max_new_tokens)
        # what is written counts too: it fills the cache as the prefix does
        for part in parts([length + max_new_tokens for length in prefix.lengths], self.device):
            for row, ids in zip(part, self._generate_part(prefix[part], max_new_tokens), strict=True):
                rows[row] = ids
        return rows

    def _generate_part(self, prefix: Prefix, max_new_tokens: int) -> list[list[int]]:
        mask, positions = prefix.whole_mask, prefix.positions
        attention = mask.long() if len(mask) > 1 or not prefix.has_no_gaps else None
        output = self._pass(prefix.past, prefix.embeddings, attention, positions, logits_to_keep=1, use_cache=True)
        next_position = positions[:, -1:] + 1
        rows: list[list[int]] = [[] for _ in prefix.mask]
        # the rows that are computed, in the order of the batch, and which of them have not ended
        computed, running = list(range(len(rows))), [True] * len(rows)
        for step in range(max_new_tokens):
            chosen = output.logits[:, -1].argmax(-1)
            for row, token in zip(computed, chosen.tolist(), strict=True):
                running[row] = running[row] and token not in self.end_ids
                if running[row]:
                    rows[row].append(token)
            if step == max_new_tokens - 1 or not any(running):
                break
            cache = getattr(output, self.cache_name)
            kept = [place for place, row in enumerate(computed) if running[row]]
            if self._can_resume and 2 * len(kept) <= len(computed):
                # what has ended is computed no further; at half of the rows that pays for taking the cache apart
                chosen_rows = torch.tensor(kept, device=self.device)
                cache.batch_select_indices(chosen_rows)
                chosen, next_position = chosen[chosen_rows], next_position[chosen_rows]
                attention = None if attention is None else attention[chosen_rows]
                computed = [computed[place] for place in kept]
            attention = None if attention is None else F.pad(attention, (0, 1), value=1)
            output = self.model(
                input_ids=chosen[:, None],
                attention_mask=attention,
                position_ids=next_position + step,
                use_cache=True,
                **{self.cache_name: cache},
            )
        return rows

    def generate(self, prefix: Prefix, *, max_new_tokens: int) -> list[str]:
        """Greedy answers as text, without surrounding white space."""
        rows = self.generate_ids(prefix, max_new_tokens=max_new_tokens)
        return [self.tokenizer.decode(row, skip_special_tokens=True).strip() for row in rows]


def _pair_cost(model: PreTrainedModel) -> float:
    """Multiplications of attention for one pair of positions over those of the blocks' weights for one position."""
    config = model.config.get_text_config()
    # a recurrent model has none
    heads = getattr(config, "num_attention_heads", 0)
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // max(1, heads))
    weights = sum(part.numel() for part in model.get_decoder().parameters()) - model.get_input_embeddings().weight.numel()
    return float(2 * config.num_hidden_layers * width / max(1, weights))


def _end_ids(model: PreTrainedModel, source: ModelSource) -> set[int]:
    """Tokens that end an answer: those of the tokenizer and of the generation config."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    several = configured if isinstance(configured, list) else [configured]
    return {int(token) for token in (*several, source.tokenizer.eos_token_id) if token is not None}


def load_receiver(
    name: str,
    *,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    prompt_style: PromptStyle = "auto",
) -> Receiver:
    """A frozen receiver by embedded name, folder or Hub id. ``dtype`` and ``prompt_style`` as in ``load_sender``."""
    from transformers import AutoModelForCausalLM

    source = resolve(name, revision)
    check_config(source)
    chosen_device = pick_device(device)
    chosen_dtype = pick_dtype(dtype, chosen_device)
    arguments = loading(dtype, chosen_device)
    with explained(source):
        model, found = AutoModelForCausalLM.from_pretrained(
            source.location, output_loading_info=True, **arguments, **source.load_arguments()
        )
    check_loaded(source, model.get_decoder(), found)
    model = with_widened_attention(with_fast_products(placed(freeze(model), chosen_device)))
    return Receiver(source, model, device=chosen_device, dtype=chosen_dtype, prompt_style=prompt_style)
