"""Messages of a real receiver: verbatim text in its place, what surprises it, and what a message weighs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from latentwire.errors import ConfigError, UnknownNameError
from latentwire.messages.channel import Channel
from latentwire.messages.settings import MessageSettings, as_precision
from latentwire.messages.surprise import Word, within_budget, word_surprises
from latentwire.models.receiver import Receiver, load_receiver
from latentwire.models.soft_tokens import SoftTokens
from latentwire.models.tokens import encode_plain
from latentwire.prompts import Prompt
from latentwire.schema import validated

TEXTS = ["Maria left 47 apples in Lisbon.", "the film was dull", "In Oakville, Tomas has 12 red boats."]
SPANS = ("Maria; 47; Lisbon", "", "Oakville; Tomas; 12")
ASKED = Prompt("Note: ", "\nQuestion: How many?\nAnswer:")


@pytest.fixture(scope="module")
def chatting(family_folder: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Receiver:
    """A receiver with a chat template."""
    import shutil

    folder = tmp_path_factory.mktemp("chat") / "mistral"
    shutil.copytree(family_folder["mistral"], folder)
    turns = "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}\n{% endfor %}"
    template = turns + "{% if add_generation_prompt %}<assistant>{% endif %}"
    (folder / "chat_template.jinja").write_text(template)
    return load_receiver(str(folder), device="cpu")


def soft_of(receiver: Receiver, rows: int = 3) -> SoftTokens:
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(4)[None] < torch.tensor([4, 2, 3])[:rows, None]
    return SoftTokens(torch.randn(rows, 4, receiver.width, generator=generator) * 0.1 * mask[..., None], mask)


@pytest.mark.parametrize("which", ["receiver", "chatting"])
def test_verbatim_text_stands_directly_behind_the_soft_tokens(which: str, request: pytest.FixtureRequest) -> None:
    reader: Receiver = request.getfixturevalue(which)
    soft = soft_of(reader)
    message = SoftTokens(soft.vectors, soft.mask, SPANS)
    prefix = reader.prefix([ASKED] * 3, message)
    before, after = reader.prompter.prefix_ids(ASKED)
    for row, text in enumerate(SPANS):
        own = prefix.embeddings[row][prefix.mask[row]]
        expected = torch.cat(
            [
                reader.embed(torch.tensor(before)),
                soft.vectors[row][soft.mask[row]],
                reader.embed(torch.tensor(encode_plain(reader.tokenizer, text) if text else [], dtype=torch.long)),
                reader.embed(torch.tensor(after)),
            ]
        )
        torch.testing.assert_close(own, expected)
    if which == "chatting":
        assert "<user> Note: " in reader.tokenizer.decode(before)


def test_rows_of_a_batch_keep_their_own_text(receiver: Receiver) -> None:
    message = SoftTokens(soft_of(receiver).vectors, soft_of(receiver).mask, SPANS)
    assert message[1:].verbatim == SPANS[1:]
    assert message[torch.tensor([2, 0])].verbatim == (SPANS[2], SPANS[0])
    shifted = message.shifted()
    assert shifted.verbatim == (SPANS[2], SPANS[0], SPANS[1])
    assert torch.equal(shifted.vectors[0], message.vectors[2])
    assert soft_of(receiver)[torch.tensor([1])].verbatim == ()


@pytest.mark.parametrize("precision", ["auto", "bf16", "int8", "int4"])
def test_a_message_weighs_its_packed_soft_tokens_and_its_text(receiver: Receiver, precision: str) -> None:
    soft = soft_of(receiver)
    channel = Channel(MessageSettings(precision=as_precision(precision), verbatim="rules"), receiver)
    sent = channel.deliver(channel.written(soft, TEXTS))
    per_token = {"auto": 640, "bf16": 320, "int8": 164, "int4": 84}[precision]
    assert sent.verbatim == SPANS
    assert sent.message_bytes == tuple(count * per_token + len(text.encode()) for count, text in zip((4, 2, 3), SPANS, strict=True))
    words = [len(encode_plain(receiver.tokenizer, text)) if text else 0 for text in SPANS]
    assert sent.message_tokens == (4 + words[0], 2, 3 + words[2])
    if precision == "auto":
        assert torch.equal(sent.soft.vectors, soft.vectors)


def test_off_sends_soft_tokens_alone(receiver: Receiver) -> None:
    channel = Channel(MessageSettings(), receiver)
    sent = channel.deliver(channel.written(soft_of(receiver), TEXTS))
    assert sent.soft.verbatim == ()
    assert sent.verbatim == ("", "", "")
    assert sent.message_tokens == (4, 2, 3)


def test_a_receiver_in_bfloat16_gets_bfloat16() -> None:
    receiver = load_receiver("nano-mistral", device="cpu", dtype="bfloat16")
    channel = Channel(MessageSettings(verbatim="budget"), receiver)
    sent = channel.deliver(channel.written(soft_of(receiver), TEXTS))
    assert sent.form == "bf16"
    assert [len(part) for part in sent.packed] == [count * 320 for count in (4, 2, 3)]
    assert all(sent.verbatim)
    assert receiver.prefix([ASKED] * 3, sent.soft).embeddings.dtype == torch.bfloat16


def test_training_and_sending_agree(receiver: Receiver) -> None:
    for settings in (MessageSettings(precision="int4", verbatim="rules"), MessageSettings(verbatim="budget", verbatim_bytes=9)):
        channel = Channel(settings, receiver)
        taught = channel.taught(soft_of(receiver), TEXTS)
        assert channel.taught(soft_of(receiver), TEXTS).verbatim == taught.verbatim  # the second time from memory
        sent = channel.deliver(channel.written(soft_of(receiver), TEXTS)).soft
        assert taught.verbatim == sent.verbatim
        torch.testing.assert_close(taught.vectors, sent.vectors)


# ---------------------------------------------------------------------------------------------------------------- surprise


def test_surprise_of_words_adds_up_to_that_of_the_text(receiver: Receiver) -> None:
    text = "Maria left 47 apples in Lisbon"
    words = word_surprises(receiver, [text, *TEXTS])[0]
    assert [text[word.start : word.end] for word in words] == text.split()
    ids = [encode_plain(receiver.tokenizer, text)]
    start = receiver.prefix([Prompt("", "")])
    log_probs, _ = receiver.answer_log_probs(start, ids)
    assert sum(word.nats for word in words) == pytest.approx(-float(log_probs.sum()), rel=1e-4)


def test_surprise_does_not_depend_on_the_batch(receiver: Receiver) -> None:
    together = word_surprises(receiver, TEXTS)
    for text, words in zip(TEXTS, together, strict=True):
        alone = word_surprises(receiver, [text])[0]
        assert [(word.start, word.end) for word in alone] == [(word.start, word.end) for word in words]
        assert [word.nats for word in alone] == pytest.approx([word.nats for word in words], abs=1e-3)


def test_names_and_numbers_surprise_more_than_function_words(receiver: Receiver) -> None:
    words = {TEXTS[0][word.start : word.end]: word.nats for word in word_surprises(receiver, TEXTS)[0]}
    assert min(words["47"], words["Lisbon"], words["Maria"]) > words["in"]


def test_a_text_longer_than_a_window_is_read_in_several(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentwire.messages.surprise.MOST_TOKENS", 6)
    words = word_surprises(receiver, TEXTS)
    assert [len(row) for row in words] == [6, 4, 7]
    assert all(word.nats > 0 for row in words for word in row)


@pytest.mark.parametrize(
    ("most_bytes", "expected"),
    [
        (1, []),
        (2, ["47"]),
        (5, ["Maria"]),
        (9, ["Maria; 47"]),
        (17, ["Maria; 47; Lisbon"]),
        (100, ["Maria left 47 apples in Lisbon"]),
    ],
)
def test_the_budget_is_filled_by_surprise_and_kept_in_the_order_of_the_text(most_bytes: int, expected: list[str]) -> None:
    text = "Maria left 47 apples in Lisbon."
    nats = {"Maria": 9.0, "left": 1.0, "47": 8.0, "apples": 2.0, "in": 0.5, "Lisbon": 7.0}
    words = [Word(text.index(word), text.index(word) + len(word), value) for word, value in nats.items()]
    spans = within_budget(text, words, most_bytes)
    assert ["; ".join(spans)] == (expected or [""])
    assert len("; ".join(spans).encode()) <= most_bytes


@pytest.mark.parametrize("most_bytes", [1, 8, 40])
def test_budgets_hold_in_bytes_not_characters(receiver: Receiver, most_bytes: int) -> None:
    channel = Channel(MessageSettings(verbatim="budget", verbatim_bytes=most_bytes), receiver)
    texts = ["Zoë Ångström paid 12 € in Köln for ß.", *TEXTS, "?!"]
    for text in channel.verbatim(texts):
        assert len(text.encode()) <= most_bytes


# ---------------------------------------------------------------------------------------------------------------- settings


def test_a_bare_off_in_yaml_means_off() -> None:
    assert MessageSettings.model_validate({"verbatim": False}).verbatim == "off"
    with pytest.raises(ConfigError, match="verbatim = True does not fit"):
        validated(MessageSettings, {"verbatim": True}, where="message")


def test_a_limit_that_would_be_ignored_is_refused() -> None:
    with pytest.raises(ConfigError, match="verbatim_bytes = 8 limits verbatim=budget only, and verbatim is rules"):
        validated(MessageSettings, {"verbatim": "rules", "verbatim_bytes": 8}, where="message")


def test_labels_say_what_differs_from_the_default() -> None:
    assert MessageSettings().suffix == ""
    assert MessageSettings(precision="int8", verbatim="budget", verbatim_bytes=9).suffix == "+budget9@int8"


def test_an_unknown_precision_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean int8"):
        as_precision("in8")


def test_old_artefacts_load_and_new_ones_keep_their_settings(tmp_path: Path) -> None:
    import json

    from latentwire.bridges import bridge_config
    from latentwire.bridges.base import Bridge, BridgeEnds
    from latentwire.errors import ConfigError

    bridge = bridge_config({"name": "linear"}).build(BridgeEnds(sender_width=4, receiver_width=5, receiver_rms=0.1))
    bridge.message = MessageSettings(precision="int4", verbatim="rules")
    bridge.save_pretrained(tmp_path)
    assert Bridge.from_pretrained(tmp_path).message == bridge.message
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in content.items() if key != "message"}))
    assert Bridge.from_pretrained(tmp_path).message == MessageSettings()
    path.write_text(json.dumps(content | {"message": {"precision": "int3"}}))
    with pytest.raises(ConfigError, match=r"config.json: message: precision = 'int3' does not fit"):
        Bridge.from_pretrained(tmp_path)
