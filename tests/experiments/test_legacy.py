"""Registries of the old format are taken over, once and honestly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from latentwire.errors import ArtefactError
from latentwire.experiments.registry.legacy import import_file
from latentwire.experiments.registry.model import ErrorClass, State
from latentwire.experiments.registry.registry import Registry

OLD = {
    "last_updated": "2030-01-01",
    "experiments": {
        "sst2_bridge_seed42": {
            "status": "completed", "result_file": "runs/sst2/results.json", "gpu": 2, "start_time": "2030-01-01T10:00:00",
            "end_time": "2030-01-01T11:00:00", "job_id": 4711, "exit_code": 0, "note": "kept",
        },
        "empty": {"status": "completed", "results": {}},
        "gone": {"status": "completed", "result_file": "runs/gone/results.json"},
        "inside": {"status": "completed", "results": {"accuracy": 0.8}},
        "quota": {"status": "failed", "error": "OSError: [Errno 122] Disk quota exceeded", "exit_code": 1},
        "memory": {"status": "failed", "error_message": "CUDA out of memory. Tried to allocate 2.00 GiB"},
        "zombie": {"status": "running", "start_time": "2030-01-01T10:00:00"},
        "waiting": {"status": "pending"},
        "odd name/1": {"status": "something else"},
    },
}  # fmt: skip


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    (tmp_path / "runs/sst2").mkdir(parents=True)
    (tmp_path / "runs/sst2/results.json").write_text('{"accuracy": 0.93}')
    return Registry(tmp_path / "runs", note=lambda line: None)


def test_an_old_registry_in_the_place_of_the_view_is_imported(registry: Registry) -> None:
    registry.layout.view.write_text(json.dumps(OLD))
    registry.rebuild_view()
    found = registry.experiments()
    assert {name: item.state for name, item in found.items()} == {
        "sst2_bridge_seed42": State.COMPLETED, "empty": State.INVALID, "gone": State.INVALID, "inside": State.COMPLETED,
        "quota": State.FAILED, "memory": State.FAILED, "zombie": State.LOST, "waiting": State.PENDING, "odd-name-1": State.INVALID,
    }  # fmt: skip
    attempt = found["sst2_bridge_seed42"].last
    assert attempt is not None
    assert (attempt.gpu, attempt.job_id, attempt.ended, attempt.metrics) == ("2", "4711", "2030-01-01T11:00:00", {"accuracy": 0.93})
    assert found["empty"].reason == "imported: it was recorded completed with empty results"
    assert found["gone"].reason == "imported: the result file results.json does not exist"
    assert [item.last.error_class for item in (found["quota"], found["memory"]) if item.last] == [
        ErrorClass.DISK_QUOTA,
        ErrorClass.OOM,
    ]
    # what has no place of its own is kept, and so is the file
    events = "".join(path.read_text() for path in registry.layout.events("sst2_bridge_seed42").iterdir())
    assert '"imported": {"note": "kept"}' in events
    assert json.loads(registry.layout.legacy.read_text()) == OLD
    assert set(json.loads(registry.layout.view.read_text())["experiments"]) == set(found)
    assert registry.should_run("zombie")[0]
    assert not registry.should_run("empty")[0]


def test_importing_twice_or_in_two_clones_gives_the_same_events(registry: Registry, tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    old.write_text(json.dumps(OLD))
    assert import_file(registry.layout, registry.note, old) == 9
    files = {path.relative_to(registry.layout.registry): path.read_bytes() for path in registry.layout.registry.rglob("*.json")}
    import_file(registry.layout, registry.note, old)
    assert len(list(registry.layout.registry.rglob("*.json"))) == len(files)
    (tmp_path / "clone/runs/sst2").mkdir(parents=True)
    (tmp_path / "clone/runs/sst2/results.json").write_text('{"accuracy": 0.93}')
    clone = Registry(tmp_path / "clone/runs")
    import_file(clone.layout, clone.note, old)
    assert {path.relative_to(clone.layout.registry): path.read_bytes() for path in clone.layout.registry.rglob("*.json")} == files


@pytest.mark.parametrize(
    "content", ['{"experiments": {"a": {"status": "comp', "[]", '{"a": 1}', '{"experiments": {"a": {"x": 1}}}']
)
def test_what_is_no_registry_is_refused_or_set_aside(registry: Registry, tmp_path: Path, content: str) -> None:
    (tmp_path / "old.json").write_text(content)
    with pytest.raises(ArtefactError):
        import_file(registry.layout, registry.note, tmp_path / "old.json")
    registry.layout.view.write_text(content)
    registry.rebuild_view()
    assert registry.layout.view.with_name("experiment_registry.json.corrupt").read_text() == content
    assert registry.experiments() == {}


def test_a_number_that_is_none_hinders_nobody(registry: Registry) -> None:
    old = {"results": {"accuracy": 0.5, "loss": float("nan")}, "status": "completed", "best": float("inf")}
    registry.layout.view.write_text(json.dumps({"experiments": {"old": old}}))
    registry.rebuild_view()
    attempt = registry.experiment("old").last
    assert attempt is not None
    assert (attempt.state, attempt.metrics) == (State.COMPLETED, {"accuracy": 0.5})


def test_names_that_become_alike_stay_apart(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "runs")
    old = tmp_path / "old.json"
    entries = {
        "sst2/perceiver": {"status": "completed", "results": {"accuracy": 0.9}},
        "sst2 perceiver": {"status": "failed", "error": "caf\udce9"},
    }
    old.write_text(json.dumps({"experiments": entries}))
    for _ in range(2):
        import_file(registry.layout, registry.note, old)
    found = registry.experiments()
    assert sorted(item.state.value for item in found.values()) == ["completed", "failed"]
    assert [len(item.attempts) for item in found.values()] == [1, 1]
