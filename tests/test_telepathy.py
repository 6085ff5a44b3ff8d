from __future__ import annotations

from pathlib import Path

import pytest

from latentwire import Telepathy
from latentwire.errors import ArtefactError, UsageError
from latentwire.models.nano.specs import NANO_SPECS
from latentwire.training.run import train_run
from tests.training.test_trainer import small_config


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Telepathy:
    folder = tmp_path_factory.mktemp("run")
    train_run(small_config(folder), cache_folder=tmp_path_factory.mktemp("cache"))
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
