from __future__ import annotations

import json
from pathlib import Path

import pytest

from latentwire.errors import ArtefactError, MismatchError, UnknownNameError
from latentwire.evaluation.comparison import ComparedRow, Comparison, Headline, compare
from latentwire.evaluation.predictions import find_predictions, write_predictions
from latentwire.evaluation.statistics import holm, mcnemar_exact, wilson_interval
from tests.evaluation.making import answered, header

ROWS = 60
#: method → which of 60 rows it has right
GOOD = [index % 10 != 0 for index in range(ROWS)]
FAIR = [index % 3 != 0 for index in range(ROWS)]
POOR = [index % 2 == 0 for index in range(ROWS)]


def write(folder: Path, right: list[bool], method: str, **changes: object) -> Path:
    return write_predictions(folder, *answered(right, method=method, **changes))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    write(folder, FAIR, "receiver_text")
    write(folder, POOR, "receiver_only")
    write(folder, GOOD, "sender_text")
    write(folder, FAIR, "label_byte")
    for seed, shift in ((1, 0), (2, 1), (3, 2)):
        write(folder, [(index + shift) % 10 != 0 for index in range(ROWS)], "bridge:x", seed=seed)
        write(folder, POOR, "bridge:x", seed=seed, control="shuffled")
    return folder


def row_of(found: Comparison, method: str, control: str | None = None) -> ComparedRow:
    (row,) = [row for row in found.rows if (row.method, row.control, row.subset) == (method, control, "all")]
    return row


def headline(found: Comparison, against: str) -> Headline:
    (line,) = [line for line in found.headlines if line.against == against]
    return line


def test_one_seed_is_a_share_and_several_are_pooled_by_row(run: Path) -> None:
    found = compare(find_predictions(run))
    text = row_of(found, "receiver_text")
    assert (text.seeds, text.values, text.deviation, text.interval) == ((), (pytest.approx(2 / 3),), None, "wilson")
    assert (text.low, text.high) == wilson_interval(40, 60)
    bridge = row_of(found, "bridge:x")
    assert bridge.seeds == (1, 2, 3)
    assert bridge.values == pytest.approx((0.9, 0.9, 0.9))
    assert bridge.deviation == pytest.approx(0.0)
    assert bridge.interval == "bca"
    assert bridge.low < bridge.mean < bridge.high


def test_differences_are_paired_with_the_reference(run: Path) -> None:
    found = compare(find_predictions(run))
    assert found.reference == "receiver_text"
    bridge, only = row_of(found, "bridge:x"), row_of(found, "receiver_only")
    assert bridge.versus is not None
    assert (bridge.versus.against, bridge.versus.n) == ("receiver_text", ROWS)
    assert bridge.versus.difference == pytest.approx(0.9 - 2 / 3)
    assert bridge.versus.low < bridge.versus.difference < bridge.versus.high
    assert row_of(found, "receiver_text").versus is None
    assert only.p == mcnemar_exact(POOR, FAIR)
    assert bridge.p_by_seed[0] == mcnemar_exact(GOOD, FAIR)
    assert bridge.p == sorted(bridge.p_by_seed)[1]


def test_holm_is_over_the_methods_of_a_task_and_not_its_controls(run: Path) -> None:
    found = compare(find_predictions(run))
    family = [row_of(found, name) for name in ("bridge:x", "label_byte", "receiver_only", "sender_text")]
    assert [row.p_holm for row in family] == holm([row.p or 0.0 for row in family])
    control = row_of(found, "bridge:x", "shuffled")
    assert control.p is not None
    assert control.p_holm is None


def test_the_headlines_are_matched_minus_shuffled_and_minus_the_label(run: Path) -> None:
    found = compare(find_predictions(run))
    differ = [index for index in range(ROWS) if GOOD[index] != FAIR[index]]
    for against, base in (("shuffled", POOR), ("label_byte", FAIR)):
        line = headline(found, against)
        assert line.whole is not None
        assert line.disagreeing is not None
        assert line.whole.difference == pytest.approx(0.9 - sum(base) / ROWS)
        assert line.n_disagreeing == line.disagreeing.n == len(differ)
        matched = sum((index + shift) % 10 != 0 for index in differ for shift in range(3)) / 3
        assert line.disagreeing.difference == pytest.approx((matched - sum(base[index] for index in differ)) / len(differ))


def test_what_was_not_evaluated_is_left_open(tmp_path: Path) -> None:
    write(tmp_path / "run", GOOD, "bridge:x", seed=1)
    found = compare(find_predictions(tmp_path))
    assert found.reference is None
    assert row_of(found, "bridge:x").versus is None
    assert [(line.whole, line.disagreeing, line.n_disagreeing) for line in found.headlines] == [(None, None, None)] * 2
    with pytest.raises(UnknownNameError, match="'receiver_txt'"):
        compare(find_predictions(tmp_path), "receiver_txt")
    with pytest.raises(UnknownNameError, match="did you mean questions"):
        compare(find_predictions(tmp_path), tasks=["question"])


def test_several_runs_add_their_seeds_and_equal_answers_count_once(tmp_path: Path) -> None:
    for seed in (1, 2):
        folder = tmp_path / f"run{seed}"
        write(folder, FAIR, "receiver_text", identity=f"run {seed}")
        write(folder, GOOD, "bridge:x", seed=seed)
    found = compare(find_predictions(tmp_path))
    assert [row.method for row in found.rows] == ["receiver_text", "bridge:x"]
    assert row_of(found, "bridge:x").seeds == (1, 2)


