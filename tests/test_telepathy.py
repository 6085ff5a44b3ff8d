from __future__ import annotations

from pathlib import Path

import pytest
import torch

from latentwire import Message, Telepathy
from latentwire.errors import ArtefactError, MismatchError, UsageError
from latentwire.models.nano.specs import NANO_SPECS
from latentwire.models.soft_tokens import SoftTokens
from latentwire.training.run import train_run
from tests.training.test_trainer import small_config


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Telepathy:
    folder = tmp_path_factory.mktemp("run")
    train_run(small_config(folder))
    return Telepathy.from_pretrained(folder / "bridge", device="cpu")


TEXTS = ["Maria left 47 apples in Lisbon.", "In Oakville, Tomas has 12 red boats and more."]


def test_a_message_is_sent_once_and_asked_often(wire: Telepathy) -> None:
    message = wire.send(TEXTS)
    assert len(message) == 2
    assert message.soft_tokens[1] > message.soft_tokens[0]  # one soft token per two sender tokens
    assert message.message_bytes == [count * NANO_SPECS["nano-mistral"].hidden_size * 4 for count in message.soft_tokens]
    both = wire.ask(message, ["How many apples?", "Who has the boats?"])
    assert both[0] == wire.ask(wire.send(TEXTS[:1]), ["How many apples?"])[0]
    assert len(wire.ask(message, ["How many?"])) == 2


def test_wrong_numbers_of_questions_are_refused(wire: Telepathy) -> None:
    with pytest.raises(UsageError, match="2 contexts were sent, 3 questions asked"):
        wire.ask(wire.send(TEXTS), ["a?", "b?", "c?"])


def test_a_bare_string_is_not_taken_for_a_list_of_texts(wire: Telepathy) -> None:
    with pytest.raises(UsageError, match="list of texts"):
        wire.send("Maria left 47 apples in Lisbon.")


def test_a_missing_bridge_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="make demo"):
        Telepathy.from_pretrained(tmp_path / "nothing")


def test_messages_of_two_senders_are_read_one_behind_the_other(wire: Telepathy) -> None:
    left, right = (wire.send([text, text + " It is late."]) for text in ("Maria left 47 apples in Lisbon.", "Tom has 12 chairs."))
    both = Message.joined([left, right])
    assert both.message_bytes == [a + b for a, b in zip(left.message_bytes, right.message_bytes, strict=True)]
    assert both.packed == [a + b for a, b in zip(left.packed, right.packed, strict=True)]
    assert both.soft_tokens == [a + b for a, b in zip(left.soft_tokens, right.soft_tokens, strict=True)]
    for row in range(2):
        own = [message.soft.vectors[row][message.soft.mask[row]] for message in (left, right)]
        assert torch.equal(both.soft.vectors[row][both.soft.mask[row]], torch.cat(own))
    assert len(wire.ask(both, ["How many chairs?"])) == 2


def test_verbatim_text_of_two_senders_stands_behind_all_soft_tokens() -> None:
    def soft(*texts: str) -> SoftTokens:
        return SoftTokens(torch.zeros(2, 1, 4), torch.ones(2, 1, dtype=torch.bool), texts)

    assert SoftTokens.joined([soft("47", ""), soft("12", "Oslo")]).verbatim == ("47 12", "Oslo")
    assert SoftTokens.joined([soft(), soft("12", "")]).verbatim == ("12", "")
    assert SoftTokens.joined([soft(), soft()]).verbatim == ()


def test_messages_that_do_not_go_together_are_refused(wire: Telepathy) -> None:
    one, two = wire.send(["Tom has 12 chairs."]), wire.send(["Tom has 12 chairs.", "Maria left."])
    with pytest.raises(MismatchError, match=r"differ in rows \(1, 2\) cannot be joined"):
        Message.joined([one, two])
    narrow = SoftTokens(torch.zeros(1, 1, 4), torch.ones(1, 1, dtype=torch.bool))
    with pytest.raises(MismatchError, match=r"differ in width \(4, 160\)"):
        SoftTokens.joined([one.soft, narrow])
    with pytest.raises(UsageError, match="at least one message"):
        Message.joined([])
