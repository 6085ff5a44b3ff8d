from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from latentwire.data.readers import GENERATED_ROWS, TaskRows, count_overlap, read_one, read_task
from latentwire.data.task import load_task
from latentwire.errors import DataError, LatentWireError, UnknownNameError, UsageError
from tests.data.writing import own_task, write_rows, write_task

ROWS = [{"text": f"row number {number}", "label": number % 2} for number in range(200)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_rows(tmp_path, ROWS, "train")
    write_rows(tmp_path, ROWS[:20], "test")
    return tmp_path


def read(folder: Path, split: str, max_rows: int | None = None, seed: int = 0, **changes: Any) -> TaskRows:
    return read_task(own_task(folder, **changes), split, data_dir=folder, max_rows=max_rows, seed=seed)


def texts(rows: TaskRows) -> list[str]:
    return [example.sender_prompt for example in rows.examples]


def test_validation_is_cut_from_train_without_overlap_or_loss(folder: Path) -> None:
    train, validation = texts(read(folder, "train")), texts(read(folder, "validation"))
    assert len(validation) == 20
    assert sorted(train + validation) == sorted(f"Text: {row['text']}" for row in ROWS)


def test_validation_is_the_same_whatever_the_seed(folder: Path) -> None:
    assert texts(read(folder, "validation", seed=1)) == texts(read(folder, "validation", seed=2))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_fewer_rows_come_from_the_same_side_of_the_cut(folder: Path, split: str) -> None:
    whole = texts(read(folder, split))
    few = read(folder, split, max_rows=7, seed=3)
    assert len(few.examples) == 7
    assert set(texts(few)) < set(whole)
    assert not few.complete
    assert texts(few) == texts(read(folder, split, max_rows=7, seed=3))
    assert texts(few) != texts(read(folder, split, max_rows=7, seed=4))


def test_more_rows_extend_fewer_rows(folder: Path) -> None:
    assert texts(read(folder, "train", max_rows=20))[:7] == texts(read(folder, "train", max_rows=7))


def test_asking_for_more_rows_than_there_are_gives_all(folder: Path) -> None:
    assert texts(read(folder, "test", max_rows=1000)) == texts(read(folder, "test"))
    assert read(folder, "test", max_rows=1000).complete


def test_ids_stay_with_their_rows(folder: Path) -> None:
    whole = {example.id: example.sender_prompt for example in read(folder, "train").examples}
    assert len(whole) == 180
    assert all(whole[example.id] == example.sender_prompt for example in read(folder, "train", max_rows=9).examples)


def test_named_validation_split_is_read_and_train_stays_whole(folder: Path) -> None:
    write_rows(folder, [{"text": "held back", "label": 0}], "dev")
    splits = {"validation": "dev"}
    assert texts(read(folder, "validation", splits=splits)) == ["Text: held back"]
    assert len(read(folder, "train", splits=splits).examples) == 200


BLOCKS = {"test": "test", "blocks": [0.5, 0.1, 0.4]}


def test_without_a_train_split_the_test_split_is_cut_into_contiguous_blocks(folder: Path) -> None:
    (folder / "mine" / "train.jsonl").unlink()
    blocks = {split: read(folder, split, splits=BLOCKS) for split in ("train", "validation", "test")}
    assert [text for rows in blocks.values() for text in texts(rows)] == [f"Text: {row['text']}" for row in ROWS[:20]]
    assert [len(rows.examples) for rows in blocks.values()] == [10, 2, 8]
    assert all(rows.complete for rows in blocks.values())
    assert blocks["test"].note == "rows 12-19 of the 20 in 'test': no train split here, so it is cut into blocks"


def test_blocks_are_not_used_where_there_is_a_train_split(folder: Path) -> None:
    assert len(read(folder, "test", splits=BLOCKS).examples) == 20
    assert len(read(folder, "train", splits=BLOCKS).examples) == 180


def test_rows_say_where_a_split_that_is_not_the_sources_comes_from(folder: Path) -> None:
    assert read(folder, "test").note == ""
    assert read(folder, "validation").note == "20 of the 200 rows of 'train': validation is cut from it by a seeded rule"
    assert read(folder, "train", splits={"validation": "test"}).note == ""


def test_overlap_counts_test_rows_that_stand_in_train_whatever_their_case_and_punctuation(folder: Path) -> None:
    write_rows(folder, [{"text": text, "label": 0} for text in ("Row number 3!", "row  NUMBER 3", "row number 33x")], "test")
    assert count_overlap(read(folder, "test").examples[:1], read(folder, "test").examples) == 2
    assert count_overlap([], read(folder, "test").examples) == 0


def test_compressed_rows_read_like_plain_ones(folder: Path) -> None:
    plain = texts(read(folder, "test"))
    path = folder / "mine" / "test.jsonl"
    (folder / "mine" / "test.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert texts(read(folder, "test")) == plain


def test_unicode_line_separators_inside_a_text_are_no_line_ends(folder: Path) -> None:
    text = "one\u2028two\x85three"
    (folder / "mine" / "test.jsonl").write_text(
        json.dumps({"text": text, "label": 0}, ensure_ascii=False) + "\r\n\n", encoding="utf-8", newline=""
    )
    assert texts(read(folder, "test")) == [f"Text: {text}"]


def test_revision_follows_the_content(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    write_rows(other, ROWS[:19], "test")
    again = tmp_path_factory.mktemp("again")
    write_rows(again, ROWS[:20], "test")
    assert read(folder, "test").revision == read(again, "test").revision != read(other, "test").revision


@pytest.mark.parametrize("split", ["train", "test"])
def test_generated_rows_follow_the_seed_and_may_be_any_number(split: str) -> None:
    task = load_task("tinyworld_topic")
    few, more = (texts(read_task(task, split, max_rows=count, seed=1)) for count in (5, 40))
    assert more[:5] == few
    assert few != texts(read_task(task, split, max_rows=5, seed=2))
    assert len(read_task(task, "validation").examples) == GENERATED_ROWS["validation"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b'{"text": "a", "label": 0}\n' * 50)[:-12], r"test.jsonl.gz' is cut or corrupt"),
        (gzip.compress(b'{"text": "a", "label": 0}\n')[:10] + b"\xff" * 30, r"test.jsonl.gz' is cut or corrupt"),
        (b'{"text": "a", "label": 0}\n', r"test.jsonl.gz' is cut or corrupt"),
        (gzip.compress(b'{"a": 1}\n\xff\xfe'), r"test.jsonl.gz', line 2: not UTF-8; save the file as UTF-8$"),
        (gzip.compress(b'{"text": "a", "label": 0}\n{"text": \n'), r"test.jsonl.gz', line 2: not JSON"),
        (gzip.compress(b"[1, 2]\n"), r"test.jsonl.gz', line 1: not a JSON object"),
        (gzip.compress(b""), r"task 'mine': split 'test' has no rows$"),
    ],
    ids=["cut", "corrupt", "not compressed", "not UTF-8", "not JSON", "not an object", "no rows"],
)
def test_broken_file_is_one_line_that_names_it(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "test.jsonl.gz").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, "test")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1


