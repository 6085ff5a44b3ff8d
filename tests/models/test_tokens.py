from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from latentwire.data.tinyworld.lexicon import SYMBOLS
from latentwire.data.tinyworld.rows import generate_rows
from latentwire.data.tinyworld.scenes import SCENES
from latentwire.models.source import resolve
from latentwire.models.tokens import continuation_ids, encode_plain, leading_ids, pad_right

NANO = ("nano-llama", "nano-mistral")
TOKENIZERS = {name: resolve(name).tokenizer for name in NANO}
PROMPTS = ("\nQuestion: How many apples?\nAnswer:", "Request:", "The code is", "Maria says:\n", "x")
ANSWERS = (" Lisbon", " 47", " lost card", " 12 + 3 = 15. Answer: 15", " 4 k 9 z", " science", " Zürich", " reverted card payment?")
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C"), exclude_characters="▁"), min_size=1, max_size=12)


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("name", NANO)
def test_answer_tokens_are_those_of_the_whole_text(name: str, prompt: str, answer: str) -> None:
    tokenizer = TOKENIZERS[name]
    added = continuation_ids(tokenizer, prompt, answer)
    assert [*encode_plain(tokenizer, prompt), *added] == encode_plain(tokenizer, prompt + answer)
    assert tokenizer.decode(added).strip() == answer.strip()


@pytest.mark.parametrize("name", NANO)
def test_answer_that_would_melt_into_the_prompt_is_cut_alone(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    assert encode_plain(tokenizer, "apples") != [*encode_plain(tokenizer, "app"), *encode_plain(tokenizer, "les")]
    assert continuation_ids(tokenizer, "app", "les") == encode_plain(tokenizer, "les")


@pytest.mark.parametrize("symbol", SYMBOLS)
@pytest.mark.parametrize("name", NANO)
def test_every_code_symbol_is_one_token(name: str, symbol: str) -> None:
    tokenizer = TOKENIZERS[name]
    alone = encode_plain(tokenizer, symbol)
    assert len(alone) == 1
    assert encode_plain(tokenizer, f"The code is {symbol} {symbol}") == [*encode_plain(tokenizer, "The code is"), *alone, *alone]


@pytest.mark.parametrize("kind", SCENES)
@pytest.mark.parametrize("name", NANO)
def test_tiny_world_text_cut_at_white_space_gives_the_tokens_of_its_parts(name: str, kind: str) -> None:
    tokenizer = TOKENIZERS[name]
    for row in generate_rows(kind, "test", 20):
        text = f"{row['context']} {row['question']} {row['answer']}"
        parts = [token for word in text.split() for token in encode_plain(tokenizer, word)]
        assert encode_plain(tokenizer, text) == parts


@pytest.mark.parametrize("name", NANO)
@given(left=WORDS, right=WORDS, space=st.sampled_from([" ", "\n"]))
@example(left="naïve", right="(Reuters)", space=" ")
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_two_words_give_the_tokens_of_their_parts(name: str, left: str, right: str, space: str) -> None:
    tokenizer = TOKENIZERS[name]
    # behind a line break the second word keeps the break and has no space of its own
    second = right if space == " " else space + right
    assert encode_plain(tokenizer, left + space + right) == [*encode_plain(tokenizer, left), *encode_plain(tokenizer, second)]


@pytest.mark.parametrize("text", ["Maria left 47 apples.", "two\nlines", "Zürich 東京 🍎", "a  b", "<0x41> x", "tab\there"])
@pytest.mark.parametrize("name", NANO)
def test_text_comes_back_as_it_was(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    assert tokenizer.decode(encode_plain(tokenizer, text)) == text


@pytest.mark.parametrize("name", NANO)
def test_only_the_begin_of_text_token_stands_before_a_text(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    assert leading_ids(tokenizer) == [tokenizer.bos_token_id]
    assert tokenizer("47 apples")["input_ids"] == [tokenizer.bos_token_id, *encode_plain(tokenizer, "47 apples")]


def test_padding_stands_at_the_end_under_a_false_mask() -> None:
    ids, mask = pad_right([[5, 6, 7], [8]], 0, torch.device("cpu"))
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[True, True, True], [True, False, False]]
