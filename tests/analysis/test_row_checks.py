"""Planted faults are found, each by its check, and sound tasks pass."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from latentwire.analysis.preflight.findings import Check
from latentwire.analysis.preflight.posed_rows import Posed, pose
from latentwire.analysis.preflight.row_checks import check_rows
from latentwire.config import build_config
from latentwire.data.task import TASK_FOLDER, load_task
from latentwire.errors import DataError
from latentwire.models.chat import Prompter
from latentwire.models.source import resolve
from tests.data.made_up_rows import MADE_UP
from tests.data.writing import write_rows, write_task


@cache
def prompters() -> tuple[Prompter, Prompter]:
    return Prompter(resolve("nano-llama")), Prompter(resolve("nano-mistral"))


def posed(task: str, data: Path | None = None, *, rows: int = 200, **settings: Any) -> Posed:
    content = {"task": task, "sender": {"model": "nano-llama"}, "receiver": {"model": "nano-mistral"}, **settings}
    config = build_config({**content, "data": {"data_dir": None if data is None else str(data)}}, where="test")
    sender, receiver = prompters()
    return pose(config, load_task(task, config.variant), sender=sender, receiver=receiver, rows=rows)


def checks_of(found: Posed) -> dict[str, Check]:
    return {check.name: check for check in check_rows(found)}


def failed(found: Posed) -> list[str]:
    return [check.name for check in check_rows(found) if check.status == "fail"]


@pytest.fixture
def gsm8k(tmp_path: Path) -> Path:
    """Made-up word problems in the format of the real ones, twelve of each split, with solutions of a line or more."""
    rows = [{**MADE_UP["gsm8k"][index % 2], "id": f"p{index}"} for index in range(12)]
    for split in ("train", "test"):
        path = tmp_path / "gsm8k" / f"{split}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps({**row, "id": f"{split}-{row['id']}"}) + "\n" for row in rows))
    return tmp_path


def changed_gsm8k(folder: Path, **changes: Any) -> str:
    """The shipped task file with some keys changed, as a user's own."""
    content = yaml.safe_load((TASK_FOLDER / "gsm8k.yaml").read_text()) | changes
    path = folder / "changed.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


# --------------------------------------------------------------------------------- the faults of the published word problems


def test_the_shipped_word_problems_are_posed_soundly(gsm8k: Path) -> None:
    found = checks_of(posed("gsm8k", gsm8k))
    assert {name: check.status for name, check in found.items() if check.status != "pass"} == {"output": "warn"}
    assert "first_stage" in found["output"].mend
    assert not failed(posed("gsm8k", gsm8k, training={"first_stage": {"objective": "text"}}))


def test_targets_cut_at_16_tokens_are_found(gsm8k: Path) -> None:
    task = changed_gsm8k(gsm8k, max_new_tokens_solution=16)
    found = checks_of(posed(task, gsm8k, variant={"target": "solution"}))["targets"]
    assert found.status == "fail"
    assert found.numbers["max_new_tokens"] == 16
    longest = found.numbers["longest"]
    assert isinstance(longest, int)
    assert longest > 16
    assert found.numbers["gold_score_when_cut"] == 0
    assert found.mend.startswith(f"--set variant.max_new_tokens={longest + 1}")
    assert found.row is not None
    # what is typed mends it
    mended = posed(task, gsm8k, variant={"target": "solution", "max_new_tokens": longest + 1})
    assert checks_of(mended)["targets"].status == "pass"


def test_a_whole_solution_as_target_of_a_metric_of_its_last_number_is_found(gsm8k: Path) -> None:
    found = checks_of(posed("gsm8k", gsm8k, variant={"target": "solution"}))["target and metric"]
    assert found.status == "fail"
    assert "number_match" in found.text
    assert "variant.target=answer" in found.mend
    share = found.numbers["share_looked_at"]
    assert isinstance(share, float)
    assert 0 < share < 0.2
    assert checks_of(posed("gsm8k", gsm8k))["target and metric"].numbers["share_looked_at"] == 1