def test_missing_data_folder_is_named(tmp_path: Path) -> None:
    task = own_task(tmp_path)
    with pytest.raises(DataError, match=r"^task 'mine': no folder '.*absent/mine'; --data_dir '.*absent' does not exist$"):
        read_task(task, "test", data_dir=tmp_path / "absent")


def test_missing_set_lists_what_is_there(tmp_path: Path) -> None:
    for name in ("sst2", "trec"):
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=r"^task 'mine': no folder '.*/mine'; --data_dir holds: sst2, trec$"):
        read(tmp_path, "test")


def test_missing_split_lists_what_is_there(folder: Path) -> None:
    (folder / "mine" / "test.jsonl").unlink()
    with pytest.raises(DataError, match=r"holds neither test.jsonl nor test.jsonl.gz; it holds train.jsonl$"):
        read(folder, "test")


def test_local_task_without_a_data_folder_asks_for_it(folder: Path) -> None:
    with pytest.raises(DataError, match=r"^task 'mine' reads local files; give their folder with --data_dir$"):
        read_task(own_task(folder), "test")


def test_hub_task_without_network_says_what_to_do(tmp_path: Path) -> None:
    task = load_task(str(write_task(tmp_path, source={"hub": "latentwire-tests/absent"})))
    with pytest.raises(DataError, match=r"cannot be loaded from the Hub .*give local rows with --data_dir") as caught:
        read_task(task, "test")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, '["no", '])
