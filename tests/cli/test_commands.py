from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import pytest

from latentwire.cli.app import main
from latentwire.config import RunConfig
from latentwire.files import file_digest
from latentwire.models.nano.specs import NANO_SPECS

ROOT = Path(__file__).resolve().parents[2]
NANO = str(ROOT / "configs" / "nano.yaml")
SMALL = [
    part
    for setting in (
        "training.steps=6",
        "training.log_every=2",
        "training.validate_every=3",
        "data.train_rows=40",
        "data.validation_rows=8",
    )
    for part in ("--set", setting)
]


def python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, env=environment, check=False)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["eval", "--help"], ["nano", "--help"], ["tasks", "--help"], ["--version"]]
)
def test_help_does_not_load_torch(arguments: list[str]) -> None:
    code = (
        "import sys; from latentwire.cli.app import main; code = main(sys.argv[1:]); "
        "heavy = {'torch', 'transformers', 'datasets', 'matplotlib'} & set(sys.modules); "
        "sys.exit(f'loaded {heavy}' if heavy else code)"
    )
    done = python("-c", code, *arguments)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_needs_the_standard_library_only() -> None:
    done = python("-S", "-c", "import latentwire, sys; sys.exit('torch' in sys.modules)")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("script", ["train_telepathy.py", "eval_telepathy.py", "run_baselines.py"])
def test_the_papers_scripts_explain_themselves_without_any_package(script: str) -> None:
    shown = python("-S", f"telepathy/{script}", "--help")
    assert shown.returncode == 0, shown.stderr
    flags = ("--source_model", "--target_model", "--data_dir", "--output_dir", "--device", "--max_samples", "--dataset")
    assert all(flag in shown.stdout for flag in flags)
    bare = python("-S", f"telepathy/{script}", *(["--checkpoint", "x"] if script.startswith("eval") else []))
    assert bare.returncode == 1
    assert "make setup" in bare.stderr
    assert "Traceback" not in bare.stderr


def test_the_papers_defaults() -> None:
    shown = python("telepathy/train_telepathy.py", "--help").stdout
    for default in (
        "Llama-3.1-8B-Instruct",
        "Mistral-7B-Instruct-v0.3",
        "(default: 8)",
        "(default: 2000)",
        "(default: 0.0002)",
        "(default: 42)",
    ):
        assert default in " ".join(shown.split()).replace("- ", "-"), default
    assert "(default: adamw)" in shown


