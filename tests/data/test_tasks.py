from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import pytest

from latentwire.data.readers import read_task
from latentwire.data.task import Example, load_task, task_names
from latentwire.data.task_config import TaskConfig, TaskVariant
from latentwire.errors import ConfigError, DataError, UnknownNameError
from latentwire.evaluation.metrics import METRICS
from latentwire.prompts import Prompt
from latentwire.training.run import train_run
from tests.data.writing import own_task, write_rows, write_task
from tests.training.test_trainer import small_config

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
    assert load_task(name, TaskVariant(sender_sees="all")).config.sees.sender
    # what the receiver is shown without a message must not contain what the sender reads
    assert set(_holes(config.receiver_prompt)).isdisjoint(_holes(config.sender_prompt))


def _holes(template: str) -> list[str]:
    return [part.split("}")[0] for part in template.split("{")[1:]]


def test_all_tasks_are_shipped() -> None:
    benchmarks = {
        "sst2", "agnews", "trec", "banking77", "arc_easy", "arc_challenge", "winogrande", "hellaswag", "boolq", "openbookqa",
        "gsm8k", "squad",
    }  # fmt: skip
    assert {*benchmarks, *TINY_WORLD} == set(task_names())
    assert len(TINY_WORLD) == 11


def test_every_metric_a_task_may_name_can_be_computed() -> None:
    assert set(get_args(get_args(TaskConfig.model_fields["metrics"].annotation)[0])) == set(METRICS)


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


@pytest.mark.parametrize(
    "content", ['["flat", "round"]', '{"label": ["flat", "round"]}', '{"1": "round", "0": "flat"}', '\ufeff["flat", "round"]']
)
def test_options_come_from_a_file_of_label_names(tmp_path: Path, content: str) -> None:
    write_rows(tmp_path, [ROW], "test")
    (tmp_path / "mine" / "names.json").write_text(content, encoding="utf-8")
    assert only(tmp_path, options={"label_names": "names.json"}).options == ("flat", "round")


@pytest.mark.parametrize(
    "answer",
    [
        {"field": "label", "as": "index"},
        {"field": "one_based", "as": "index", "first_index": 1},
        {"field": "key", "as": "letter"},
        {"field": "second", "as": "text"},
        {"field": "true", "as": "boolean"},
    ],
    ids=["index", "index from one", "letter", "text", "boolean"],
)
def test_answer_is_read_in_every_form(tmp_path: Path, answer: dict[str, Any]) -> None:
    example = only(tmp_path, answer=answer, options={"fields": ["first", "second"]})
    assert (example.label, example.answer) == (1, "round")


CHOICES: dict[str, Any] = {
    "kind": "multiple_choice",
    "sender_prompt": "{text}\n{options}",
    "options": {"field": "choices.text", "letters": "choices.label"},
    "answer": {"field": "key", "as": "letter"},
    "receiver_prompt_options": "{message}\n{options}\nAnswer:",
}


def test_multiple_choice_is_scored_by_letter_and_keeps_the_texts(tmp_path: Path) -> None:
    example = only(tmp_path, **CHOICES)
    assert (example.options, example.option_texts) == (("A", "B", "C"), ("flat", "round", "long"))
    assert (example.label, example.answer, example.answers) == (1, "B", ("B",))
    assert example.sender_prompt == "Is it round?\nA. flat\nB. round\nC. long"
    assert example.receiver_prompt_options == Prompt("", "\nA. flat\nB. round\nC. long\nAnswer:")


def test_letters_of_the_row_win_over_the_alphabet(tmp_path: Path) -> None:
    row = {**ROW, "key": "1", "choices": {"text": ["x", "y"], "label": ["2", "1"]}}
    example = only(tmp_path, row, **CHOICES)
    assert (example.options, example.label, example.answer) == (("2", "1"), 1, "1")
    assert example.sender_prompt.endswith("\n2. x\n1. y")


