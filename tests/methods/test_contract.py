"""What holds for every method in the table."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite

import pytest

from latentwire.data.readers import read_task
from latentwire.data.task import Example, load_task
from latentwire.errors import UnknownNameError, UsageError
from latentwire.methods import METHODS, build_method, method_class
from latentwire.methods.base import FitData, Method, Parts, Prediction

TASKS = ("tinyworld_topic", "tinyworld_record1")


def fitted(name: str, parts: Parts, data: FitData) -> Method:
    method = build_method(name, parts)
    if method.fits:
        method.fit(data)
    return method


@pytest.mark.parametrize("task_name", TASKS)
@pytest.mark.parametrize("name", METHODS)
def test_every_method_answers_every_row_or_says_why_not(
    name: str, task_name: str, parts: Parts, fit_data: Callable[..., FitData]
) -> None:
    task = load_task(task_name)
    reason = build_method(name, parts).unsuitable(task)
    if reason is not None:
        assert task.name in reason
        return
    rows = read_task(task, "test", max_rows=5).examples
    method = fitted(name, parts, fit_data(task_name))
    found = method.predict(rows, max_new_tokens=6)
    assert len(found) == len(rows)
    for row, prediction in zip(rows, found, strict=True):
        assert prediction.message_bytes >= 0
        if row.options:
            assert prediction.option is not None
            assert prediction.scores is not None
            assert prediction.text == row.options[prediction.option]
            assert len(prediction.scores) == len(row.options)
            assert all(isfinite(score) for score in prediction.scores)
            assert prediction.option == prediction.scores.index(max(prediction.scores))
        else:
            assert prediction.option is None
    assert method.label.startswith(name)
    assert method.sender_sees
    assert method.receiver_sees


@pytest.mark.parametrize("name", ["receiver_text", "sender_text", "linear_probe", "ridge", "bridge", "lora"])
def test_an_answer_does_not_depend_on_its_batch(name: str, parts: Parts, fit_data: Callable[..., FitData]) -> None:
    rows = read_task(load_task("tinyworld_topic"), "test", max_rows=4).examples
    method = fitted(name, parts, fit_data("tinyworld_topic"))
    together = method.predict(rows, max_new_tokens=4)
    apart = [method.predict([row], max_new_tokens=4)[0] for row in rows]
    for one, other in zip(together, apart, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-3)


@pytest.mark.parametrize("name", [name for name in METHODS if method_class(name).controls])
def test_controls_destroy_the_message_and_nothing_else(name: str, parts: Parts, fit_data: Callable[..., FitData]) -> None:
    from latentwire.evaluation.controls import build_control

    rows = read_task(load_task("tinyworld_topic"), "test", max_rows=4).examples
    method = fitted(name, parts, fit_data("tinyworld_topic"))
    true = method.predict(rows, max_new_tokens=4)
    for control in method.controls:
        destroyed = method.predict(rows, max_new_tokens=4, control=build_control(control, rows))
        assert [prediction.scores for prediction in destroyed] != [prediction.scores for prediction in true]
    zero = method.predict(rows, max_new_tokens=4, control=build_control("zero", rows))
    assert [p.message_tokens for p in zero] == [p.message_tokens for p in true]


def test_the_first_line_of_every_docstring_is_a_sentence_for_the_list() -> None:
    for name in METHODS:
        first = (method_class(name).__doc__ or "").splitlines()[0]
        assert first.endswith((".", "?")), name
        assert len(first) <= 120, name


class Parrot(Method):
    """Always the first option: an example of a method from outside the package."""

    name = "parrot"
    blind = True

    def predict(self, examples: list[Example], *, max_new_tokens: int, control: object = None) -> list[Prediction]:  # type: ignore[override]
        return [Prediction(row.options[0], 0, tuple(-float(i) for i in range(len(row.options))), 0, 0) for row in examples]


def test_a_method_from_outside_the_package_is_taken_by_module_and_class(parts: Parts) -> None:
    assert build_method("tests.methods.test_contract:Parrot", parts).name == "parrot"


def test_unknown_methods_are_refused_with_the_nearest_name(parts: Parts) -> None:
    with pytest.raises(UnknownNameError, match="fewshot"):
        build_method("few_shot", parts)
    with pytest.raises(UsageError, match="module:Class"):
        build_method("tests.methods.nowhere:Parrot", parts)
    with pytest.raises(UsageError, match="no subclass"):
        build_method("json:JSONDecoder", parts)
