"""Bad input gets one clear line on stderr, a non-zero exit code, no traceback, and leaves nothing half-written."""

from __future__ import annotations

import errno
import gzip
import json
import shutil
from pathlib import Path

import pytest

from latentwire.cli.app import main
from latentwire.cli.console import same_command_goes_on
from latentwire.errors import StoppedEarlyError
from latentwire.training.run import train_run
from tests.training.test_trainer import small_config

ROOT = Path(__file__).resolve().parents[2]
NANO = str(ROOT / "configs" / "nano.yaml")

USAGE: dict[str, tuple[list[str], str]] = {
    "unknown task": (["train", NANO, "--set", "task=tinyworld_recrd1"], "did you mean tinyworld_record1"),
    "unknown task file": (["train", NANO, "--set", "task=mine.yaml"], "'mine.yaml' does not exist"),
    "unknown model": (["train", NANO, "--set", "sender.model=nano-lama"], "did you mean nano-llama@1"),
    "unknown bridge": (["train", NANO, "--set", "bridge.name=poled"], "did you mean pooled"),
    "unknown key": (["train", NANO, "--set", "training.lrr=1"], "unknown key 'training.lrr'; did you mean lr"),
    "unknown bridge key": (["train", NANO, "--set", "bridge.soft_tokens=8"], "soft_tokens"),
    "bad value": (["train", NANO, "--set", "training.steps=many"], "training.steps = 'many' does not fit"),
    "bad override": (["train", NANO, "--set", "training"], "--set key.path=value"),
    "missing config": (["train", "configs/missing.yaml"], "'configs/missing.yaml' does not exist"),
    "unknown precision": (["eval", "run", "--precision", "float32,int3"], "unknown precision 'int3'; did you mean int8"),
    "unknown precision to send": (["send", "text", "--ask", "what?", "--precision", "fp8"], "unknown precision 'fp8'"),
    "unknown verbatim": (["train", NANO, "--set", "message.verbatim=rule"], "message.verbatim = 'rule' does not fit"),
    "limit without budget": (["train", NANO, "--set", "message.verbatim_bytes=8"], "set verbatim=budget"),
    "layer too high": (["train", NANO, "--set", "sender.layer=99"], "sender layer 99 does not exist"),
    "unknown device": (["train", NANO, "--device", "tpu"], "unknown device 'tpu'"),
    "device of another kind": (["train", NANO, "--device", "meta"], "unknown device 'meta'"),
    "no task": (["train", NANO, "--set", "task=[]"], "task = [] does not fit"),
    "no number": (["train", NANO, "--set", "training.lr=.inf"], "training.lr = inf does not fit"),
    "stage one without a step": (
        ["pretrain-bridge", NANO, "--set", "pretraining.training.steps=0"],
        "pretraining.training.steps = 0 does not fit",
    ),
    "a setting of methods": (["compare", NANO, "--method_set", "shots=["], "'[' is not a YAML value"),
    "a reference that is not compared": (
        ["compare", NANO, "--methods", "receiver_only", "--reference", "receiver_tex"],
        "unknown reference method 'receiver_tex'",
    ),
    "seeds that look like numbers": (["compare", NANO, "--seeds", "²"], "--seeds '²' does not fit"),
    "seeds as a variation": (["ablate", NANO, "--vary", "seed=1,2"], "write --seeds 1,2"),
    "absent device": (["train", NANO, "--device", "cuda:7"], "--device cpu"),
    "unknown command": (["trian"], "trian"),
    "missing question": (["send", "text"], "--ask"),
    "unknown embedded model": (["nano", "train", "nano-lama", "--text_dir", "x"], "did you mean nano-llama"),
}


