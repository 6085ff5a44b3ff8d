"""Options as one token trie, so that all of them are scored in a single receiver pass.

Only inner nodes are fed to the model: a leaf is predicted by its parent and predicts nothing itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


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