@pytest.mark.parametrize(("one", "other", "names"), [("a", "b", ["a", "b"]), ("a/run", "b/run", ["a/run", "b/run"])])
def test_different_answers_of_one_name_are_told_apart_by_the_run(tmp_path: Path, one: str, other: str, names: list[str]) -> None:
    write(tmp_path / one, GOOD, "bridge:x", seed=1)
    write(tmp_path / other, POOR, "bridge:x", seed=1)
    write(tmp_path / one, FAIR, "receiver_text")
    found = compare(find_predictions(tmp_path))
    assert {row.method for row in found.rows} == {f"bridge:x@{name}" for name in names} | {"receiver_text"}
    assert row_of(found, f"bridge:x@{names[0]}").mean == pytest.approx(0.9)
    assert row_of(found, f"bridge:x@{names[1]}").mean == pytest.approx(0.5)


def test_only_rows_with_the_same_prompts_are_compared(tmp_path: Path) -> None:
    write(tmp_path / "run", FAIR[:30], "receiver_text")
    write(tmp_path / "run", GOOD, "bridge:x", seed=1)
    versus = row_of(compare(find_predictions(tmp_path)), "bridge:x").versus
    assert versus is not None
    assert versus.n == 30
    _, records = answered(FAIR, method="receiver_text")
    others = [record | {"prompt_hash": "another"} for record in records]
    write_predictions(tmp_path / "run", header(others, method="receiver_text"), others)  # type: ignore[arg-type]
    assert row_of(compare(find_predictions(tmp_path)), "bridge:x").versus is None


def test_seeds_over_different_rows_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "run", GOOD, "bridge:x", seed=1)
    write(tmp_path / "run", GOOD[:30], "bridge:x", seed=2)
    with pytest.raises(MismatchError, match="seeds 1 and 2 of 'bridge:x' answered different rows"):
        compare(find_predictions(tmp_path))


def test_scores_in_between_have_no_mcnemar(tmp_path: Path) -> None:
    for method, period in (("receiver_text", 2), ("bridge:x", 3)):
        _, records = answered(GOOD)
        scored = [record | {"values": {"f1": index % period / 4}} for index, record in enumerate(records)]
        write_predictions(tmp_path, header(scored, method=method), scored)  # type: ignore[arg-type]
    row = row_of(compare(find_predictions(tmp_path)), "bridge:x")
    assert row.p is None
    assert row.versus is not None
    assert (row.versus.difference, row.versus.interval) == (pytest.approx(1 / 4 - 1 / 8), "bca")


def test_a_seeded_reference_is_met_by_every_seed(run: Path) -> None:
    found = compare(find_predictions(run), "bridge:x")
    assert len(row_of(found, "receiver_text").p_by_seed) == 3
    assert row_of(found, "bridge:x", "shuffled").versus is not None


def test_a_cut_file_is_refused_and_the_comparison_is_json(run: Path) -> None:
    assert json.loads(json.dumps(compare(find_predictions(run)).as_json()))["reference"] == "receiver_text"
    path = find_predictions(run)[0]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ArtefactError, match=path.name):
        compare(find_predictions(run))


def test_seeds_of_two_configs_are_no_seeds_of_one_method(tmp_path: Path) -> None:
    for name, rate, seed in (("short-seed1", 4, 1), ("short-seed2", 4, 2), ("long-seed3", 2, 3)):
        write(tmp_path / name, GOOD, "bridge:x", seed=seed)
        write(tmp_path / name, FAIR, "receiver_text")
        config = {"bridge": {"name": "x", "rate": rate, "init": f"stage one of {seed}"}, "seed": seed, "output_dir": name}
        (tmp_path / name / "config.json").write_text(json.dumps({"identity": "", "config": config}))
    found = compare(find_predictions(tmp_path))
    assert {row.method: row.seeds for row in found.rows if row.control is None} == {
        "receiver_text": (), "bridge:x@short": (1, 2), "bridge:x@long": (3,),
    }  # fmt: skip
    assert [row.method for row in compare(find_predictions(tmp_path / "short-seed1")).rows] == ["receiver_text", "bridge:x"]


def test_configs_of_several_tasks_leave_a_methods_name_alone(tmp_path: Path) -> None:
    for task in ("one", "two"):
        for seed in (1, 2):
            folder = tmp_path / f"{task}-x-seed{seed}"
            write(folder, GOOD, "bridge:x", seed=seed, task=task)
            config = {"task": [task], "bridge": {"name": "x"}, "seed": seed}
            (folder / "config.json").write_text(json.dumps({"identity": "", "config": config}))
    found = compare(find_predictions(tmp_path))
    assert [(row.task, row.method, row.seeds) for row in found.rows] == [("one", "bridge:x", (1, 2)), ("two", "bridge:x", (1, 2))]


def test_two_configs_with_the_same_seeds_are_two_methods_of_as_many_seeds(tmp_path: Path) -> None:
    for name, rate, right in (("short", 4, GOOD), ("long", 2, FAIR)):
        for seed in (1, 2):
            write(tmp_path / f"{name}-seed{seed}", right, "bridge:x", seed=seed)
            config = {"bridge": {"name": "x", "rate": rate}, "seed": seed}
            (tmp_path / f"{name}-seed{seed}" / "config.json").write_text(json.dumps({"identity": "", "config": config}))
    found = compare(find_predictions(tmp_path))
    assert {row.method: row.seeds for row in found.rows} == {"bridge:x@short": (1, 2), "bridge:x@long": (1, 2)}
