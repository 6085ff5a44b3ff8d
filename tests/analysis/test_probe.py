from __future__ import annotations

from pathlib import Path

import pytest
import torch

from latentwire.analysis.capacity.codes import Wording, load_alphabet
from latentwire.analysis.capacity.probe import SenderProbe, symbol_tokens, training_codes
from latentwire.errors import ModelError
from latentwire.models.sender import Sender, load_sender
from latentwire.models.source import resolve

WORDING, ALPHABET = Wording(), load_alphabet("digits")


@pytest.fixture(scope="module")
def sender() -> Sender:
    return load_sender("nano-llama", layer=2, device="cpu")


@pytest.fixture(scope="module")
def probe(sender: Sender) -> SenderProbe:
    return SenderProbe(sender, WORDING, ALPHABET, training_codes(ALPHABET, (2, 8), seed=99))


def test_what_is_in_the_states_is_read(probe: SenderProbe) -> None:
    read = probe.read(ALPHABET.draw(8, 20))
    assert sum(one.exact for one in read) >= 18
    whole = 8 * ALPHABET.bits_per_symbol
    assert all(0.9 * whole < one.bits <= whole for one in read)


def test_what_is_not_there_is_not(probe: SenderProbe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same probe, with the states of other codes, reads those: bits of the codes asked for fall below nothing."""
    codes = ALPHABET.draw(8, 20)
    states = probe._states
    monkeypatch.setattr(probe, "_states", lambda asked: states([*asked[1:], asked[0]]))
    read = probe.read(codes)
    assert sum(one.bits for one in read) < 0
    assert not any(one.exact for one in read)


def test_symbols_that_nothing_was_learned_about_are_guessed_wrong(sender: Sender) -> None:
    probe = SenderProbe(sender, WORDING, ALPHABET, [("0", "1"), ("1", "0")])
    read = probe.read([("7",)])[0]
    assert not read.exact
    assert read.bits < 0


def test_every_symbol_is_found_in_its_tokens(sender: Sender) -> None:
    code = ("lamp", "7", "zebra", "lamp")
    text = WORDING.context(code)
    ids, skip = sender.prompter.context_ids([text])
    places = symbol_tokens(sender, text, WORDING.spans(code))
    spelled = [sender.tokenizer.decode(ids[0][skip:][first : last + 1]).strip() for first, last in places]
    assert spelled == list(code)
    assert any(first < last for first, last in places)


def test_words_of_several_tokens(sender: Sender, tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("zebra\nquilt\nlamp\nfjord\n")
    words = load_alphabet(str(path))
    probe = SenderProbe(sender, WORDING, words, training_codes(words, (2, 4), seed=99))
    assert not probe.one_token_each
    assert sum(one.exact for one in probe.read(words.draw(4, 10))) >= 9


def test_symbols_are_found_inside_a_chat_template(family_folder: dict[str, str], tmp_path: Path) -> None:
    from shutil import copytree

    folder = tmp_path / "chat"
    copytree(family_folder["llama"], folder)
    tokenizer = resolve("nano-llama").tokenizer
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}"
    tokenizer.save_pretrained(folder)
    sender = load_sender(str(folder), layer=1, device="cpu", prompt_style="chat")
    code = ("7", "zebra", "0")
    text = WORDING.context(code)
    ids, skip = sender.prompter.context_ids([text])
    places = symbol_tokens(sender, text, WORDING.spans(code))
    own = ids[0][skip:]
    assert sender.read([text]).states.shape[1] == len(own)
    assert [sender.tokenizer.decode(own[first : last + 1]).strip() for first, last in places] == list(code)


def test_a_tokenizer_that_does_not_tell_is_refused(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(sender.tokenizer), "is_fast", False)
    with pytest.raises(ModelError, match="leave the probe out with --no-place"):
        symbol_tokens(sender, WORDING.context(("a",)), WORDING.spans(("a",)))


def test_the_probe_learns_from_about_as_many_symbols_whatever_the_lengths() -> None:
    for lengths in ((1,), (8, 24), (1, 2, 4, 8, 16, 24, 32)):
        codes = training_codes(ALPHABET, lengths, seed=1)
        assert {len(code) for code in codes} == set(lengths)
        assert 500 <= sum(map(len, codes)) <= 600
    assert torch.is_grad_enabled()