def test_options_beyond_the_alphabet_are_numbered(tmp_path: Path) -> None:
    row = {**ROW, "label": 27, "choices": {"text": [f"choice {number}" for number in range(30)]}}
    example = only(tmp_path, row, **{**CHOICES, "options": {"field": "choices.text"}, "answer": {"field": "label", "as": "index"}})
    assert (example.answer, example.options[0], example.option_texts[27]) == ("28", "1", "choice 27")


def test_labels_of_a_classification_are_their_own_texts(tmp_path: Path) -> None:
    example = only(tmp_path)
    assert example.options == example.option_texts == ("no", "yes")
    assert example.receiver_prompt_options is None


FREE: dict[str, Any] = {"kind": "generation", "options": None, "metrics": ["exact_match"]}


def test_free_answer_has_no_options(tmp_path: Path) -> None:
    example = only(tmp_path, **FREE, answer={"field": "one_based"})
    assert (example.options, example.label, example.answer) == ((), None, "2")


def test_of_several_gold_answers_the_first_is_taught_and_none_is_kept_twice(tmp_path: Path) -> None:
    row = {**ROW, "answers": {"text": ["23 years", "23", "23"]}}
    example = only(tmp_path, row, **FREE, answer={"field": "answers.text"})
    assert (example.answer, example.answers) == ("23 years", ("23 years", "23"))


SOLVED: dict[str, Any] = {
    **FREE,
    "answer": {"field": "worked", "after": "##", "remove": "<<[^<>]*>>"},
    "max_new_tokens": 5,
    "max_new_tokens_solution": 50,
}


@pytest.mark.parametrize(
    ("target", "answer", "max_new_tokens"), [("answer", "1,003", 5), ("solution", "She has 1000+3 = 1003.\n## 1,003", 50)]
)
def test_target_is_the_answer_or_the_worked_solution(
    tmp_path: Path, target: Literal["answer", "solution"], answer: str, max_new_tokens: int
) -> None:
    write_rows(tmp_path, [{**ROW, "worked": "She has 1000+3 = <<1000+3=1003>>1003.\n## 1,003"}], "test")
    task = load_task(str(write_task(tmp_path, **SOLVED)), TaskVariant(target=target))
    assert read_task(task, "test", data_dir=tmp_path).examples[0].answer == answer
    assert task.config.max_new_tokens == max_new_tokens


def test_limit_of_new_tokens_can_be_raised(tmp_path: Path) -> None:
    task = load_task(str(write_task(tmp_path, **SOLVED)), TaskVariant(target="solution", max_new_tokens=70))
    assert task.config.max_new_tokens == 70


def test_sender_can_be_given_the_question_too() -> None:
    context, everything = (
        read_task(load_task("tinyworld_record1", TaskVariant(sender_sees=sees)), "test", max_rows=1).examples[0]
        for sees in ("context", "all")
    )
    question = everything.row["question"]
    assert everything.sender_prompt == f"{context.sender_prompt}\nQuestion: {question}"
    assert (context.sender_sees, everything.sender_sees) == ("the context", "the context and the question")
    assert context.receiver_sees == everything.receiver_sees == "the question"
    assert everything.receiver_prompt == context.receiver_prompt


