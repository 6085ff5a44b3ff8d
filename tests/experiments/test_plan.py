"""Suites: what comes of them, and that every command they give does what the plan says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from latentwire.cli.app import main
from latentwire.config import load_config
from latentwire.errors import ConfigError, UnknownNameError
from latentwire.experiments.registry.model import State
from latentwire.experiments.registry.registry import Registry
from latentwire.experiments.work.plan import PlannedExperiment, expand, is_suite, load_suite, register

ROOT = Path(__file__).resolve().parents[2]
SUITES = ("paper.yaml", "paper_nano.yaml", "rates.yaml")


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def suite_file(folder: Path, **changes: object) -> Path:
    import yaml

    content = yaml.safe_load((ROOT / "configs/paper_nano.yaml").read_text()) | changes
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def paper() -> list[PlannedExperiment]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return expand(load_suite("configs/paper.yaml"))


def planned(name: str, paper: list[PlannedExperiment]) -> list[PlannedExperiment]:
    return paper if name == "paper.yaml" else expand(load_suite(f"configs/{name}"))


def by_name(path: Path | str) -> dict[str, PlannedExperiment]:
    return {item.name: item for item in expand(load_suite(path))}


@pytest.mark.parametrize("name", SUITES)
def test_names_are_unique_and_folders_too(name: str, paper: list[PlannedExperiment]) -> None:
    found = planned(name, paper)
    assert len({item.name for item in found}) == len({item.run_folder for item in found}) == len(found)
    assert len({item.config_hash for item in found}) == len(found)


def test_the_nano_suite_has_between_12_and_20_experiments() -> None:
    assert 12 <= len(by_name("configs/paper_nano.yaml")) <= 20


def test_the_paper_holds_every_task_method_bridge_and_seed(paper: list[PlannedExperiment]) -> None:
    from latentwire.data.task import load_task, task_names
    from latentwire.methods import METHODS

    suite = load_suite("configs/paper.yaml")
    assert set(suite.methods) | {"bridge"} == set(METHODS)
    assert set(suite.tasks) == {name for name in task_names() if load_task(name).config.source.generated is None}
    names = {item.name for item in paper}
    assert {f"paper-{task}-perceiver8-seed{seed}" for task in suite.tasks for seed in (42, 123, 456)} <= names
    assert "paper-sst2-lora-seed456" in names
    # what draws nothing at random runs once
    assert "paper-sst2-receiver_text" in names


def test_methods_that_cannot_answer_a_task_are_left_out(paper: list[PlannedExperiment]) -> None:
    names = {item.name for item in paper}
    assert "paper-gsm8k-linear_probe" not in names
    assert "paper-sst2-linear_probe" in names


def test_a_bundle_gets_one_bridge_and_its_tasks_their_methods_one_by_one(tmp_path: Path) -> None:
    records = ["tinyworld_record1", "tinyworld_record2"]
    changes = {
        "tasks": ["records"],
        "bundles": {"records": records},
        "pretrain": True,
        "transfer": [],
        "bridge_overrides": {"perceiver8": ["sender.layer=1"]},
    }
    found = by_name(suite_file(tmp_path, **changes))
    bridges = {name: item for name, item in found.items() if item.command[1] == "train"}
    assert {name.split("-")[1] for name in bridges} == {"records"}
    for name, item in bridges.items():
        assert item.run is not None
        assert item.run.task == tuple(records)
        assert item.run.sender.layer == (1 if "perceiver8" in name else 2)
        assert item.run.bridge["init"] == f"{item.run_folder}/stage1"
        assert "--pretrain" in item.command
    assert {name for name in found if "text_relay" in name} == {f"paper_nano-{task}-text_relay" for task in records}


def test_the_longest_stand_first(paper: list[PlannedExperiment]) -> None:
    expected = [item.expected_s for item in paper]
    assert expected == sorted(expected, reverse=True)


@pytest.mark.parametrize("name", SUITES)
def test_a_training_command_gives_exactly_the_planned_config(name: str, paper: list[PlannedExperiment]) -> None:
    trained = [item for item in planned(name, paper) if item.command[:2] == ("latentwire", "train")]
    for item in trained[:: max(1, len(trained) // 8)]:
        overrides = [item.command[index + 1] for index, part in enumerate(item.command) if part == "--set"]
        run = load_config(item.command[2], overrides)
        run = run.after_stage_one if "--pretrain" in item.command else run
        assert item.run is not None
        assert run.identity == item.run.identity
        assert str(run.folder) == item.run_folder
        assert item.result_file == f"{item.run_folder}/results.json"


def test_a_changed_setting_changes_the_hash_and_nothing_else_does(tmp_path: Path) -> None:
    before = by_name("configs/paper_nano.yaml")
    same = by_name(suite_file(tmp_path, cost={"start_s": 1}))
    assert {name: item.config_hash for name, item in same.items()} == {name: item.config_hash for name, item in before.items()}
    fewer_rows = by_name(suite_file(tmp_path, max_samples=10))
    assert not {item.config_hash for item in fewer_rows.values()} & {item.config_hash for item in before.values()}


def test_settings_of_the_baselines_do_not_touch_the_bridges(tmp_path: Path) -> None:
    before, after = by_name("configs/paper_nano.yaml"), by_name(suite_file(tmp_path, method_overrides=["relay_tokens=4"]))
    changed = {name for name in before if before[name].config_hash != after[name].config_hash}
    assert changed == {name for name in before if name.split("-")[2] in ("text_relay", "linear_probe")}


def test_registering_twice_changes_nothing_and_a_new_config_is_pending_again(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "runs")
    found = expand(load_suite("configs/paper_nano.yaml"))
    register(registry, found)
    events = sorted(path.name for path in registry.layout.registry.rglob("*.json"))
    register(registry, found)
    assert sorted(path.name for path in registry.layout.registry.rglob("*.json")) == events
    assert len(events) == len(found)

    first = found[0]
    claim = registry.claim(first.name, lease_s=60.0)
    assert claim is not None
    result = tmp_path / first.result_file
    result.parent.mkdir(parents=True)
    result.write_text('{"accuracy": 1.0}')
    assert registry.complete(claim, result_file=first.result_file) is State.COMPLETED
    register(registry, expand(load_suite(suite_file(tmp_path, max_samples=10))))
    assert {item.state for item in registry.experiments().values()} == {State.PENDING}


def test_the_benchmark_of_the_paper_waits_for_its_bridge(paper: list[PlannedExperiment]) -> None:
    [bench] = [item for item in paper if item.name == "paper-bench"]
    [bridge] = [item for item in paper if item.name == "paper-sst2-perceiver8-seed42"]
    assert bench.config["experiment"]["needs"] == [bridge.name]
    assert bench.command[2] == bridge.run_folder
    assert bench.result_file == "runs/paper/bench/bench.json"


def test_an_experiment_that_an_extra_needs_and_the_suite_has_not_is_named(tmp_path: Path) -> None:
    extra = {"name": "bench", "command": ["true"], "result_file": "x/y.json", "needs": ["tinyworld_topic-pooled-seed43"]}
    with pytest.raises(UnknownNameError, match="tinyworld_topic-pooled-seed42"):
        expand(load_suite(suite_file(tmp_path, extra=[extra])))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"bridges": {"a": {"soft_tokens": 8}}}, "has no name"),
        ({"bridges": {"a b": {"name": "pooled"}}}, "letters, digits"),
        ({"methods": ["bridge"]}, "under `bridges`"),
        ({"overrides": ["training.stepps=4"]}, "stepps"),
        ({"wrong": 1}, "wrong"),
        ({"extra": [{"name": "tinyworld_topic-text_relay", "command": ["true"], "result_file": "x"}]}, "two experiments"),
        ({"method_overrides": ["shts=3"]}, "method_overrides.*shts"),
        *(
            ({"extra": [{"name": "bench", "command": ["true"], "result_file": path}]}, named)
            for path, named in (
                ("docs/data/bench.json", "a folder of its own.*runs/"),
                ("runs/bench.json", "a folder of its own"),
                ("runs/paper_nano/bench.json", "a folder of its own"),
                ("runs/paper_nano/x/../bench.json", "a folder of its own"),
                ("/runs/paper_nano/x/bench.json", "a folder of its own"),
                ("runs/paper_nano/tinyworld_topic-pooled-seed42/bench.json", "folder of another experiment"),
                ("runs/paper_nano/tinyworld_topic-pooled-seed42/more/bench.json", "folder of another experiment"),
            )
        ),
    ],
)
def test_a_suite_that_does_not_fit_is_named(tmp_path: Path, changes: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        expand(load_suite(suite_file(tmp_path, **changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {"tasks": ["sst3"]},
        {"bundles": {"tinyworld_topic": ["sst3"]}},
        {"bridge_overrides": {"pooled8": ["sender.layer=1"]}},
        {"methods": ["lorra"]},
        {"transfer": [{"bridge": "x", "trained_on": "y", "evaluated_on": []}]},
    ],
)
def test_unknown_names_are_suggested(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(UnknownNameError, match=r"nown"):
        load_suite(suite_file(tmp_path, **changes))


def test_a_run_config_is_no_suite() -> None:
    assert is_suite("configs/paper.yaml")
    assert not is_suite("configs/nano.yaml")
    with pytest.raises(ConfigError, match=r"no suite .*`latentwire train configs/nano.yaml`"):
        load_suite("configs/nano.yaml")


def test_plan_lists_and_dry_run_registers_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    assert main(["experiments", "plan", "configs/paper_nano.yaml", "--dry-run", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert not (tmp_path / "runs").exists()
    assert main(["experiments", "plan", "configs/paper_nano.yaml"]) == 0
    shown = capsys.readouterr()
    assert all(item["name"] in shown.out for item in listed)
    assert "experiments worker configs/paper_nano.yaml" in shown.err
    assert main(["experiments", "status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["pending"] == len(listed)


def test_a_folder_inside_the_checkout_is_not_its_root(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT / "docs")
    assert main(["experiments", "status"]) == 2
    assert "`cd ..` and run it again" in capsys.readouterr().err
    assert not (ROOT / "docs" / "runs").exists()
