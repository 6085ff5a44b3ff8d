from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from latentwire.data.readers import read_task
from latentwire.data.task import Example, load_task, task_names
from latentwire.errors import ConfigError, DataError, UnknownNameError
from latentwire.prompts import Prompt
from tests.data.writing import own_task, write_rows, write_task

TINY_WORLD = [name for name in task_names() if name.startswith("tinyworld_")]
ROW: dict[str, Any] = {
    "text": "Is it round?",
    "label": 1,
    "choices": {"text": ["flat", "round", "long"], "label": ["A", "B", "C"]},
    "first": "flat",
    "second": "round",
    "key": "B",
    "true": True,
    "one_based": "2",
}


def only(folder: Path, row: dict[str, Any] | None = None, **changes: Any) -> Example:
    write_rows(folder, [row or ROW], "test")
    return read_task(own_task(folder, **changes), "test", data_dir=folder).examples[0]


@pytest.mark.parametrize("name", task_names())
def test_every_shipped_task_is_valid_and_carries_its_file_name(name: str) -> None:
    config = load_task(name).config
    assert config.name == name
    assert config.licence != "unknown"
    # what the receiver is shown without a message must not contain what the sender reads
    assert set(_holes(config.receiver_prompt)).isdisjoint(_holes(config.sender_prompt))


def _holes(template: str) -> list[str]:
    return [part.split("}")[0] for part in template.split("{")[1:]]


def test_first_tasks_are_shipped() -> None:
    assert {"sst2", "agnews", "trec", "banking77"} <= set(task_names())
    assert len(TINY_WORLD) == 10


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("name", TINY_WORLD)
def test_tiny_world_tasks_give_complete_examples(name: str, split: str) -> None:
    read = read_task(load_task(name), split, max_rows=30, seed=5)
    assert len(read.examples) == 30
    assert read.complete
    for example in read.examples:
        assert example.note
        assert example.bits
        assert example.chance
        assert example.sender_prompt in example.receiver_prompt_aware.before
        assert example.sender_prompt not in example.receiver_prompt.text
        assert example.receiver_prompt.after.endswith("\nAnswer:")
        if example.options:
            assert example.label is not None
            assert example.options[example.label] == example.answer
            assert example.chance == 1 / len(example.options)


@pytest.mark.parametrize(
    "options",
    [
        {"list": ["flat", "round", "long"]},
        {"field": "choices.text"},
        {"fields": ["first", "second"]},
        {"list": ["f_lat", "rou_nd"], "replace": {"_": ""}},
    ],
    ids=["list", "list field", "several fields", "replaced"],
)
def test_options_come_from_where_the_task_says(tmp_path: Path, options: dict[str, Any]) -> None:
    example = only(tmp_path, options=options)
    assert example.options[:2] == ("flat", "round")
    assert (example.label, example.answer) == (1, "round")


@pytest.mark.parametrize("content", ['["flat", "round"]', '{"label": ["flat", "round"]}', '{"1": "round", "0": "flat"}'])
def test_options_come_from_a_file_of_label_names(tmp_path: Path, content: str) -> None:
    write_rows(tmp_path, [ROW], "test")
    (tmp_path / "mine" / "names.json").write_text(content)
    assert only(tmp_path, options={"label_names": "names.json"}).options == ("flat", "round")


@pytest.mark.parametrize(
    "answer",
    [
        {"field": "label", "as": "index"},
        {"field": "one_based", "as": "index", "first_index": 1},
        {"field": "key", "as": "letter"},
        {"field": "key", "as": "letter", "letters": "choices.label"},
        {"field": "second", "as": "text"},
        {"field": "true", "as": "boolean"},
    ],
    ids=["index", "index from one", "letter", "letter of the row", "text", "boolean"],
)
def test_answer_is_read_in_every_form(tmp_path: Path, answer: dict[str, Any]) -> None:
    example = only(tmp_path, answer=answer, options={"fields": ["first", "second"]})
    assert (example.label, example.answer) == (1, "round")


def test_letters_of_the_row_win_over_the_alphabet(tmp_path: Path) -> None:
    row = {**ROW, "key": "1", "choices": {"text": ["x", "y"], "label": ["2", "1"]}}
    answer = {"field": "key", "as": "letter", "letters": "choices.label"}
    assert only(tmp_path, row, answer=answer, options={"field": "choices.text"}).answer == "y"


