from __future__ import annotations

import math

import pytest
import torch

from latentwire.analysis.preflight.task_bits import RowBits, measure_task_bits, read_answers, task_bits
from latentwire.data.readers import read_task
from latentwire.data.task import Example, load_task
from latentwire.errors import DataError
from latentwire.models.receiver import Receiver


def rows(task: str, count: int = 24) -> tuple[Example, ...]:
    return read_task(load_task(task), "validation", max_rows=count).examples


def test_bits_of_options_are_cross_entropy_among_them(receiver: Receiver) -> None:
    examples = rows("tinyworld_topic")
    found = measure_task_bits(receiver, examples)
    # four labels that the receiver reads without a fault
    assert found.with_text.value < 0.2
    assert 1.5 < found.needed.value < 4
    assert found.text_helps
    assert found.needed.low <= found.needed.value <= found.needed.high <= found.most + 1
    prompt = examples[0].receiver_prompt_aware
    scores = receiver.score_options(receiver.prefix([prompt]), receiver.tries([prompt], [examples[0].options]))[0]
    expected = -scores.log_softmax(-1)[examples[0].label].item() / math.log(2)
    read = read_answers(receiver, examples[:3], [row.receiver_prompt_aware for row in examples[:3]])
    assert read[0].bits == pytest.approx(expected, abs=1e-4)


def test_bits_of_free_answers_hold_the_end_token_and_do_not_depend_on_the_batch(receiver: Receiver) -> None:
    examples = rows("tinyworld_record1")
    prompts = [row.receiver_prompt_aware for row in examples]
    read = read_answers(receiver, examples, prompts, max_new_tokens=8)
    assert sum(item.prediction.text == row.answer for item, row in zip(read, examples, strict=True) if item.prediction) >= 22
    ids = receiver.answer_ids(prompts[5], examples[5].answer)
    with torch.no_grad():
        log_probs, _ = receiver.answer_log_probs(receiver.prefix([prompts[5]]), [ids])
    assert ids[-1] == receiver.end_id
    assert read[5].bits == pytest.approx(-log_probs.sum().item() / math.log(2), abs=1e-3)
    found = measure_task_bits(receiver, examples)
    assert found.needed.value > 5
    assert set(found.fields) == {row.field for row in examples}
    assert found.as_dict()["needed"]["value"] == found.needed.value


def test_negative_bits_are_reported_as_such() -> None:
    found = task_bits([RowBits(str(index), "all", 1.0 + index / 100, 2.0) for index in range(20)])
    assert found.needed.value < 0
    assert not found.text_helps
    assert found.fields == {}
    with pytest.raises(DataError, match="no rows"):
        task_bits([])