def test_ten_generated_tokens_are_found(gsm8k: Path) -> None:
    settings = {"variant": {"target": "solution", "max_new_tokens": 10}}
    found = checks_of(posed("gsm8k", gsm8k, **settings))["targets"]
    assert (found.status, found.numbers["max_new_tokens"]) == ("fail", 10)
    assert "max_new_tokens = 10" in found.text
    # and where a user's file says so
    task = changed_gsm8k(gsm8k, max_new_tokens_solution=10)
    assert checks_of(posed(task, gsm8k, variant={"target": "solution"}))["targets"].status == "fail"


def test_options_lost_to_truncation_are_found(tmp_path: Path) -> None:
    """The choices stand at the end of the text that may be cut."""
    words = "A boat drifts down a slow river past the old mill and nobody is at the oars. " * 4
    row = {"text": f"{words}Which is it?\nA. heron\nB. kettle", "choices": ["heron", "kettle"], "label": 0}
    changes = {
        "kind": "multiple_choice", "options": {"field": "choices"}, "sender_prompt": "{text}",
        "receiver_prompt": "{message}\nAnswer:", "receiver_prompt_aware": "{text}{message}\nAnswer:",
    }  # fmt: skip
    for split in ("train", "test"):
        write_rows(tmp_path, [{**row, "id": f"{split}-{index}"} for index in range(12)], split)
    task = str(write_task(tmp_path, **changes, limits={"cut": "text", "sender_tokens": 40}))
    found = checks_of(posed(task, tmp_path))["prompts"]
    assert (found.status, found.numbers["options_lost"]) == ("fail", found.numbers["rows"])
    assert "limits.sender_tokens" in found.mend
    whole = str(write_task(tmp_path, **changes, limits={"cut": "text", "sender_tokens": 400}))
    assert checks_of(posed(whole, tmp_path))["prompts"].status == "pass"


# ------------------------------------------------------------------------------------------------------------ other faults


def open_task(folder: Path, rows: Sequence[Mapping[str, Any]], **changes: Any) -> str:
    for split in ("train", "test"):
        write_rows(folder, [{**row, "id": f"{split}-{index}"} for index, row in enumerate(rows)], split)
    fitting = {"kind": "generation", "options": None, "metrics": ["exact_match"], "answer": {"field": "answer", "as": "text"}}
    return str(write_task(folder, **(fitting | changes)))


def plain_rows(count: int = 24) -> list[dict[str, Any]]:
    return [{"text": f"The code is {index}.", "answer": str(index)} for index in range(count)]


def test_a_metric_that_refuses_the_gold_answer_is_found(tmp_path: Path) -> None:
    task = open_task(tmp_path, plain_rows(), metrics=["final_answer"])
    found = checks_of(posed(task, tmp_path))["gold answers"]
    assert (found.status, found.numbers["bare_score"]) == ("fail", 0)
    assert "final_answer refuses" in found.text
    assert found.row is not None


def test_targets_that_were_cut_before_are_found_by_their_wall(tmp_path: Path) -> None:
    prompter = posed("tinyworld_topic", rows=3).receiver
    words = ["One boat went out.", "Seventeen herons are waiting.", "It rained.", "Nobody was at the oars today, and Ada slept."]
    texts = [" ".join(words[(index + step) % 4] for step in range(6)) for index in range(24)]
    rows = [{"text": text, "answer": prompter.first(text, 16)} for text in texts]
    found = checks_of(posed(open_task(tmp_path, rows), tmp_path))["targets"]
    assert found.status == "warn"
    assert "look cut" in found.text
    whole = [{"text": text, "answer": text} for text in texts]
    assert checks_of(posed(open_task(tmp_path, whole, max_new_tokens=200), tmp_path))["targets"].status == "pass"


def test_codes_of_one_length_are_no_wall() -> None:
    assert checks_of(posed("tinyworld_code8", rows=40))["targets"].status == "pass"


def test_no_room_for_the_end_token_is_a_warning(tmp_path: Path) -> None:
    task = open_task(tmp_path, plain_rows())
    longest = max(posed(task, tmp_path).target_tokens.values())
    exact = checks_of(posed(task, tmp_path, variant={"max_new_tokens": longest}))["targets"]
    assert (exact.status, exact.mend.split(";")[0]) == ("warn", f"--set variant.max_new_tokens={longest + 1}")
    assert checks_of(posed(task, tmp_path, variant={"max_new_tokens": longest + 1}))["targets"].status == "pass"