def test_sender_that_sees_all_there_is_stays_as_it_is() -> None:
    assert load_task("arc_easy", TaskVariant(sender_sees="all")).config == load_task("arc_easy").config


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        (TaskVariant(sender_sees="all"), r"^task 'mine' has no variant sender_sees=all; add sender_prompt_all to its file$"),
        (TaskVariant(target="solution"), r"^task 'mine' has no worked solutions, so target=solution does not fit; use "),
    ],
)
def test_variant_a_task_does_not_have_is_refused(tmp_path: Path, variant: TaskVariant, message: str) -> None:
    path = write_task(tmp_path, receiver_prompt="{message}\n{key}?\nAnswer:")
    with pytest.raises(ConfigError, match=message):
        load_task(str(path), variant)


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
        ({"label": None}, {}, r"row test-0: field 'label' is null"),
        ({"key": "Z"}, {"answer": {"field": "key", "as": "letter"}}, r"label 'Z' is outside the map"),
        ({"key": "maybe"}, {"answer": {"field": "key", "as": "text"}}, r"label 'maybe' is outside the map"),
        ({"true": "yes"}, {"answer": {"field": "true", "as": "boolean"}}, r"label 'yes' is outside the map"),
        ({"id": "r9", "label": 7}, {}, r"row r9: label 7"),
        ({"text": ""}, {}, r"row test-0: the text is empty"),
        ({"text": " \n"}, {}, r"row test-0: the text is empty"),
        ({}, {"sender_prompt": "{body}"}, r"row test-0: field 'body' is missing; the row has .*text"),
        ({}, {"options": {"field": "choices.names"}}, r"field 'choices.names' is missing"),
        ({"choices": {"text": []}}, {"options": {"field": "choices.text"}}, r"row test-0: no list of options but \[\]"),
        ({"choices": {"text": ["a", " "]}}, {"options": {"field": "choices.text"}}, r"row test-0: option 2 is empty; mend the row"),
        ({"choices": {"text": ["a"], "label": ["A", "B"]}}, CHOICES, r"row test-0: 1 options do not go with the letters A, B"),
        ({"choices": {"text": ["a", "b"], "label": ["A", "A"]}}, CHOICES, r"row test-0: 2 options do not go with the letters A, A"),
        ({"key": "D"}, CHOICES, r"label 'D' is outside the map of 3 options \(A, B, C\)"),
        ({"worked": "no mark"}, SOLVED, r"row test-0: the answer holds no '##'; check `answer` in mine.yaml"),
        ({"worked": "1 + 1 ##"}, SOLVED, r"row test-0: the answer '1 \+ 1 ##' is empty"),
        ({"answers": []}, {**FREE, "answer": {"field": "answers"}}, r"row test-0: the answer \[\] is empty"),
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
        ({"metrics": None}, r"key 'metrics' is missing$"),
        ({"metrics": ["bleu"]}, r"metrics.0 = 'bleu' does not fit: "),
        ({"metrics": []}, r"mine.yaml': metrics of kind 'classification' are one or more of: accuracy, accuracy_by_text$"),
        ({"metrics": ["f1"]}, r"mine.yaml': metrics of kind 'classification' are one or more of: accuracy, accuracy_by_text$"),
        ({**FREE, "metrics": ["accuracy"]}, r"mine.yaml': metrics of kind 'generation' are one or more of: exact_match, "),
        ({"sees": None}, r"key 'sees' is missing$"),
        ({"limits": {"cut": "body"}}, r"mine.yaml': limits.cut = 'body' is no hole of sender_prompt$"),
        ({"limits": {"sender_tokens": 0}}, r"limits.sender_tokens = 0 does not fit: "),
        ({"splits": {"blocks": [0.5, 0.5, 0.5]}}, r"splits = .* does not fit: blocks are three shares"),
        ({"answer": {"field": "label", "remove": "(("}}, r"answer = .* does not fit: remove = '\(\(' is no regular expression"),
        ({**SOLVED, "max_new_tokens_solution": None}, r"mine.yaml': answer.after .* goes with max_new_tokens_solution$"),
        ({"receiver_prompt_options": "{message}"}, r"mine.yaml': kind 'classification' takes no receiver_prompt_options; "),
        ({"answer": {"field": "label", "as": "number"}}, r"answer.as = 'number' does not fit: "),
        ({"options": {"list": ["a"], "field": "b"}}, r"options = .* does not fit: give exactly one of"),
        ({"options": None}, r"mine.yaml': kind 'classification' needs options$"),
        ({"kind": "span"}, r"mine.yaml': kind 'span' takes no options$"),
        ({"receiver_prompt": "Answer:"}, r"mine.yaml': receiver_prompt needs the hole \{message\} exactly once$"),
        ({"source": {"generated": "code8", "folder": "x"}}, r"source = .* does not fit: give either `generated`, or"),
        ({"source": {}}, r"source = .* does not fit: give either `generated`, or"),
        ({"sender_prompt": "Text: {text }"}, r"sender_prompt has '\{text \}', which is sent as it is; write \{text\}"),
        ({"sender_prompt": "Text:"}, r"sender_prompt has no hole, so all rows read alike"),
    ],
)
def test_bad_task_file_is_one_line_that_names_the_key(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_task(str(write_task(tmp_path, **changes)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"name: [x\nkind: {", "is not YAML"), (b"\xff\xfe\x00", "is not YAML"), (b"- a\n- b\n", "holds no `key: value` lines")],
)
def test_file_that_is_no_task_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"^task file '.*bad.yaml' {message}") as caught:
        load_task(str(tmp_path / "bad.yaml"))
    assert "\n" not in str(caught.value)


