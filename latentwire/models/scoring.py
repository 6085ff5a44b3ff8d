"""Scoring of given options by a receiver: all of them in one pass over a trie, or only those that can win.

Shapes: B rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import sqrt

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from latentwire.models.batching import parts
from latentwire.models.soft_tokens import Prefix
from latentwire.models.trie import Branches, OptionTrie, build_trie

#: so many logits count as a token of a pass: with a large vocabulary they are what fills the memory
LOGITS_PER_TOKEN = 16_384
#: how far two passes over the same row may differ, in nats: in float32, in 16 bits
SLACK_NATS, SLACK_NATS_HALF = 1e-3, 0.5
#: options of a row and the trie that holds them
Piece = tuple[tuple[int, ...], OptionTrie]


class ScoresOptions(ABC):
    """What a receiver makes of its passes where the answers are given.

    ``pair_cost``: what attention between two positions costs, over what the blocks' weights cost for one.
    """

    device: torch.device
    dtype: torch.dtype
    pair_cost: float
    vocabulary: int

    @abstractmethod
    def tree_logits(self, prefix: Prefix, trees: Sequence[OptionTrie | Branches]) -> Float[Tensor, "B N V"]:
        """Logits at the root (the last position of the prefix) and at the nodes of each row's tree."""

    @abstractmethod
    def answer_logits(
        self, prefix: Prefix, answers: Sequence[Sequence[int]]
    ) -> tuple[Float[Tensor, "B T V"], Int[Tensor, "B T"], Bool[Tensor, "B T"]]:
        """Logits at the places of every answer token, the tokens themselves, and the mask of real ones."""

    @abstractmethod
    def with_shared_start_read(self, prefix: Prefix, *, behind: int = 0) -> Prefix:
        """The prefix with the beginning that its rows share read once, where that pays."""

    @abstractmethod
    def read_but_for_the_last(self, prefix: Prefix) -> tuple[Float[Tensor, "B V"], Prefix]:
        """Log-probabilities behind the prefix, and the prefix with all but its last position read."""

    def score_options(self, prefix: Prefix, tries: Sequence[OptionTrie]) -> list[Float[Tensor, " _"]]:
        """Log-likelihood in nats of every option of every row, over prefix and trie nodes alone. Differentiable."""
        prefix = self.with_shared_start_read(prefix, behind=max((len(trie.tokens) for trie in tries), default=0))
        cut = [trie.cut(self._pieces(prefix, len(trie.tokens))) for trie in tries]
        if all(len(pieces) == 1 for pieces in cut):
            return self._scores(prefix, tries)
        # the pieces of large tries are read side by side, each behind the whole prefix
        rows = [row for row, pieces in enumerate(cut) for _ in pieces]
        found = iter(self._scores(prefix[rows], [piece for pieces in cut for _, piece in pieces]))
        scores = []
        for pieces in cut:
            places = torch.tensor([option for options, _ in pieces for option in options], device=self.device)
            scores.append(torch.cat([next(found) for _ in pieces])[places.argsort()])
        return scores

    def _pieces(self, prefix: Prefix, nodes: int) -> int:
        """Into how many pieces a trie of so many nodes is best cut.

        P prefix positions and N nodes in m pieces cost m (P + N / m) + pair_cost m (P + N / m)^2, which is least at
        m = N sqrt(pair_cost / (P (1 + P pair_cost))).
        """
        read, whole = prefix.mask.shape[1], prefix.whole_mask.shape[1]
        return max(1, round(nodes * sqrt(self.pair_cost / (read * (1 + whole * self.pair_cost)))))

    def _scores(self, prefix: Prefix, tries: Sequence[OptionTrie]) -> list[Float[Tensor, " _"]]:
        """As ``score_options``, every trie as it is."""
        lengths = []
        for length, trie in zip(prefix.lengths, tries, strict=True):
            nodes = len(trie.tokens)
            lengths.append(max(length + nodes, (nodes + 1) * self.vocabulary // LOGITS_PER_TOKEN))
        scores: list[Tensor] = [prefix.embeddings] * len(tries)
        for part in parts(lengths, self.device):
            asked = [tries[row] for row in part]
            log_probs = self.tree_logits(prefix[part], asked).log_softmax(-1)
            if all(trie is asked[0] for trie in asked):
                found = asked[0].option_scores(log_probs).unbind()
            else:
                found = tuple(trie.option_scores(own) for trie, own in zip(asked, log_probs, strict=True))
            for row, own in zip(part, found, strict=True):
                scores[row] = own
        return scores

    @torch.no_grad()
    def score_contenders(self, prefix: Prefix, tries: Sequence[OptionTrie]) -> list[Float[Tensor, " _"]]:
        """As ``score_options`` for every option that can be the best; the others get the log-probability of their first token.

        No option is more probable than its first token. So those with the likeliest first token are scored, and then only
        those whose first token is more probable than the best of them: with many options, a small part.
        """
        prefix = self.with_shared_start_read(prefix, behind=max((len(trie.tokens) for trie in tries), default=0))
        scores: list[Tensor] = [prefix.embeddings] * len(tries)
        for part in parts(prefix.lengths, self.device):
            for row, own in zip(part, self._contenders(prefix[part], [tries[row] for row in part]), strict=True):
                scores[row] = own
        return scores

    @property
    def _slack(self) -> float:
        """Two passes agree to rounding only."""
        return SLACK_NATS if self.dtype == torch.float32 else SLACK_NATS_HALF

    def _contenders(self, prefix: Prefix, tries: Sequence[OptionTrie]) -> list[Float[Tensor, " _"]]:
        first, prefix = self.read_but_for_the_last(prefix)
        scores = [row[[path[0][1] for path in trie.paths]] for row, trie in zip(first, tries, strict=True)]
        likeliest = [(row == row.max()).nonzero()[:, 0].tolist() for row in scores]
        bounds = [row.clone() for row in scores]
        self._score_some(prefix, tries, likeliest, scores)
        best = [row[options].max() for row, options in zip(scores, likeliest, strict=True)]
        still_open = [
            [option for option in (bound > most - self._slack).nonzero()[:, 0].tolist() if option not in options]
            for bound, most, options in zip(bounds, best, likeliest, strict=True)
        ]
        self._score_some(prefix, tries, still_open, scores)
        return scores

    def _score_some(
        self, prefix: Prefix, tries: Sequence[OptionTrie], wanted: Sequence[list[int]], scores: list[Float[Tensor, " _"]]
    ) -> None:
        """Writes the scores of the ``wanted`` options of each row into ``scores``."""
        rows = [row for row, options in enumerate(wanted) if options]
        if not rows:
            return
        made: dict[tuple[int, ...], OptionTrie] = {}
        kept = []
        for row in rows:
            key = (id(tries[row]), *wanted[row])
            if key not in made:
                made[key] = build_trie([tries[row].spelled(option) for option in wanted[row]], None)
            kept.append(made[key])
        for row, found in zip(rows, self.score_options(prefix[rows], kept), strict=True):
            scores[row][wanted[row]] = found

    @torch.no_grad()
    def prefers(self, prefix: Prefix, tries: Sequence[OptionTrie], labels: Sequence[int]) -> list[bool]:
        """Whether option ``labels[row]`` scores best. Options that cannot win by their first token are not scored further."""
        spelled = [trie.spelled(label) for trie, label in zip(tries, labels, strict=True)]
        logits, targets, mask = self.answer_logits(prefix, spelled)
        own = (-F.cross_entropy(logits.transpose(1, 2), targets, reduction="none") * mask).sum(dim=1).tolist()
        first = logits[:, 0].log_softmax(-1).cpu()
        wanted: list[list[int]] = []
        for row, (trie, label) in enumerate(zip(tries, labels, strict=True)):
            starts = first[row, [path[0][1] for path in trie.paths]].tolist()
            rivals = [option for option, start in enumerate(starts) if option != label and start >= own[row] - self._slack]
            wanted.append([label, *rivals] if rivals else [])
        scores = [torch.full((len(trie.paths),), -torch.inf, device=self.device) for trie in tries]
        self._score_some(prefix, tries, wanted, scores)
        return [not options or int(row.argmax()) == label for row, options, label in zip(scores, wanted, labels, strict=True)]
