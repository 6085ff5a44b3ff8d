from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from latentwire.models.trie import OptionTrie, build_trie

END = 99
OPTION_SETS = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=5), min_size=1, max_size=8)


def spelled(trie: OptionTrie, option: int) -> list[int]:
    return [token for _, token in trie.paths[option]]


@given(options=OPTION_SETS)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_every_path_reads_its_option_through_its_own_nodes(options: list[list[int]]) -> None:
    trie = build_trie(options, END)
    closed = spelled(trie, 0)[-1] == END
    for number, option in enumerate(options):
        assert spelled(trie, number) == ([*option, END] if closed else option)
        nodes = [node for node, _ in trie.paths[number]]
        assert nodes[0] == 0
        for depth, node in enumerate(nodes[1:], start=1):
            assert trie.tokens[node - 1] == option[depth - 1]
            assert trie.depths[node - 1] == depth
            assert trie.ancestors[node - 1] == tuple(nodes[1:depth])


@given(options=OPTION_SETS)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_shared_beginnings_are_read_once_and_leaves_never(options: list[list[int]]) -> None:
    trie = build_trie(options, END)
    spelt = [spelled(trie, number) for number in range(len(options))]
    inner = {tuple(tokens[:length]) for tokens in spelt for length in range(1, len(tokens))}
    assert len(trie.tokens) == len(trie.depths) == len(trie.ancestors) == len(inner)


@given(options=OPTION_SETS)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_no_option_can_win_by_being_the_beginning_of_another(options: list[list[int]]) -> None:
    spelt = {tuple(spelled(build_trie(options, END), number)) for number in range(len(options))}
    assert len(spelt) == len({tuple(option) for option in options})
    assert not any(a != b and b[: len(a)] == a for a in spelt for b in spelt)


def test_single_token_options_need_no_node() -> None:
    trie = build_trie([[5], [7], [9]], END)
    assert trie == OptionTrie((), (), (), (((0, 5),), ((0, 7),), ((0, 9),)))


def test_options_without_a_shared_beginning_are_not_closed() -> None:
    assert [spelled(build_trie([[1, 2], [1, 3]], END), number) for number in (0, 1)] == [[1, 2], [1, 3]]


def test_beginning_of_another_option_closes_all_of_them() -> None:
    trie = build_trie([[1], [1, 2], [3]], END)
    assert [spelled(trie, number) for number in range(3)] == [[1, END], [1, 2, END], [3, END]]


def test_tokenizer_without_an_end_token_leaves_options_as_they_are() -> None:
    assert [spelled(build_trie([[1], [1, 2]], None), number) for number in (0, 1)] == [[1], [1, 2]]


@given(options=st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=6), min_size=1, max_size=40), count=st.integers(1, 9))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_pieces_of_a_trie_hold_every_option_once_and_are_alike_in_size(options: list[list[int]], count: int) -> None:
    trie = build_trie(options, END)
    if not trie.tokens:
        count = 1
    pieces = trie.cut(count)
    assert sorted(option for chosen, _ in pieces for option in chosen) == list(range(len(options)))
    for chosen, piece in pieces:
        assert [spelled(piece, place) for place in range(len(chosen))] == [spelled(trie, option) for option in chosen]
        # the first and the last option of a piece may lead over its borders
        assert len(piece.tokens) <= len(trie.tokens) / count + 2 * 6
    assert 1 <= len(pieces) <= count
    assert trie.cut(1) == ((tuple(range(len(options))), trie),)