def test_free_answer_has_no_options(tmp_path: Path) -> None:
    example = only(tmp_path, kind="generation", options=None, answer={"field": "one_based"}, metric="exact_match")
    assert (example.options, example.label, example.answer) == ((), None, "2")


def test_prompts_are_filled_and_the_message_has_its_place(tmp_path: Path) -> None:
    example = only(
        tmp_path, {**ROW, "text": "a {label} b"}, options={"field": "choices.text"},
        receiver_prompt="Before {key}: {message}\n{options}\nAnswer:",
    )  # fmt: skip
    assert example.sender_prompt == "Text: a {label} b"
    assert example.receiver_prompt == Prompt("Before B: ", "\nA. flat\nB. round\nC. long\nAnswer:")
    assert example.receiver_prompt_aware == Prompt("Text: a {label} b", "\nQuestion: which?\nAnswer:")


@pytest.mark.parametrize(
    ("row", "changes", "message"),
    [
        ({"label": 7}, {}, r"row test-0: label 7 is outside the map of 2 options \(no, yes\); check .* in mine.yaml"),
        ({"label": -1}, {}, r"row test-0: label -1 is outside the map"),
        ({"label": None}, {}, r"row test-0: label None is outside the map"),
        ({"key": "Z"}, {"answer": {"field": "key", "as": "letter"}}, r"label 'Z' is outside the map"),
        ({"key": "maybe"}, {"answer": {"field": "key", "as": "text"}}, r"label 'maybe' is outside the map"),
        ({"true": "yes"}, {"answer": {"field": "true", "as": "boolean"}}, r"label 'yes' is outside the map"),
        ({"id": "r9", "label": 7}, {}, r"row r9: label 7"),
        ({"text": ""}, {}, r"row test-0: the text is empty"),
        ({"text": " \n"}, {}, r"row test-0: the text is empty"),
        ({}, {"sender_prompt": "{body}"}, r"row test-0: field 'body' is missing; the row has .*text"),
        ({}, {"options": {"field": "choices.names"}}, r"field 'choices.names' is missing"),
        ({"choices": {"text": []}}, {"options": {"field": "choices.text"}}, r"row test-0: no list of options but \[\]"),
        ({"choices": {"text": "ab"}}, {"options": {"field": "choices.text"}}, r"row test-0: no list of options but 'ab'"),
    ],
)
def test_bad_row_is_one_line_that_names_it(tmp_path: Path, row: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        only(tmp_path, {**ROW, **row}, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("sst", "did you mean sst2"), ("tinyworld_recrd1", "did you mean tinyworld_record1"), ("qq", "known: agnews")],
)
def test_unknown_task_suggests_the_nearest(name: str, suggestion: str) -> None:
    with pytest.raises(UnknownNameError, match=rf"^unknown task '{name}'; {suggestion}") as caught:
        load_task(name)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sumary": "x"}, r"unknown key 'sumary'; did you mean summary"),
        ({"options": {"lst": ["a"]}}, r"unknown key 'options.lst'; did you mean list"),
        ({"metric": None}, r"key 'metric' is missing$"),
        ({"metric": "bleu"}, r"metric = 'bleu' does not fit: "),
        ({"answer": {"field": "label", "as": "number"}}, r"answer.as = 'number' does not fit: "),
        ({"options": {"list": ["a"], "field": "b"}}, r"options = .* does not fit: give exactly one of"),
        ({"options": None}, r"mine.yaml': kind 'multiple_choice' needs options$"),
        ({"kind": "span"}, r"mine.yaml': kind 'span' takes no options$"),
        ({"receiver_prompt": "Answer:"}, r"mine.yaml': receiver_prompt needs the hole \{message\} exactly once$"),
        ({"source": {"generated": "code8", "folder": "x"}}, r"source = .* does not fit: give either `generated`, or"),
        ({"source": {}}, r"source = .* does not fit: give either `generated`, or"),
    ],
)
def test_bad_task_file_is_one_line_that_names_the_key(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_task(str(write_task(tmp_path, **changes)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"name: [x\nkind: {", "is not YAML"), (b"\xff\xfe\x00", "is not YAML"), (b"- a\n- b\n", "holds no mapping")],
)
def test_file_that_is_no_task_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"^task file '.*bad.yaml' {message}") as caught:
        load_task(str(tmp_path / "bad.yaml"))
    assert "\n" not in str(caught.value)


def test_missing_task_file_lists_the_shipped_tasks(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^task file '.*gone.yaml' does not exist; shipped tasks: agnews, "):
        load_task(str(tmp_path / "gone.yaml"))
