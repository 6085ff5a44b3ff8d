"""Trees of tokens behind one prefix, so that all their branches are scored in a single receiver pass.

Options share beginnings and form a trie; several questions with their answers are branches side by side.
Only inner nodes are fed to the model: a leaf is predicted by its parent and predicts nothing itself.

Shapes: B rows, N nodes, T positions of one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from latentwire.models.soft_tokens import Prefix

#: attention biases, and ways to cut it, that a trie keeps
_KEPT = 8


@dataclass(frozen=True)
class OptionTrie:
    """N inner nodes in depth-first order, and for each option the (node, token) pairs whose log-probabilities add up to it.

    Node 0 is the root: the last position of the prefix. Node i > 0 holds ``tokens[i - 1]`` at ``depths[i - 1]`` below
    the root, behind the nodes ``ancestors[i - 1]`` (root and itself left out).
    """

    tokens: tuple[int, ...]
    depths: tuple[int, ...]
    ancestors: tuple[tuple[int, ...], ...]
    paths: tuple[tuple[tuple[int, int], ...], ...]

    def spelled(self, option: int) -> list[int]:
        """The tokens of an option, the end token that closes it included."""
        return [token for _, token in self.paths[option]]

    @cached_property
    def places(self) -> tuple[Int[Tensor, " nodes"], Int[Tensor, " nodes"]]:
        """Tokens and depths of the nodes (root left out)."""
        return _places(self.tokens, self.depths)

    @cached_property
    def sees(self) -> Bool[Tensor, "nodes nodes"]:
        """Which nodes (root left out) each node may attend to: itself and those before it on its path."""
        allowed = torch.eye(len(self.tokens), dtype=torch.bool)
        for node, others in enumerate(self.ancestors):
            allowed[node, [other - 1 for other in others]] = True
        return allowed

    @cached_property
    def steps(self) -> tuple[Int[Tensor, "options depth"], Int[Tensor, "options depth"], Bool[Tensor, "options depth"]]:
        """Node and token of every step of every option, and which steps are real."""
        depth = max(len(path) for path in self.paths)
        padded = [[*path, *[(0, 0)] * (depth - len(path))] for path in self.paths]
        nodes, tokens = torch.tensor(padded).unbind(-1)
        lengths = torch.tensor([len(path) for path in self.paths])
        return nodes, tokens, torch.arange(depth)[None, :] < lengths[:, None]

    def bias(self, length: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "1 1 T T"]:
        """The attention bias of one row without padding: ``length`` positions of its prefix, then the nodes (root left out).

        The latest are kept, since most rows of a task have prefixes of few lengths.
        """
        known, key = self._biases, (length, dtype, device)
        if key not in known:
            if len(known) >= _KEPT:
                known.clear()
            total = length + len(self.tokens)
            allowed = torch.ones(total, total, dtype=torch.bool, device=device).tril()
            allowed[length:, length:] = self.sees.to(device)
            bias = torch.zeros(total, total, dtype=dtype, device=device).masked_fill(~allowed, torch.finfo(dtype).min)
            known[key] = bias[None, None]
        return known[key]

    @cached_property
    def _biases(self) -> dict[tuple[int, torch.dtype, torch.device], Tensor]:
        return {}

    def cut(self, count: int) -> tuple[tuple[tuple[int, ...], OptionTrie], ...]:
        """The trie as ``count`` tries with about as many nodes each, and the options of each; itself where one is asked for.

        Attention costs the square of what one pass reads, so several short passes over a prefix may be cheaper than one long one.
        """
        known = self._cuts
        if count not in known:
            if len(known) >= _KEPT:
                known.clear()
            known[count] = self._cut(count) if count > 1 else ((tuple(range(len(self.paths))), self),)
        return known[count]

    def _cut(self, count: int) -> tuple[tuple[tuple[int, ...], OptionTrie], ...]:
        groups: list[list[int]] = [[] for _ in range(count)]
        read, before = 0, list[int]()
        # options that begin alike stay together
        for option in sorted(range(len(self.paths)), key=self.spelled):
            tokens = self.spelled(option)
            shared = next((depth for depth, (a, b) in enumerate(zip(tokens, before, strict=False)) if a != b), len(before))
            new = max(0, len(tokens) - 1 - shared)
            groups[min(count - 1, (2 * read + new) * count // (2 * len(self.tokens)))].append(option)
            read, before = read + new, tokens
        return tuple((tuple(group), build_trie([self.spelled(option) for option in group], None)) for group in groups if group)

    @cached_property
    def _cuts(self) -> dict[int, tuple[tuple[tuple[int, ...], OptionTrie], ...]]:
        return {}

    def option_scores(self, log_probs: Float[Tensor, "*B N V"]) -> Float[Tensor, "*B options"]:
        """Log-likelihood in nats of each option from the log-probabilities at the nodes."""
        nodes, tokens, real = (part.to(log_probs.device) for part in self.steps)
        return (log_probs[..., nodes, tokens] * real).sum(dim=-1)


@dataclass(frozen=True)
class Branches:
    """Questions with answers behind one prefix; none sees another. Nodes and ``paths`` as in ``OptionTrie``.

    A path holds the tokens of an answer alone: what is asked is read, not scored.
    """

    tokens: tuple[int, ...]
    depths: tuple[int, ...]
    paths: tuple[tuple[tuple[int, int], ...], ...]

    @cached_property
    def places(self) -> tuple[Int[Tensor, " nodes"], Int[Tensor, " nodes"]]:
        """Tokens and depths of the nodes (root left out)."""
        return _places(self.tokens, self.depths)

    @cached_property
    def sees(self) -> Bool[Tensor, "nodes nodes"]:
        """Which nodes (root left out) each node may attend to: those of its branch up to itself."""
        branch = torch.tensor(self.depths).eq(1).cumsum(0)
        return (branch[:, None] == branch[None, :]).tril()


def _places(tokens: Sequence[int], depths: Sequence[int]) -> tuple[Tensor, Tensor]:
    return torch.tensor(tokens, dtype=torch.long), torch.tensor(depths, dtype=torch.long)


def stacked(
    trees: Sequence[OptionTrie | Branches],
) -> tuple[Int[Tensor, "B nodes"], Int[Tensor, "B nodes"], Bool[Tensor, "B nodes nodes"]]:
    """Tokens, depths and who sees whom of several trees, padded at the end; padding sees itself."""
    batch, nodes = len(trees), max(len(tree.tokens) for tree in trees)
    if all(tree is trees[0] for tree in trees):
        tokens, depths = (part.expand(batch, nodes) for part in trees[0].places)
        return tokens, depths, trees[0].sees.expand(batch, nodes, nodes)
    tokens = torch.zeros(batch, nodes, dtype=torch.long)
    depths = torch.zeros(batch, nodes, dtype=torch.long)
    sees = torch.eye(nodes, dtype=torch.bool).repeat(batch, 1, 1)
    for row, tree in enumerate(trees):
        own = len(tree.tokens)
        tokens[row, :own], depths[row, :own] = tree.places
        sees[row, :own, :own] = tree.sees
    return tokens, depths, sees


def behind(
    prefix: Prefix, trees: Sequence[OptionTrie | Branches], *, dtype: torch.dtype
) -> tuple[Int[Tensor, "_ N"], Float[Tensor, "B 1 T _"], Int[Tensor, "B T"]]:
    """Nodes of each row's tree (one row of them where all rows share one), and the attention bias and positions of one pass over
    prefixes and nodes; what was read before is seen, and sees nothing more."""
    mask, positions = prefix.whole_mask, prefix.positions
    (batch, length), device = mask.shape, mask.device
    read = length - prefix.mask.shape[1]
    first = trees[0]
    if isinstance(first, OptionTrie) and all(tree is first for tree in trees) and prefix.has_no_gaps:
        # nothing is padded, so all rows share what does not depend on their messages
        tokens, depths = (part.to(device) for part in first.places)
        everywhere = torch.cat([positions[0], positions[0, -1:] + depths])[None].expand(batch, -1)
        return tokens[None], first.bias(length, dtype, device)[:, :, read:].expand(batch, -1, -1, -1), everywhere
    tokens, depths, sees = (part.to(device) for part in stacked(trees))
    total = length + tokens.shape[1]
    allowed = torch.zeros(batch, total, total, dtype=torch.bool, device=device)
    causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    allowed[:, :length, :length] = causal & mask[:, None, :]
    allowed[:, length:, :length] = mask[:, None, :]
    allowed[:, length:, length:] = sees
    # padding looks at itself: a row of the softmax without any entry would be NaN
    allowed |= torch.eye(total, dtype=torch.bool, device=device)
    allowed = allowed[:, read:]
    bias = torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)
    return tokens, bias[:, None], torch.cat([positions, positions[:, -1:] + depths], dim=1)


def build_branches(branches: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Branches:
    """Branches of (tokens of what is asked, tokens of its answer)."""
    tokens: list[int] = []
    depths: list[int] = []
    paths = []
    for asked, answer in branches:
        first = len(tokens)
        read = [*asked, *answer[:-1]]
        tokens += read
        depths += range(1, len(read) + 1)
        # node 0 is the root, which predicts the answer's first token where nothing is asked
        places = [first + len(asked) + step if len(asked) + step else 0 for step in range(len(answer))]
        paths.append(tuple(zip(places, answer, strict=True)))
    return Branches(tuple(tokens), tuple(depths), tuple(paths))


def build_trie(options: Sequence[Sequence[int]], end_id: int | None) -> OptionTrie:
    """The trie of tokenised options.

    Where one option is the beginning of another, every option of the row is closed by ``end_id``: without it the shorter
    one could never lose.
    """
    if end_id is not None and _has_prefix_pair(options):
        options = [[*option, end_id] for option in options]
    tokens: list[int] = []
    depths: list[int] = []
    ancestors: list[tuple[int, ...]] = []
    children: dict[tuple[int, int], int] = {}
    paths = []
    for option in options:
        node, path = 0, []
        for depth, token in enumerate(option):
            path.append((node, token))
            if depth == len(option) - 1:
                break
            child = children.get((node, token))
            if child is None:
                child = len(tokens) + 1
                children[node, token] = child
                tokens.append(token)
                depths.append(depth + 1)
                ancestors.append(ancestors[node - 1] + (node,) if node else ())
            node = child
        paths.append(tuple(path))
    return OptionTrie(tuple(tokens), tuple(depths), tuple(ancestors), tuple(paths))


def _has_prefix_pair(options: Sequence[Sequence[int]]) -> bool:
    ordered = sorted(tuple(option) for option in options)
    return any(longer[: len(shorter)] == shorter for shorter, longer in pairwise(ordered))
