"""What is looked for in a text, where it counts as found, and a measurement from its run to its file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from latentwire.analysis.message_views import nearest_ids, readable_ids
from latentwire.analysis.recall import Asker, RecallRequest, facts_of, measure_recall, share_found
from latentwire.analysis.recall_file import RecallPoint
from latentwire.errors import ArtefactError, DataError, UsageError
from latentwire.files import read_json
from latentwire.models.receiver import Receiver, load_receiver
from latentwire.models.soft_tokens import SoftTokens
from latentwire.report.recall import _rate, draw_recall
from latentwire.training.pretraining import control_tokens, prepare_texts
from latentwire.training.run import train_run
from tests.training.test_pretraining import small_config as stage_one_config
from tests.training.test_trainer import small_config

TEXT = "In 2019 Ann Lee sold 47 apples to the Bank of America for $1,200."
PLAIN = " ".join(f"the old man saw {day} boats and {3 * day} nets while Maria Silva waited near Lisbon ." for day in range(12, 400))


@pytest.fixture(scope="module")
def receiver() -> Receiver:
    return load_receiver("nano-mistral")


@pytest.fixture(scope="module")
def stage_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    train_run(stage_one_config(folder), prepare=prepare_texts)
    return folder / "stage1"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "boats.txt"
    path.write_text(PLAIN)
    return path


def test_numbers_and_entities_of_a_text() -> None:
    assert facts_of(TEXT, "numbers") == ["2019", "47", "$1,200"]
    assert facts_of(TEXT, "entities") == ["Ann Lee", "Bank of America"]


def test_a_fact_is_found_whole_or_not_at_all() -> None:
    assert share_found(["47", "Ann"], "Ann has 47.") == 1
    assert share_found(["47", "Ann"], "Anna has 147, or 4,700, or 47.5") == 0
    assert share_found(["47", "Ann"], "47 of them") == 0.5
    assert share_found(["$1,200"], "for $1,200") == 1
    assert share_found(["10", "30", "5", "12", "3"], "at 10:30, it is -5 on 12/03/2024, 1–3 km") == 0
    assert share_found(["5", "12"], "(5 of them, 12: a dozen)") == 1


def test_soft_tokens_that_are_embeddings_spell_their_words(receiver: Receiver) -> None:
    ids = receiver.tokenizer("Ann sold 47 red apples", add_special_tokens=False)["input_ids"]
    vectors = receiver.embed(torch.tensor(ids)).float()
    assert "47 red apples" in receiver.tokenizer.decode(nearest_ids(receiver, 3.0 * vectors, readable_ids(receiver)))


def test_the_texts_own_embeddings_read_like_the_text(receiver: Receiver) -> None:
    """A message of exactly the words is no worse than the words, asked in words or by control tokens."""
    texts = ["Ann sold 47 red apples", "Bob has 3 boats"]
    for control in (None, torch.randn(3, receiver.width, generator=torch.Generator().manual_seed(0)) * receiver.embedding_rms):
        asker = Asker(receiver, control)
        by_text = asker.of_texts(texts)
        without = receiver.prefix([asker.prompt]).embeddings.shape[1]
        for row, text in enumerate(texts):
            count = receiver.prefix([asker.prompt.with_text(text)]).embeddings.shape[1] - without
            # the begin-of-text token stands before the hole
            start = int(by_text.mask[row].int().argmax()) + 1
            vectors = by_text.embeddings[row : row + 1, start : start + count]
            own = asker.of_messages(SoftTokens(vectors, torch.ones(1, count, dtype=torch.bool)))
            assert torch.equal(own.embeddings[0], by_text.embeddings[row, start - 1 :])


def test_a_stage_one_is_asked_by_its_control_tokens(stage_one: Path, texts: Path) -> None:
    found = measure_recall(RecallRequest(stage_one, texts=[str(texts)], rows=6, most_tokens=16))
    assert read_json(stage_one / "recall.json", what="recall file") == found
    assert found["run"]["asked_by"] == "control tokens"
    message, shuffled, text = found["points"]
    assert [point["reader"] for point in found["points"]] == ["message", "shuffled", "text"]
    assert message["n"] == 6
    assert message["n_numbers"] > 0
    assert message["message_tokens"] == message["sender_tokens"]
    assert message["message_bytes"] == 4 * 160 * message["message_tokens"]
    assert text["numbers_spelled"] is None
    assert shuffled["nats_per_token"] != message["nats_per_token"]
    for point in found["points"]:
        assert point["nats_per_token"]["value"] > 0


def test_a_receiver_that_writes_the_text_recalls_all(stage_one: Path, texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Receiver, "generate", lambda self, prefix, **_: [" ".join(PLAIN.split())] * len(prefix.mask))
    found = measure_recall(RecallRequest(stage_one, texts=[str(texts)], rows=4, most_tokens=16, out=stage_one / "all"))
    for point in found["points"]:
        assert point["numbers_written"] is not None
        assert point["numbers_written"]["value"] == 1


def test_a_task_run_is_asked_in_words_about_its_own_contexts(tmp_path: Path) -> None:
    train_run(small_config(tmp_path, task="tinyworld_record1", training={"steps": 2, "batch_size": 4, "warmup_steps": 0}))
    found = measure_recall(RecallRequest(tmp_path, rows=5))
    assert found["run"]["asked_by"] == "words"
    assert {point["source"] for point in found["points"]} == {"tinyworld_record1"}
    # how the run was taught says nothing about what can be recalled
    config = tmp_path / "config.json"
    content = json.loads(config.read_text())
    content["config"]["variant"]["target"] = "solution"
    config.write_text(json.dumps(content))
    again = measure_recall(RecallRequest(tmp_path, texts=["tinyworld_record1"], rows=5, out=tmp_path / "again"))
    assert again["points"] == found["points"]


def test_the_legend_stands_below_whatever_the_first_source_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_run(small_config(tmp_path, task="tinyworld_topic", training={"steps": 2, "batch_size": 4, "warmup_steps": 0}))
    found = measure_recall(RecallRequest(tmp_path, rows=5))
    assert all(point["numbers_written"] is None for point in found["points"])
    shown: list[str] = []
    monkeypatch.setattr(Figure, "legend", lambda self, handles, labels, **settings: shown.extend(labels))
    draw_recall([found], tmp_path / "recall.png")
    assert len(shown) >= 3


def test_points_agree_with_their_types(stage_one: Path, texts: Path) -> None:
    found = measure_recall(RecallRequest(stage_one, texts=[str(texts)], rows=4, most_tokens=8, out=stage_one / "typed"))
    page = (Path(__file__).resolve().parents[2] / "docs" / "recall.md").read_text()
    for name in RecallPoint.__annotations__:
        assert all(name in point for point in found["points"])
        assert f"`{name}`" in page, name


def test_mistakes_are_named(stage_one: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--texts"):
        measure_recall(RecallRequest(stage_one))
    with pytest.raises(UsageError, match="rows = 1"):
        measure_recall(RecallRequest(stage_one, rows=1))
    with pytest.raises(ArtefactError, match="no run"):
        measure_recall(RecallRequest(tmp_path))
    with pytest.raises(DataError, match="no plain text"):
        measure_recall(RecallRequest(stage_one, texts=[str(tmp_path)]))
    (tmp_path / "notes.md").write_text("".join(f"On day {day} the ship was {7 * day} miles out.\n" for day in range(20_000)))
    measured = measure_recall(RecallRequest(stage_one, texts=[str(tmp_path / "notes.md")], rows=4, out=tmp_path / "recalled"))
    assert len(measured["points"]) == 3
    (tmp_path / "notes.md").unlink()
    (tmp_path / "control_tokens.safetensors").write_bytes(b"cut")
    with pytest.raises(ArtefactError, match="pretrain the bridge again"):
        control_tokens(tmp_path, "repeat")


def test_what_the_receiver_reads_itself_stands_at_the_rate_of_its_own_run() -> None:
    def points(tokens: float) -> list[RecallPoint]:
        readers = (("message", tokens), ("shuffled", tokens), ("text", 10.0))
        return [{"reader": reader, "message_tokens": size, "sender_tokens": 20.0} for reader, size in readers]  # type: ignore[typeddict-item]

    both = [*points(20.0), *points(10.0)]
    assert [_rate(both, point) for point in both] == [1.0] * 3 + [0.5] * 3
