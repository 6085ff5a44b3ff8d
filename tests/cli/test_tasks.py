from __future__ import annotations

import json
from pathlib import Path

import pytest

from latentwire.cli.app import main
from latentwire.data.task import task_names
from tests.data.writing import write_rows, write_task


def test_every_task_is_listed_on_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == task_names()
    assert main(["tasks", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [task["name"] for task in listed] == task_names()
    assert all(task["sees"]["sender"] and task["metrics"] and task["licence"] for task in listed)


def test_a_row_is_shown_with_all_that_both_models_get(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "show", "tinyworld_record1", "--row", "2", "--sender_sees", "all"]) == 0
    shown = capsys.readouterr().out
    assert "the sender sees the context and the question, the receiver the question" in shown
    assert "--- sender: nano-llama@1, plain, " in shown
    assert "⟨message⟩\nQuestion: " in shown
    assert "of at most 8 tokens" in shown
    assert "cut: nothing" in shown


def test_a_row_as_json_has_its_counts_and_cuts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(tmp_path, [{"text": "Is it round? " * 20, "label": 1}], "test")
    task = write_task(tmp_path, limits={"cut": "text", "sender_tokens": 30})
    assert main(["tasks", "show", str(task), "--data_dir", str(tmp_path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    prompts = {prompt["for"]: prompt for prompt in shown["prompts"]}
    assert prompts["sender"]["tokens"] <= 30 < prompts["receiver, context-aware"]["tokens"]
    assert prompts["sender"]["before"].startswith("<s> Text: Is it round?")
    assert [cut["end"] for cut in shown["cuts"]] == ["sender"]
    assert (shown["options"], shown["answer"]) == ({"no": "no", "yes": "yes"}, "yes")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["tinyworld_topc"], 2, "unknown task 'tinyworld_topc'; did you mean tinyworld_topic"),
        (["tinyworld_topic", "--row", "-1"], 2, "row -1 does not exist: tinyworld_topic has 1 rows in test (0-0)"),
        (["tinyworld_topic", "--split", "tset"], 2, "unknown split 'tset'; did you mean test?"),
        (["tinyworld_topic", "--target", "all"], 2, "flags: variant.target = 'all' does not fit"),
        (["tinyworld_topic", "--target", "solution"], 2, "task 'tinyworld_topic' has no worked solutions"),
        (["tinyworld_topic", "--prompt_style", "chat"], 2, "model 'nano-llama@1' has no chat template"),
        (["tinyworld_topic", "--sender", "nano-lama"], 2, "unknown model"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "show", *arguments]) == code
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1
