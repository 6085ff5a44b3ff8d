"""Every task's prompts are pinned: a change of one character shows here.

After a change that is meant, write the files again with ``LATENTWIRE_WRITE_GOLDEN=1 pytest tests/data/test_prompts.py``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from latentwire.data.readers import read_task
from latentwire.data.task import Example, Task, load_task, task_names
from latentwire.data.task_config import TaskVariant
from latentwire.errors import ConfigError
from latentwire.prompts import Prompt
from tests.data.made_up_rows import LABEL_NAMES, MADE_UP

GOLDEN = Path(__file__).parent / "golden"
VARIANTS = {
    "sender_sees=all": TaskVariant(sender_sees="all"),
    "target=solution": TaskVariant(target="solution"),
}


def three_examples(task: Task, folder: Path) -> tuple[Example, ...]:
    """Three rows of the test split: generated ones, or those made up for the benchmark."""
    if task.config.source.generated:
        return read_task(task, "test", max_rows=3).examples
    rows = folder / str(task.config.source.folder)
    rows.mkdir(exist_ok=True)
    for split in (task.config.splits.train, task.config.splits.test):
        (rows / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in MADE_UP[task.name]))
    (rows / "label_names.json").write_text(json.dumps({"label": LABEL_NAMES}))
    return read_task(task, "test", data_dir=folder).examples


def written(example: Example) -> str:
    parts = {
        f"sender sees {example.sender_sees}": example.sender_prompt,
        f"receiver sees {example.receiver_sees}": example.receiver_prompt,
        "receiver, context-aware": example.receiver_prompt_aware,
        "receiver, shown the options": example.receiver_prompt_options,
        "scored": "\n".join(example.options) if len(example.options) <= 16 else None,
        "answers": "\n".join(example.answers),
    }
    lines = [f"======== {example.task}, row {example.id}"]
    for title, content in parts.items():
        if content:
            text = f"{content.before}⟨message⟩{content.after}" if isinstance(content, Prompt) else content
            lines += [f"-------- {title}", text]
    return "\n".join(lines) + "\n"


def golden_text(name: str, folder: Path) -> str:
    plain = three_examples(load_task(name), folder)
    text = "".join(written(example) for example in plain)
    for label, variant in VARIANTS.items():
        try:
            posed = three_examples(load_task(name, variant), folder)[0]
        except ConfigError:  # the task has no such variant
            continue
        if posed != plain[0]:
            text += f"\n######## {label}\n" + written(posed)
    return text


@pytest.mark.parametrize("name", task_names())
def test_prompts_are_those_in_the_golden_file(name: str, tmp_path: Path) -> None:
    path = GOLDEN / f"{name}.txt"
    text = golden_text(name, tmp_path)
    if os.environ.get("LATENTWIRE_WRITE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_every_golden_file_belongs_to_a_task() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*.txt")) == task_names()


@pytest.mark.parametrize("name", task_names())
def test_the_receiver_is_given_nothing_that_only_the_sender_may_see(name: str, tmp_path: Path) -> None:
    task = load_task(name)
    for example in three_examples(task, tmp_path):
        assert example.sender_prompt in example.receiver_prompt_aware.before
        assert example.receiver_prompt.before == ""
        if example.receiver_sees == "nothing but the answer cue":
            assert example.receiver_prompt.after == "\nAnswer:"
        assert example.sender_prompt not in example.receiver_prompt.text


@pytest.mark.parametrize("name", [name for name in task_names() if load_task(name).config.kind == "multiple_choice"])
def test_every_choice_is_read_with_its_letter_and_never_alone(name: str, tmp_path: Path) -> None:
    for example in three_examples(load_task(name), tmp_path):
        assert example.receiver_prompt_options is not None
        for letter, text in zip(example.options, example.option_texts, strict=True):
            line = f"\n{letter}. {text}"
            assert line in example.sender_prompt
            assert line in example.receiver_prompt_options.text
            assert text not in example.receiver_prompt.text
