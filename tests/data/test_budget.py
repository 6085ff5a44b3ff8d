"""Budgets: what is cut, what never is, and what a row that does not fit is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from latentwire.data.budget import describe_cuts, fit_rows
from latentwire.data.readers import Cut, TaskRows, read_task
from latentwire.data.task import Task, load_task
from latentwire.errors import DataError
from latentwire.prompts import Prompt
from tests.data.writing import write_rows, write_task

LONG = " ".join(f"w{number}" for number in range(40))
CHOICE: dict[str, Any] = {
    "kind": "multiple_choice",
    "sender_prompt": "Text: {text}\n{options}",
    "receiver_prompt": "{message}\nAnswer:",
    "receiver_prompt_aware": "Text: {text}\n{options}{message}\nAnswer:",
    "receiver_prompt_options": "{message}\n{options}\nAnswer:",
    "options": {"field": "choices"},
}


class Words:
    """Counts words, one more for what a model puts before every prompt."""

    def __init__(self, max_tokens: int = 1000, name: str = "wordy") -> None:
        self.name, self.max_tokens = name, max_tokens

    def count(self, prompts: Sequence[Prompt]) -> list[int]:
        return [1 + len(prompt.text.split()) for prompt in prompts]

    def longer(self, prompts: Sequence[Prompt], most: int) -> dict[int, int]:
        return {place: count for place, count in enumerate(self.count(prompts)) if count > most}

    def count_texts(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def count_answer(self, prompt: Prompt, answer: str) -> int:
        return len(answer.split())

    def first(self, text: str, tokens: int) -> str:
        return " ".join(text.split()[:tokens])


def rows_of(folder: Path, row: dict[str, Any] | None = None, **changes: Any) -> tuple[Task, TaskRows]:
    given = {"id": "r1", "text": LONG, "label": 1, "choices": ["one thing", "another thing"], **(row or {})}
    write_rows(folder, [given, {**given, "id": "r2", "text": "short"}], "test")
    task = load_task(str(write_task(folder, **{**CHOICE, "limits": {"cut": "text"}, **changes})))
    return task, read_task(task, "test", data_dir=folder)


def test_rows_that_fit_stay_as_they_are(tmp_path: Path) -> None:
    task, rows = rows_of(tmp_path)
    fitted = fit_rows(task, rows, sender=Words(), receiver=Words())
    assert fitted == rows
    assert describe_cuts(fitted) == ""


def test_the_context_is_cut_from_its_end_and_the_options_stay(tmp_path: Path) -> None:
    task, rows = rows_of(tmp_path, limits={"cut": "text", "sender_tokens": 20, "receiver_tokens": 30})
    fitted = fit_rows(task, rows, sender=Words(), receiver=Words())
    first, second = fitted.examples
    assert first.sender_prompt == f"Text: {' '.join(LONG.split()[:12])}\nA. one thing\nB. another thing"
    assert first.receiver_prompt_aware.before.startswith(f"Text: {' '.join(LONG.split()[:21])}\nA. one thing\nB. another thing")
    assert Words().count([Prompt(first.sender_prompt, "")]) == [20]
    assert Words().count([first.receiver_prompt_aware]) == [30]
    assert (first.options, first.answer, first.receiver_prompt) == (("A", "B"), "B", rows.examples[0].receiver_prompt)
    assert second == rows.examples[1]


def test_what_was_cut_is_reported_by_row_and_end(tmp_path: Path) -> None:
    task, rows = rows_of(tmp_path, limits={"cut": "text", "sender_tokens": 20})
    fitted = fit_rows(task, rows, sender=Words(), receiver=Words(max_tokens=40))
    assert fitted.cuts == (Cut("r1", "sender", 40, 12), Cut("r1", "receiver", 40, 28))
    assert describe_cuts(fitted) == (
        "cut to fit: 1 of 2 contexts for the sender (12 of 40 tokens left of row r1); "
        "1 of 2 contexts for the receiver (28 of 40 tokens left of row r1)"
    )


def test_the_models_own_maximum_holds_without_any_limit(tmp_path: Path) -> None:
    task, rows = rows_of(tmp_path)
    fitted = fit_rows(task, rows, sender=Words(max_tokens=25), receiver=Words(max_tokens=33))
    assert Words().count([Prompt(fitted.examples[0].sender_prompt, "")]) == [25]
    # two tokens of the longest option and one to spare stand behind the prompt
    assert Words().count([fitted.examples[0].receiver_prompt_aware]) == [30]


def test_tokens_that_melt_together_are_counted_in_the_whole_prompt(tmp_path: Path) -> None:
    class Doubled(Words):
        """A context costs more inside a prompt than alone."""

        def count(self, prompts: Sequence[Prompt]) -> list[int]:
            return [2 * count for count in super().count(prompts)]

    task, rows = rows_of(tmp_path, limits={"cut": "text", "sender_tokens": 40})
    fitted = fit_rows(task, rows, sender=Doubled(), receiver=Words())
    assert Doubled().count([Prompt(fitted.examples[0].sender_prompt, "")])[0] <= 40
    assert fitted.examples[0].sender_prompt.startswith("Text: w0 ")


@pytest.mark.parametrize(
    ("sender", "receiver", "changes", "message"),
    [
        (
            7,
            1000,
            {},
            r"row r1: what is never cut \(options, question, cue\) has 8 tokens of 'wordy', the sender reads at most 7; raise",
        ),
        (
            1000,
            8,
            {},
            r"row r1: what is never cut .* has 8 tokens of 'wordy', the receiver reads at most 5; raise limits.receiver_tokens",
        ),
        (
            20,
            1000,
            {"limits": {}},
            r"row r1: its prompt has 48 tokens of 'wordy', the sender reads at most 20 and nothing may be cut; name",
        ),
    ],
    ids=["options for the sender", "options for the receiver", "nothing may be cut"],
)
def test_a_row_whose_options_do_not_fit_is_refused_by_its_id(
    tmp_path: Path, sender: int, receiver: int, changes: dict[str, Any], message: str
) -> None:
    task, rows = rows_of(tmp_path, **changes)
    with pytest.raises(DataError, match=rf"^task 'mine', {message}") as caught:
        fit_rows(task, rows, sender=Words(sender), receiver=Words(receiver))
    assert "\n" not in str(caught.value)


FREE: dict[str, Any] = {
    "kind": "generation",
    "options": None,
    "receiver_prompt_options": None,
    "sender_prompt": "{text}",
    "receiver_prompt_aware": "{text}{message}\nAnswer:",
    "answer": {"field": "said"},
    "metrics": ["exact_match"],
    "max_new_tokens": 5,
}


def test_a_target_longer_than_the_limit_is_refused_and_names_the_setting(tmp_path: Path) -> None:
    task, rows = rows_of(tmp_path, {"said": "one two three four five six"}, **FREE)
    message = r"^task 'mine', row r1: the target has 6 tokens of 'wordy', max_new_tokens is 5; raise it in mine.yaml or with .*=6$"
    with pytest.raises(DataError, match=message):
        fit_rows(task, rows, sender=Words(), receiver=Words())


def test_a_target_of_just_the_limit_is_kept_whole(tmp_path: Path) -> None:
    task, rows = rows_of(tmp_path, {"said": "one two three four five"}, **FREE)
    assert fit_rows(task, rows, sender=Words(), receiver=Words()).examples[0].answer == "one two three four five"


def test_room_for_the_answer_is_kept_behind_the_prompt(tmp_path: Path) -> None:
    task, rows = rows_of(tmp_path, {"said": "one"}, **FREE)
    fitted = fit_rows(task, rows, sender=Words(), receiver=Words(max_tokens=20))
    assert Words().count([fitted.examples[0].receiver_prompt_aware]) == [20 - 1 - 5]


def test_a_field_inside_another_may_be_cut(tmp_path: Path) -> None:
    changes = {
        "sender_prompt": "{deep.text}",
        "receiver_prompt_aware": "{deep.text}{message}\nAnswer:",
        "options": {"list": ["a", "b"]},
    }
    task, rows = rows_of(
        tmp_path, {"deep": {"text": LONG}}, **{**changes, "limits": {"cut": "deep.text", "sender_tokens": 11}}
    )  # fmt: skip
    assert fit_rows(task, rows, sender=Words(), receiver=Words()).examples[0].sender_prompt == " ".join(LONG.split()[:10])


def test_the_embedded_pair_reads_real_passages_cut_to_the_limits(data_dir: Path) -> None:
    from latentwire.models.chat import Prompter
    from latentwire.models.source import resolve

    sender, receiver = (Prompter(resolve(name)) for name in ("nano-llama", "nano-mistral"))
    task = load_task("squad")
    rows = fit_rows(task, read_task(task, "train", data_dir=data_dir, max_rows=120), sender=sender, receiver=receiver)
    assert rows.cuts
    assert max(sender.count([Prompt(example.sender_prompt, "") for example in rows.examples])) <= 512
    assert max(receiver.count([example.receiver_prompt_aware for example in rows.examples])) <= 640
    for example in rows.examples:
        assert example.receiver_prompt_aware.after == example.receiver_prompt.after