def test_label_names_that_cannot_be_read_are_named(folder: Path, content: str | None) -> None:
    if content is not None:
        (folder / "mine" / "names.json").write_text(content)
    with pytest.raises(DataError, match=r"^task 'mine': label names '.*names.json' are (missing|not JSON)"):
        read(folder, "test", options={"label_names": "names.json"})


@pytest.mark.parametrize(
    ("split", "max_rows", "error", "message"),
    [
        ("tests", None, UnknownNameError, r"^unknown split 'tests'; did you mean test\?"),
        ("test", 0, UsageError, r"^at most 0 rows does not fit; give 1 or more"),
    ],
)
def test_request_that_makes_no_sense_is_refused(
    folder: Path, split: str, max_rows: int | None, error: type[LatentWireError], message: str
) -> None:
    with pytest.raises(error, match=message):
        read(folder, split, max_rows)


def test_unknown_generator_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"^unknown tiny-world generator 'record4'; did you mean record"):
        read_task(own_task(tmp_path, source={"generated": "record4"}), "test")


ASKED = {
    "sender_prompt": "{text}", "receiver_prompt": "{message}\nQuestion: {question}", "limits": {"cut": "text"},
    "receiver_prompt_aware": "{text}{message}\nQuestion: {question}",
}  # fmt: skip


@pytest.mark.parametrize("blocks", [False, True])
def test_rows_about_one_passage_stand_in_one_split(tmp_path: Path, blocks: bool) -> None:
    asked = [{"text": f"passage {number // 4}", "question": str(number), "label": 0} for number in range(202)]
    write_rows(tmp_path, asked, "test" if blocks else "train")
    changes = ASKED | ({"splits": {"blocks": [0.5, 0.25, 0.25]}} if blocks else {})
    names = ("train", "validation", "test") if blocks else ("train", "validation")
    found = {name: set(texts(read(tmp_path, name, **changes))) for name in names}
    assert all(found.values())
    assert sum(map(len, found.values())) == len(set().union(*found.values()))
    # asked the same of every row, texts that are equal are other rows
    same = {"limits": {"cut": "text"}} | ({"splits": changes["splits"]} if blocks else {})
    assert sum(len(read(tmp_path, name, **same).examples) for name in names) == 202


def test_rows_that_belong_together_stand_in_one_split(tmp_path: Path) -> None:
    write_rows(tmp_path, [{"text": f"row {n}", "pair": [n // 4, n // 2][n % 2], "label": 0} for n in range(202)], "train")
    found = {}
    for split in ("train", "validation"):
        rows = read(tmp_path, split, together=["pair"]).examples
        found[split] = {row.row["pair"] for row in rows}
    assert found["train"]
    assert found["validation"]
    assert not found["train"] & found["validation"]


@pytest.mark.parametrize("content", ['{"no": 0, "yes": 1}', "5", '{"label": 3}'])
def test_label_names_of_another_form_are_refused(folder: Path, content: str) -> None:
    (folder / "mine" / "labels.json").write_text(content)
    with pytest.raises(DataError, match="fit no labels; write") as caught:
        read(folder, "train", options={"label_names": "labels.json"})
    assert "\n" not in str(caught.value)


def test_rows_are_found_by_number_and_by_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GENERATED_ROWS, "test", 20)
    task = load_task("tinyworld_record1")
    by_number, by_id = (read_one(task, row, split="test", data_dir=None) for row in ("12", "record1-test-0-12"))
    assert by_number.examples[0].id == by_id.examples[0].id
    for row, words in (("-1", "rows count from 0"), ("100000", "is too far"), ("nobody", "none has the id 'nobody'")):
        with pytest.raises(UsageError, match=words):
            read_one(task, row, split="test", data_dir=None)
