from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from latentwire.cli.app import main
from latentwire.data.task import load_task, task_names
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


def test_the_task_files_in_the_docs_work_from_outside_the_package(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    docs = (Path(__file__).resolve().parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
    names = []
    for block in re.findall(r"```yaml\n(.*?)```", docs, flags=re.DOTALL):
        path = tmp_path / f"{block.split()[1]}.yaml"
        path.write_text(block, encoding="utf-8")
        names.append(load_task(str(path)).name)
    assert names == ["mine", "riddles"]
    (tmp_path / "riddles").mkdir()
    row = {"riddle": "It has teeth and never bites.", "choices": ["a dog", "a comb", "a river", "a cloud"], "solution": "B"}
    (tmp_path / "riddles" / "test.jsonl").write_text(json.dumps(row))
    assert main(["tasks", "show", str(tmp_path / "riddles.yaml"), "--data_dir", str(tmp_path)]) == 0
    assert "→ B. a comb (1 token)" in capsys.readouterr().out


def test_every_task_is_in_the_table_of_who_sees_what() -> None:
    docs = (Path(__file__).resolve().parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
    table = docs.partition("## Who sees what")[2].partition("\n## ")[0]
    assert [name for name in task_names() if not name.startswith("tinyworld") and name not in table] == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["tinyworld_topc"], 2, "unknown task 'tinyworld_topc'; did you mean tinyworld_topic"),
        (["tinyworld_topic", "--row", "-1"], 2, "row -1 does not exist: rows count from 0"),
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
