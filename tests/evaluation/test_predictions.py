from __future__ import annotations

import json
from pathlib import Path

import pytest

from latentwire.errors import ArtefactError
from latentwire.evaluation.predictions import (
    PredictionHeader,
    PredictionRecord,
    find_predictions,
    prediction_path,
    read_header,
    read_predictions,
    write_predictions,
)
from tests.evaluation.making import answered, free, header

ROOT = Path(__file__).resolve().parents[2]


def test_predictions_come_back_as_they_were_written(tmp_path: Path) -> None:
    records = [free(0, "line one\nline\u2028two — “ü”", "", field="who", held_out=True), free(1, "\r\n", "x")]
    written = header(records, fit={"layer": 3, "scores": [0.5]})
    path = write_predictions(tmp_path, written, records)
    found = read_predictions(path)
    assert found.records == records
    assert found.header | {"records_sha256": ""} == written
    assert read_header(path) == found.header


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"method": "receiver_text"}, "questions/receiver_text.jsonl"),
        ({"method": "bridge:perceiver", "seed": 42}, "questions/bridge-perceiver-seed42.jsonl"),
        ({"method": "bridge:perceiver", "seed": 42, "control": "shuffled"}, "questions/bridge-perceiver-seed42-shuffled.jsonl"),
        ({"task": "../../etc", "method": "/a b\\c"}, "-..-etc/-a-b-c.jsonl"),
        ({"task": "..", "method": "x"}, "-/x.jsonl"),
    ],
)
def test_file_names_are_readable_and_stay_in_the_run(changes: dict[str, object], expected: str, tmp_path: Path) -> None:
    path = write_predictions(tmp_path, *answered([True], **changes))
    assert path == tmp_path / "predictions" / expected
    name = {"task": "questions", **changes}
    assert path == prediction_path(tmp_path, **name)  # type: ignore[arg-type]


def test_a_second_name_for_the_same_file_is_refused(tmp_path: Path) -> None:
    write_predictions(tmp_path, *answered([True], method="bridge:x"))
    with pytest.raises(ArtefactError, match=r"bridge:x.*not.*bridge-x"):
        write_predictions(tmp_path, *answered([True], method="bridge-x"))
    path = write_predictions(tmp_path, *answered([False], method="bridge:x"))
    assert read_predictions(path).records[0]["values"] == {"accuracy": 0.0}


def test_every_cut_is_refused_in_one_line(tmp_path: Path) -> None:
    path = write_predictions(tmp_path, *answered([True, False, True]))
    whole = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == 10]
    for size in (0, 1, 40, *ends[:-1], ends[0] + 9, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ArtefactError, match=r"cut or corrupt.*run again") as caught:
            read_predictions(path)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("change", [(b'"option": 1', b'"option": 0'), (b"yes", b"y\xffs"), (b"\n", b"\r\n")])
def test_changed_rows_are_refused(change: tuple[bytes, bytes], tmp_path: Path) -> None:
    path = write_predictions(tmp_path, *answered([True, True, True]))
    first, _, rest = path.read_bytes().partition(b"\n")
    path.write_bytes(first + b"\n" + rest.replace(*change))
    with pytest.raises(ArtefactError, match="cut or corrupt"):
        read_predictions(path)


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    path = write_predictions(tmp_path, *answered([True]))
    content = json.loads(path.read_text().splitlines()[0])
    path.write_text(json.dumps(content | {"schema_version": 99}) + "\n")
    with pytest.raises(ArtefactError, match="schema 99"):
        read_predictions(path)
    del content["fit"]
    path.write_text(json.dumps(content) + "\n")
    with pytest.raises(ArtefactError, match="'fit'"):
        read_predictions(path)
    path.write_text("[1]\n")
    with pytest.raises(ArtefactError, match="no header"):
        read_predictions(path)
    with pytest.raises(ArtefactError, match="do not exist"):
        read_predictions(tmp_path / "none.jsonl")


def test_all_predictions_of_a_run_and_of_several_are_found(tmp_path: Path) -> None:
    for run in ("a", "b"):
        for task in ("one", "two"):
            write_predictions(tmp_path / run, *answered([True], task=task))
    (tmp_path / "a" / "log.jsonl").write_text("{}\n")
    assert len(find_predictions(tmp_path)) == 4
    assert len(find_predictions(tmp_path / "a")) == 2
    assert len(find_predictions(tmp_path / "a" / "predictions")) == 2
    assert len(find_predictions(tmp_path / "a" / "predictions" / "one")) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtefactError, match=r"no stored predictions.*latentwire eval"):
        find_predictions(tmp_path / "empty")
    with pytest.raises(ArtefactError, match="is no folder"):
        find_predictions(tmp_path / "missing")


def test_a_number_that_is_none_cannot_be_written_and_leaves_nothing(tmp_path: Path) -> None:
    predictions = answered([True])
    predictions.records[0]["values"]["accuracy"] = float("nan")
    with pytest.raises(ValueError):
        write_predictions(tmp_path, *predictions)
    assert not list(tmp_path.rglob("*.jsonl"))


def test_every_key_is_documented() -> None:
    text = (ROOT / "docs" / "results-format.md").read_text()
    keys = set(PredictionHeader.__annotations__) | set(PredictionRecord.__annotations__)
    assert [key for key in sorted(keys) if f"`{key}`" not in text] == []