@pytest.mark.parametrize(
    ("prompt", "status", "words"),
    [
        ("{text}{message}\nWhich?", "fail", "nothing is left to communicate"),
        ("{message}\nIs it {answer}?", "fail", "stands in the receiver's own prompt"),
        ("{message}\nWhich?", "pass", ""),
    ],
)
def test_a_receiver_that_sees_the_context_by_accident_is_found(prompt: str, status: str, words: str, tmp_path: Path) -> None:
    found = checks_of(posed(open_task(tmp_path, plain_rows(), receiver_prompt=prompt), tmp_path))["hidden"]
    assert found.status == status
    assert words in found.text


def test_labels_that_the_question_lists_are_not_given_away(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_rows(tmp_path, [{"text": f"number {index}", "label": index % 2} for index in range(20)], split)
    listed = str(write_task(tmp_path, receiver_prompt="{message}\nIs it yes or no?"))
    assert checks_of(posed(listed, tmp_path))["hidden"].status == "pass"


def test_letters_whose_texts_nobody_reads_are_found(tmp_path: Path) -> None:
    changes = {"kind": "multiple_choice", "options": {"field": "choices"}, "sender_prompt": "{text}"}
    for split in ("train", "test"):
        write_rows(
            tmp_path, [{"text": f"Riddle {index}", "choices": ["a comb", "a saw"], "label": 1} for index in range(12)], split
        )
    found = checks_of(posed(str(write_task(tmp_path, **changes)), tmp_path))["prompts"]
    assert found.status == "fail"
    assert "{options}" in found.mend


def test_a_row_that_no_cut_makes_fit_is_named_and_the_others_are_checked(tmp_path: Path) -> None:
    rows = [*plain_rows(), {"text": "word " * 3000, "answer": "1"}]
    found = checks_of(posed(open_task(tmp_path, rows), tmp_path))["prompts"]
    assert found.status == "fail"
    assert found.row == "train-24"
    assert "limits.cut" in found.mend


def test_of_two_rows_of_one_id_one_may_not_fit(tmp_path: Path) -> None:
    task = open_task(tmp_path, plain_rows(), kind="span", metrics=["exact_match"])
    rows = [{**row, "id": f"train-{index}"} for index, row in enumerate(plain_rows())]
    write_rows(tmp_path, [*rows, {"text": "word " * 3000, "answer": "1", "id": "train-0"}], "train")
    found = checks_of(posed(task, tmp_path))
    assert (found["rows"].status, found["prompts"].status) == ("fail", "fail")


def test_options_that_are_one_for_the_receiver_are_found(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_rows(tmp_path, [{"text": f"number {index}", "label": index % 2} for index in range(12)], split)
    found = checks_of(posed(str(write_task(tmp_path, options={"list": ["yes", "yes"]})), tmp_path))["gold answers"]
    assert found.status == "fail"
    assert "'yes'" in found.text


def test_a_missing_test_split_is_a_finding_and_a_missing_train_split_an_error(tmp_path: Path) -> None:
    task = open_task(tmp_path, plain_rows())
    (tmp_path / "mine" / "test.jsonl").unlink()
    found = checks_of(posed(task, tmp_path))["rows"]
    assert found.status == "fail"
    assert "the test split cannot be read" in found.text
    (tmp_path / "mine" / "train.jsonl").unlink()
    with pytest.raises(DataError, match=r"train\.jsonl"):
        posed(task, tmp_path)


def test_ids_are_counted_split_by_split(tmp_path: Path) -> None:
    task = open_task(tmp_path, [])
    for split, shift in (("train", 0), ("test", 100)):
        rows = [{**row, "text": f"{row['text']} and {index + shift}", "id": str(index)} for index, row in enumerate(plain_rows())]
        write_rows(tmp_path, rows, split)
    found = posed(task, tmp_path)
    assert checks_of(found)["rows"].status == "pass"
    assert len(found.target_tokens) == sum(len(rows.examples) for rows in found.splits.values())
    write_rows(tmp_path, [{**row, "id": "0"} for row in plain_rows()], "test")
    assert checks_of(posed(task, tmp_path))["rows"].row == "0"