def test_train_eval_send_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["train", NANO, *SMALL, "--set", f"output_dir={out}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 6
    assert main(["eval", str(out), "--max_samples", "6"]) == 0
    shown = capsys.readouterr().out
    assert "receiver reads the text" in shown
    assert "control: shuffled" in shown
    assert "a part of the split" not in shown  # generated rows have no fixed number
    ask = ["--ask", "How many apples?", "--ask", "Who has the apples?"]
    assert main(["send", "Maria left 47 apples in Lisbon.", *ask, "--bridge", str(out / "bridge"), "--json"]) == 0
    sent = json.loads(capsys.readouterr().out)
    assert len(sent["answers"]) == 2
    assert sent["message_bytes"] == sent["soft_tokens"] * NANO_SPECS["nano-mistral"].hidden_size * 4


def test_a_dry_run_says_what_it_would_cost_and_loads_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--set", "bridge.name=perceiver", "--set", "bridge.soft_tokens=8", "--set", f"output_dir={tmp_path / 'run'}"]
    assert main(["train", NANO, *settings, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["bridge"] == "perceiver, 8 soft tokens per message"
    assert plan["trainable_params"] > 100_000
    assert plan["sender_memory_bytes"] > 1_000_000
    assert not (tmp_path / "run").exists()
    assert main(["train", NANO, "--dry-run"]) == 0
    assert "trainable parameters" in capsys.readouterr().out


def test_the_cache_can_be_looked_at_and_emptied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["train", NANO, *SMALL, "--set", f"output_dir={tmp_path / 'run'}"])
    capsys.readouterr()
    assert main(["cache", "info", "--json"]) == 0
    entry = json.loads(capsys.readouterr().out)["entries"][0]
    assert (entry["sender"], entry["texts"]) == ("nano-llama@1", 48)
    assert main(["cache", "clear", "--yes"]) == 0
    assert "freed" in capsys.readouterr().out


def test_tensorboard_events_are_written_on_request(tmp_path: Path) -> None:
    assert main(["train", NANO, *SMALL, "--set", f"output_dir={tmp_path / 'run'}", "--tensorboard"]) == 0
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


def test_fetch_of_a_local_pair_and_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", NANO]) == 0
    assert "nano-llama" in capsys.readouterr().err


def test_the_papers_train_script_takes_the_papers_flags(tmp_path: Path) -> None:
    done = python(
        "telepathy/train_telepathy.py", "--dataset", "tinyworld_topic", "--source_model", "nano-llama",
        "--target_model", "nano-mistral", "--soft_tokens", "4", "--steps", "4", "--batch_size", "4", "--max_samples", "30",
        "--output_dir", str(tmp_path / "run"), "--set", "data.validation_rows=8", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert config["bridge"] == {
        "name": "perceiver", "init": None, "soft_tokens": 4, "hidden_size": 192, "depth": 2, "heads": 6, "ffn_factor": 2
    }  # fmt: skip
    assert config["sender"]["layer"] == 4  # the last block but one
    shown = python("telepathy/eval_telepathy.py", "--checkpoint", str(tmp_path / "run" / "bridge"), "--max_samples", "5", "--json")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["rows"]


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_resume_ends_with_the_same_bytes(name: signal.Signals, tmp_path: Path) -> None:
    steps = [
        *SMALL,
        "--set",
        "training.steps=120",
        "--set",
        "training.validate_every=60",
        "--set",
        "training.checkpoint_every=1000",
    ]
    command = [sys.executable, "-m", "latentwire.cli.app", "train", NANO, *steps]
    parts, whole = ["--set", f"output_dir={tmp_path / 'parts'}"], ["--set", f"output_dir={tmp_path / 'whole'}"]
    # the order of sums, and with it the last bits, depends on the number of threads
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, *parts], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "parts" / "config.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(name)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == (130 if name == signal.SIGINT else 75), stderr
    assert "Traceback" not in stderr
    assert main(["train", NANO, *steps, *parts, "--resume"]) == 0
    assert main(["train", NANO, *steps, *whole]) == 0
    digests = [file_digest(tmp_path / run / "bridge" / "model.safetensors") for run in ("parts", "whole")]
    assert digests[0] == digests[1]


def test_an_ablation_compares_on_validation_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["ablate", NANO, *SMALL, "--vary", "bridge.look_back=0", "--seeds", "1,2", "--out", str(tmp_path), "--json"]
    assert main(command) == 0
    first = json.loads(capsys.readouterr().out)
    assert [row["variation"] for row in first] == ["base", "bridge.look_back=0"]
    assert all(len(row["by_seed"]) == 2 for row in first)
    assert main(command) == 0
    output = capsys.readouterr()
    assert json.loads(output.out) == first == json.loads((tmp_path / "ablation.json").read_text())["rows"]
    assert output.err.count("already holds this trained bridge") == 4


def test_bridges_are_listed_with_their_costs(capsys: pytest.CaptureFixture[str]) -> None:
    from latentwire.bridges import BRIDGES

    assert main(["bridges", NANO, "--context_tokens", "20", "--set", "bridge.hidden_size=64", "--json"]) == 0
    cards = {card["name"]: card for card in json.loads(capsys.readouterr().out)}
    assert set(cards) == set(BRIDGES)
    assert cards["pooled"]["costs"]["soft_tokens"] == 20
    assert cards["pooled"]["message_bytes"] == 20 * 160 * 4
    assert main(["bridges", NANO]) == 0
    assert "one soft token per 2 sender tokens" in capsys.readouterr().out


def test_both_directions_are_a_swap_of_names(tmp_path: Path) -> None:
    swapped = ["--set", "sender.model=nano-mistral", "--set", "receiver.model=nano-llama", "--set", f"output_dir={tmp_path}"]
    assert main(["train", NANO, *SMALL, *swapped]) == 0
    pair = json.loads((tmp_path / "bridge" / "config.json").read_text())["pair"]
    assert [pair["sender"]["name"], pair["receiver"]["name"]] == ["nano-mistral@2", "nano-llama@1"]
    # six steps may leave one answer for all rows, which the prediction check reports
    assert main(["eval", str(tmp_path), "--method", "bridge", "--max_samples", "8"]) in (0, 3)
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert {(row["method"], row["n"]) for row in rows if row["subset"] == "all"} == {("bridge:pooled", 8)}


def test_several_layers_reach_the_bridge_that_mixes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mixing = ["--set", "bridge.name=multi_layer", "--set", f"output_dir={tmp_path}"]
    assert main(["train", NANO, *SMALL, *mixing]) == 2
    assert "mixes several sender layers" in capsys.readouterr().err
    assert main(["train", NANO, *SMALL, *mixing, "--set", "sender.layer=[0,2]"]) == 0
    from latentwire import Telepathy

    wire = Telepathy.from_pretrained(tmp_path / "bridge")
    assert wire.sender.layer == (0, 2)
    assert wire.send(["Maria left 47 apples in Lisbon."]).soft_tokens[0] > 3
    assert main(["train", NANO, *SMALL, *mixing, "--set", "sender.layer=[2,0]"]) == 2
    assert "from the lowest up" in capsys.readouterr().err


def test_a_run_begins_from_stage_one_which_is_trained_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = [
        part
        for setting in ("steps=4", "batch_size=2", "validate_every=4", "first_stage.objective=align")
        for part in ("--set", f"pretraining.training.{setting}")
    ]
    command = [
        "train",
        NANO,
        *SMALL,
        *stage,
        "--set",
        "pretraining.validation_rows=4",
        "--set",
        f"output_dir={tmp_path}",
        "--pretrain",
    ]
    assert main([*command, "--dry-run"]) == 0
    assert not list(tmp_path.iterdir())
    assert main(command) == 0
    config = json.loads((tmp_path / "config.json").read_text())["config"]
    assert config["bridge"]["init"] == str(tmp_path / "stage1")
    trained = file_digest(tmp_path / "stage1" / "bridge" / "model.safetensors")
    capsys.readouterr()
    assert main([*command, "--overwrite"]) == 0
    assert f"{tmp_path / 'stage1'} already holds this trained bridge" in capsys.readouterr().err
    assert file_digest(tmp_path / "stage1" / "bridge" / "model.safetensors") == trained
    assert main(["train", NANO, *SMALL, "--set", f"bridge.init={tmp_path / 'stage1'}", "--set", "bridge.hidden_size=64"]) == 1
    assert "hidden_size: 384 there, 64 here" in capsys.readouterr().err


def paper_config(name: str, monkeypatch: pytest.MonkeyPatch, *flags: str) -> RunConfig:
    """The run config that a script of the paper makes of its flags; nothing is run."""
    spec = spec_from_file_location(name, ROOT / "telepathy" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    given: list[RunConfig] = []
    monkeypatch.setattr("latentwire.cli.compare.run_comparison", lambda config, **more: given.append(config))
    monkeypatch.setattr("latentwire.cli.train.run_training", lambda config, **more: given.append(config))
    monkeypatch.setattr(
        "latentwire.models.source.resolve", lambda name: SimpleNamespace(config=SimpleNamespace(num_hidden_layers=32))
    )
    monkeypatch.setattr("sys.argv", [name, *flags])
    module.main(module.parse())
    return given[0]


def test_self_bridge_is_the_papers_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = paper_config("train_telepathy", monkeypatch)
    beside = paper_config("run_baselines", monkeypatch, "--baseline", "self_bridge")
    assert (beside.bridge, beside.sender.layer) == (bridge.bridge, bridge.sender.layer)
    assert bridge.sender.layer == 31


def test_most_rows_hold_for_both_splits_of_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    data = paper_config("train_telepathy", monkeypatch, "--max_samples", "50").data
    assert (data.train_rows, data.validation_rows) == (50, 50)
    data = paper_config("train_telepathy", monkeypatch, "--max_samples", "9000").data
    assert (data.train_rows, data.validation_rows) == (9000, 500)


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        ("telepathy/train_telepathy.py", ["--datset", "sst2"], "did you mean --dataset?"),
        ("telepathy/run_baselines.py", ["--baseline", "fewsho"], "invalid choice: 'fewsho'"),
        ("telepathy/train_telepathy.py", ["--dataset", "sst3"], "did you mean sst2"),
        ("scripts/experiment_manager.py", [], "is required"),
        ("scripts/experiment_manager.py", ["--stauts"], "--status"),
    ],
)
def test_scripts_say_in_one_line_what_is_wrong(script: str, arguments: list[str], words: str) -> None:
    done = python(script, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_help_shows_each_default_once() -> None:
    shown = " ".join(python("telepathy/run_benchmarks.py", "--help").stdout.split())
    assert "None" not in shown
    assert "(default: as torch finds them) (default" not in shown
    assert "(default: 30)" in shown
