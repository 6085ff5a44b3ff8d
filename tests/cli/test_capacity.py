"""``latentwire capacity`` as a user meets it: tables, files, and one clear line where something does not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from latentwire.cli.app import main
from latentwire.training.run import train_run
from tests.cli.test_bad_input import failing
from tests.cli.test_commands import python
from tests.training.test_trainer import small_config


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "pooled"
    train_run(small_config(folder, task="tinyworld_code8", training={"steps": 2, "batch_size": 4, "warmup_steps": 0}))
    return folder


QUICK = ["--lengths", "1,4", "--codes", "5", "--ceiling_tokens", "1", "--ceiling_codes", "2", "--ceiling_steps", "2"]


def test_tables_file_and_figure(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["capacity", str(trained), *QUICK, "--out", str(tmp_path / "new" / "folder")]) == 0
    out, err = capsys.readouterr()
    assert "5 codes a length, 32 symbols (5.00 bits)" in " ".join(out.split())
    for words in (
        "control: shuffled",
        "where the bits are lost",
        "ceiling",
        "no length is greedy-exact in 90%",
        "most bits at all",
    ):
        assert words in out, words
    assert "capacity.json" in err
    written = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
    assert written == ["capacity-ceiling.json", "capacity.json", "capacity.png"]
    assert (tmp_path / "new" / "folder" / "capacity.png").read_bytes().startswith(b"\x89PNG")
    assert not (trained / "capacity.json").exists()


def test_json_is_the_file(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["capacity", str(trained), "--lengths", "2", "--codes", "3", "--no-ceiling", "--no-place", "--out", str(tmp_path)]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "capacity.json").read_text())
    # one length, nothing but the curve: the figure is drawn all the same
    assert (tmp_path / "capacity.png").is_file()


MISTAKES = {
    "letters for lengths": (["--lengths", "1,two"], "--lengths '1,two' does not fit"),
    "length 0": (["--lengths", "0,4"], "give whole numbers from 1"),
    "a length twice": (["--lengths", "4,4"], "give each once"),
    "too long": (["--lengths", "4,3000"], "codes of length 3000 do not fit: the sender"),
    "one code": (["--codes", "1"], "an interval needs at least 2"),
    "unknown alphabet": (["--alphabet", "digit"], "did you mean digits"),
    "no share": (["--exact_share", "90"], "exact share = 90"),
    "no steps": (["--ceiling_steps", "0"], "steps = 0 does not fit"),
    "unknown norm": (["--ceiling_norm", "fixed"], "norm = 'fixed' does not fit"),
    "no soft tokens": (["--ceiling_tokens", "0"], "give whole numbers from 1"),
    "no hole in the sentence": (["--sentence", "The code."], "needs {code} once"),
    "no batch": (["--batch_size", "0"], "batch size = 0"),
    "unknown device": (["--device", "tpu"], "unknown device 'tpu'"),
}


@pytest.mark.parametrize("case", sorted(MISTAKES))
def test_mistakes_get_one_line_and_leave_nothing(
    case: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, expected = MISTAKES[case]
    _, line = failing(["capacity", str(trained), "--out", str(tmp_path / "out"), *arguments], capsys)
    assert expected in line
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_folder(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is a file" in failing(["capacity", str(trained), "--out", str(trained / "config.json")], capsys)[1]


def test_a_file_that_holds_no_ceiling(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "points.json").write_text("[]")
    arguments = ["capacity", str(trained), *QUICK, "--out", str(tmp_path / "out"), "--ceiling_file", str(tmp_path / "points.json")]
    assert "holds no points of a ceiling" in failing(arguments, capsys)[1]
    assert not (tmp_path / "out").exists()


def test_folders_without_a_bridge(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no run" in failing(["capacity", str(tmp_path / "none")], capsys)[1]
    shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "bridge")
    assert "no bridge at" in failing(["capacity", str(tmp_path / "run")], capsys)[1]


def test_help_does_not_load_torch() -> None:
    code = (
        "import sys; from latentwire.cli.app import main; code = main(['capacity', '--help']); "
        "heavy = {'torch', 'transformers', 'sklearn', 'matplotlib', 'rich'} & set(sys.modules) - {'rich'}; "
        "sys.exit(f'loaded {heavy}' if heavy else code)"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert "--lengths" in done.stdout