def test_missing_task_file_lists_the_shipped_tasks(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^task file '.*gone.yaml' does not exist; shipped tasks: agnews, "):
        load_task(str(tmp_path / "gone.yaml"))


def test_a_task_is_posed_in_its_variant_by_the_run_config(tmp_path: Path) -> None:
    write_rows(tmp_path, [{**ROW, "worked": "1 + 1 = 2\n## 2"}] * 20, "train")
    task = write_task(tmp_path, **SOLVED)
    config = small_config(
        tmp_path / "run",
        task=[str(task)],
        data={"data_dir": str(tmp_path), "validation_rows": 2},
        training={"steps": 1},
        variant={"target": "solution", "max_new_tokens": 3},
    )
    with pytest.raises(
        DataError, match=r"the target has \d+ tokens of 'nano-mistral@2', max_new_tokens is 3; raise it in mine.yaml"
    ):
        train_run(config)


@pytest.mark.parametrize(
    ("row", "changes", "words"),
    [
        ({"text": None}, {}, "field 'text' is null"),
        ({"label": None}, {}, "field 'label' is null"),
        ({"choices": {"text": ["flat", None]}}, {"options": {"field": "choices.text"}}, "field 'choices.text' is null"),
        ({"choices": {}}, {"options": {"field": "choices.text"}}, "field 'choices.text' is missing"),
        ({"text": "half a \ud83d"}, {}, "is no character of Unicode text"),
        ({"label": "--1"}, {}, "label '--1' is outside the map"),
        ({"label": "²"}, {}, "label '²' is outside the map"),
    ],
)
def test_rows_that_cannot_be_read_are_named(tmp_path: Path, row: dict[str, Any], changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=f"row 7: .*{words}"):
        only(tmp_path, {**ROW, **row, "id": "7"}, **changes)


def test_a_null_among_free_answers_is_no_word(tmp_path: Path) -> None:
    free = {"kind": "generation", "options": None, "metrics": ["exact_match"], "max_new_tokens": 8}
    with pytest.raises(DataError, match="null"):
        only(tmp_path, {**ROW, "label": ["round", None]}, **free)


def test_a_label_is_found_among_options_that_are_written_otherwise(tmp_path: Path) -> None:
    options = {"list": ["card_arrival", "lost_card"], "replace": {"_": " "}}
    example = only(tmp_path, {**ROW, "label": "lost_card"}, options=options, answer={"field": "label", "as": "text"})
    assert (example.label, example.answer) == (1, "lost card")


def test_bare_yes_and_no_are_explained(tmp_path: Path) -> None:
    path = write_task(tmp_path)
    path.write_text(path.read_text().replace("'no'", "no").replace("'yes'", "yes"))
    with pytest.raises(ConfigError, match="put it in quotes"):
        load_task(str(path))