def failing(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and the one line on stderr that tells what is wrong."""
    code = main(arguments)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, lines
    assert code != 0
    return code, lines[0]


@pytest.mark.parametrize("case", sorted(USAGE))
def test_usage_errors(case: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, expected = USAGE[case]
    code, line = failing(arguments, capsys)
    assert code == 2
    assert expected in line
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train_run(small_config(folder))
    return folder


@pytest.fixture
def run_copy(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def task_file(folder: Path, **changes: object) -> str:
    """A user's own task over ``<folder>/rows/mine/{train,test}.jsonl``."""
    content = {
        "name": "mine",
        "summary": "a test",
        "kind": "classification",
        "source": {"folder": "mine"},
        "sees": {"sender": "the text", "receiver": "a fixed question"},
        "sender_prompt": "{text}",
        "receiver_prompt": "{message}\nWhich?",
        "receiver_prompt_aware": "{text}{message}\nWhich?",
        "options": {"list": ["no", "yes"]},
        "answer": {"field": "label", "as": "index"},
        "metrics": ["accuracy"],
    }
    path = folder / "mine.yaml"
    path.write_text(json.dumps(content | changes))
    return str(path)


def rows_file(folder: Path, rows: list[dict[str, object]]) -> Path:
    for split in ("train", "test"):
        path = folder / "rows" / "mine" / f"{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "rows"


GOOD_ROWS: list[dict[str, object]] = [{"text": f"number {index}", "label": index % 2} for index in range(30)]
BAD_ROWS: dict[str, tuple[list[dict[str, object]], str]] = {
    "label outside the map": ([{"text": "a", "label": 5}], "label 5 is outside the map of 2 options (no, yes)"),
    "missing field": ([{"sentence": "a", "label": 1}], "field 'text' is missing; the row has label, sentence"),
    "empty text": ([{"text": " ", "label": 1}], "the text is empty"),
    "text longer than the model": ([{"text": "word " * 3000, "label": 1}], "reads at most 1024"),
}


def training(task: str, rows: Path, out: Path) -> list[str]:
    settings = (
        f"task={task}",
        f"data.data_dir={rows}",
        f"output_dir={out}",
        "training.steps=2",
        "training.first_stage.objective=none",
    )
    return ["train", NANO, *(part for setting in settings for part in ("--set", setting))]


@pytest.mark.parametrize("case", sorted(BAD_ROWS))
def test_rows_that_do_not_fit(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad, expected = BAD_ROWS[case]
    rows = rows_file(tmp_path, GOOD_ROWS + bad)
    code, line = failing(training(task_file(tmp_path), rows, tmp_path / "out"), capsys)
    assert code == 1
    assert expected in line
    assert not (tmp_path / "out").exists()


def test_a_missing_data_folder_lists_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_file(tmp_path, GOOD_ROWS)
    _, line = failing(training("sst2", rows, tmp_path / "out"), capsys)
    assert "--data_dir holds: mine" in line
    _, line = failing(training("sst2", tmp_path / "nowhere", tmp_path / "out"), capsys)
    assert "nowhere' does not exist" in line


def test_cut_rows_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_file(tmp_path, GOOD_ROWS)
    plain = rows / "mine" / "train.jsonl"
    packed = gzip.compress(plain.read_bytes())
    plain.unlink()
    (rows / "mine" / "train.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    _, line = failing(training(task_file(tmp_path), rows, tmp_path / "out"), capsys)
    assert "cut or corrupt" in line


def test_a_user_task_trains_and_evaluates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_file(tmp_path, GOOD_ROWS)
    task = task_file(tmp_path)
    assert main(training(task, rows, tmp_path / "out")) == 0
    # so few rows that the prediction check lets a bridge of two steps pass
    assert main(["eval", str(tmp_path / "out"), "--method", "bridge", "--max_samples", "12", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["rows"][0]["n"] == 12


@pytest.mark.parametrize("name", ["bridge/model.safetensors", "bridge/config.json", "config.json"])
def test_cut_artefacts_are_named(name: str, run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run_copy / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    code, line = failing(["eval", str(run_copy), "--max_samples", "2"], capsys)
    assert code == 1
    assert path.name in line
    assert "cut or corrupt" in line


def test_a_bridge_in_place_of_its_run_and_a_run_in_place_of_its_bridge_are_told_apart(
    run_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bridge = run_copy / "bridge"
    for command in (["eval"], ["capacity"], ["recall"], ["bench"], ["explain"], ["plot", "curve"]):
        code, line = failing([*command, str(bridge)], capsys)
        assert code == 1
        assert f"is a bridge and no run; give the folder of its run, {str(run_copy)!r}" in line
    code, line = failing(["send", "a text", "--ask", "what?", "--bridge", str(run_copy)], capsys)
    assert code == 1
    assert f"is a run; give the bridge in it, {str(bridge)!r}" in line
    (run_copy / "config.json").write_text("[]")
    assert "is no config of a run" in failing(["eval", str(run_copy)], capsys)[1]


def test_rows_that_are_no_results_are_named(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run_copy / "results.json").write_text(json.dumps({"schema_version": 2, "run": {"config": {}}, "rows": [{"task": "a"}]}))
    for command in (["limits", "add", str(run_copy), "--file", str(run_copy / "limits.json")], ["plot", "bytes", str(run_copy)]):
        assert "results.json' is cut or corrupt" in failing(command, capsys)[1]


def test_explain_takes_plain_numbers(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for row in ("²", "--5"):
        assert "does not exist" in failing(["explain", str(run_copy), "--task", "tinyworld_record1", f"--row={row}"], capsys)[1]


def test_a_bridge_refuses_other_models_and_names_both(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = run_copy / "bridge" / "config.json"
    content = json.loads(config.read_text())
    content["pair"]["receiver"]["fingerprint"] = "0123456789abcdef"
    config.write_text(json.dumps(content))
    code, line = failing(["send", "Maria left 47 apples in Lisbon.", "--ask", "How many?", "--bridge", str(config.parent)], capsys)
    assert code == 1
    assert "0123456789abcdef" in line
    assert "nano-mistral@2" in line


def test_an_empty_text_cannot_be_sent(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, line = failing(["send", "  ", "--ask", "How many?", "--bridge", str(run_copy / "bridge")], capsys)
    assert "empty" in line


def test_a_text_longer_than_the_model_cannot_be_sent(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, line = failing(["send", "word " * 3000, "--ask", "How many?", "--bridge", str(run_copy / "bridge")], capsys)
    assert "reads at most 1024" in line


def test_without_a_demo_send_says_make_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _, line = failing(["send", "a text", "--ask", "a question"], capsys)
    assert "make demo" in line


def test_the_output_folder_of_another_config_is_refused(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in run_copy.rglob("*") if path.is_file()}
    code, line = failing(["train", NANO, "--set", f"output_dir={run_copy}"], capsys)
    assert code == 1
    assert "another config" in line
    assert {path: path.read_bytes() for path in run_copy.rglob("*") if path.is_file()} == before


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("latentwire.files.os.fsync", full)
    code, line = failing(training(task_file(tmp_path), rows_file(tmp_path, GOOD_ROWS), tmp_path / "out"), capsys)
    assert code == 1
    assert "No space left on device" in line
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def results_of(run: Path) -> dict[tuple[str, str], int]:
    rows = json.loads((run / "results.json").read_text())["rows"]
    return {(row["task"], row["method"].split(":")[0]): row["n"] for row in rows if row["subset"] == "all"}


def test_a_further_evaluation_adds_and_says_what_gives_way(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = "tinyworld_topic"
    task = ["--task", own]
    assert main(["eval", str(run_copy), *task, "--method", "receiver_text", "--max_samples", "8"]) == 0
    assert main(["eval", str(run_copy), *task, "--method", "bridge", "--max_samples", "8"]) == 0
    assert main(["eval", str(run_copy), "--method", "bridge", "--task", "tinyworld_sentiment", "--max_samples", "4"]) == 0
    assert "gave way" not in capsys.readouterr().err
    assert results_of(run_copy) == {(own, "receiver_text"): 8, (own, "bridge"): 8, ("tinyworld_sentiment", "bridge"): 4}
    assert main(["eval", str(run_copy), *task, "--method", "bridge", "--max_samples", "4"]) == 0
    told = capsys.readouterr().err
    assert f"{own}, receiver_text: the earlier result over 8 rows gave way" in told
    assert results_of(run_copy) == {(own, "bridge"): 4, ("tinyworld_sentiment", "bridge"): 4}


def test_an_overwritten_run_keeps_nothing_that_was_measured_of_the_old_bridge(run_copy: Path, tmp_path: Path) -> None:
    assert main(["eval", str(run_copy), "--method", "bridge", "--max_samples", "4"]) == 0
    (run_copy / "capacity.json").write_text("{}")
    train_run(small_config(run_copy, seed=5), overwrite=True)
    assert not [name for name in ("results.json", "predictions", "capacity.json") if (run_copy / name).exists()]


def test_resume_and_overwrite_exclude_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, error = failing(["train", NANO, "--set", f"output_dir={tmp_path / 'run'}", "--resume", "--overwrite"], capsys)
    assert code == 2
    assert "exclude each other" in error
    assert not (tmp_path / "run").exists()


def test_a_task_without_notes_is_refused_before_anything_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": str(index), "text": f"text {index}", "label": index % 2} for index in range(12)]
    arguments = training(task_file(tmp_path), rows_file(tmp_path, rows), tmp_path / "run")
    code, error = failing([*arguments, "--set", "training.first_stage={objective: note, share: 0.5}"], capsys)
    assert code == 1
    assert "has no notes" in error
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"text": "caf\xe9", "label": 0}\n', "line 1: not UTF-8"),
        (b'{"text": "a", "label": 0}\n', "split 'train' has no rows (it is cut from 'train'"),
    ],
)
def test_a_file_of_rows_says_what_is_wrong_with_it(
    content: bytes, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = rows_file(tmp_path, [{"id": "1", "text": "x", "label": 0}])
    next(rows.rglob("train.jsonl")).write_bytes(content)
    code, error = failing(training(task_file(tmp_path), rows, tmp_path / "run"), capsys)
    assert code == 1
    assert words in error


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_file(tmp_path, [{"id": "1", "text": "marked", "label": 0}])
    path = rows / "mine" / "test.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert main(["tasks", "show", task_file(tmp_path), "--data_dir", str(rows)]) == 0
    assert "marked" in capsys.readouterr().out


def test_a_command_without_resume_says_how_it_goes_on() -> None:
    with pytest.raises(StoppedEarlyError, match="saved; the same command goes on from there"), same_command_goes_on():
        raise StoppedEarlyError("stopped at step 3 of 9, all saved; go on with --resume")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compare", "configs/nano.yaml", "--tasks", ","], "--tasks ',' names nothing"),
        (["compare", "configs/nano.yaml", "--methods", " , "], "names nothing"),
        (["train", "configs"], "is a folder"),
        (["tasks", "show", "tinyworld_topic", "--row", "5000000"], "is too far"),
        (["demo", "--rows", "0"], "--rows"),
        (["train", "a text pasted for a name " * 20], "no file has so long a name"),
    ],
)
def test_what_names_nothing_is_refused(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, error = failing(arguments, capsys)
    assert code in (1, 2)
    assert words in error
