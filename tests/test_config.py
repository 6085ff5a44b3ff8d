from __future__ import annotations

import re
from itertools import permutations
from pathlib import Path

import pytest

from latentwire.config import RunConfig, build_config, load_config
from latentwire.errors import ConfigError, UnknownNameError
from latentwire.experiments.work.plan import is_suite, load_suite

REPOSITORY = Path(__file__).resolve().parents[1]
SMALL = {
    "task": "sst2",
    "sender": {"model": "nano-llama"},
    "receiver": {"model": "nano-mistral"},
    "bridge": {"name": "perceiver", "soft_tokens": 4},
}


def build(*overrides: str, **changes: object) -> RunConfig:
    return build_config({**SMALL, **changes}, overrides, where="config")


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(
        "task: [sst2, trec]\nsender: {model: nano-llama}\nreceiver: {model: nano-mistral}\ntraining: {steps: 7, lr: 2e-4}\n"
    )
    return path


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_ready_config_is_valid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)  # a suite names its run config from there
    if is_suite(str(path)):
        assert load_suite(str(path)).tasks
    else:
        assert load_config(path).task


def test_a_suite_is_no_run_config_and_the_error_says_what_to_type() -> None:
    with pytest.raises(ConfigError, match=r"suite .* `latentwire experiments plan .*paper_nano.yaml`.*'configs/nano.yaml'"):
        load_config(REPOSITORY / "configs/paper_nano.yaml")


def test_file_gives_its_values_and_leaves_the_defaults(config_file: Path) -> None:
    config = load_config(config_file)
    assert config.task == ("sst2", "trec")
    assert (config.training.steps, config.training.lr, config.training.batch_size) == (7, 2e-4, 16)
    assert config.bridge["soft_tokens"] == 8
    assert str(config.folder) == "runs/2tasks-perceiver-seed42"


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("task=tinyworld_topic", "task", ("tinyworld_topic",)),
        ("task=[sst2, agnews]", "task", ("sst2", "agnews")),
        ("training.lr=1e-3", "training.lr", 1e-3),
        ("training.first_stage.objective=note", "training.first_stage.objective", "note"),
        ("sender.layer=0", "sender.layer", 0),
        ("variant.sender_sees=all", "variant.sender_sees", "all"),
        ("variant.max_new_tokens=300", "variant.max_new_tokens", 300),
        ("prompt_style=chat", "prompt_style", "chat"),
        ("data.train_rows=null", "data.train_rows", None),
        ("output_dir=runs/x=y", "output_dir", "runs/x=y"),
        (" seed =7", "seed", 7),
    ],
)
def test_override_reaches_its_key(override: str, path: str, value: object) -> None:
    found: object = build(override)
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value


def test_later_override_wins() -> None:
    assert build("seed=1", "seed=2").seed == 2


def test_overrides_leave_the_given_mapping_alone() -> None:
    content = {**SMALL, "training": {"steps": 3}}
    build_config(content, ["training.steps=9", "bridge.soft_tokens=2"], where="config")
    assert content == {**SMALL, "training": {"steps": 3}}
    assert SMALL["bridge"] == {"name": "perceiver", "soft_tokens": 4}


@pytest.mark.parametrize(
    "overrides", list(permutations(("bridge.tokens_per_soft_token=2", "bridge.name=pooled", "bridge.hidden_size=64"))), ids=str
)
def test_new_bridge_drops_the_old_settings_in_any_order(overrides: tuple[str, ...]) -> None:
    expected = {"name": "pooled", "tokens_per_soft_token": 2, "hidden_size": 64, "look_back": 1, "look_ahead": 0, "init": None}
    assert build(*overrides).bridge == expected


def test_a_new_bridge_says_which_settings_it_could_have_kept(caplog: pytest.LogCaptureFixture) -> None:
    content = {**SMALL, "bridge": {"name": "pooled", "tokens_per_soft_token": 2, "stride": 2, "hidden_size": 64}}
    build_config(content, ["bridge.name=attentive", "bridge.hidden_size=48"], where="config")
    assert [record.getMessage() for record in caplog.records] == [
        "bridge.name leaves out the config's other bridge settings (stride: 2); give those that are to stay, "
        "for example --set bridge.stride=2"
    ]
    caplog.clear()
    # nothing to keep, or nothing left out
    build_config(content, ["bridge.name=perceiver", "bridge.stride=2", "bridge.hidden_size=24"], where="config")
    build_config(content, ["bridge.hidden_size=48"], where="config")
    assert not caplog.records


def test_bridge_setting_alone_keeps_the_others() -> None:
    assert build("bridge.depth=1").bridge == {**build().bridge, "depth": 1}
    assert build("bridge.depth=1").bridge["soft_tokens"] == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainin.steps=3", r"unknown key 'trainin'; did you mean training or pretraining\?"),
        ("training.step=3", r"unknown key 'training.step'; did you mean .*steps.*\?"),
        ("training.first_stage.objectiv=note", r"unknown key 'training.first_stage.objectiv'; did you mean objective\?"),
        ("sender.layers=3", r"unknown key 'sender.layers'; did you mean layer\?"),
        ("bridge.soft_token=3", r"bridge 'perceiver': unknown key 'soft_token'; did you mean soft_tokens"),
        ("training.steps=0", r"training.steps = 0 does not fit: "),
        ("training.steps=soon", r"training.steps = 'soon' does not fit: "),
        ("training.optimizer=sgd", r"training.optimizer = 'sgd' does not fit: .*adamw.*muon"),
        ("variant.sender_see=all", r"unknown key 'variant.sender_see'; did you mean sender_sees"),
        ("variant.target=both", r"variant.target = 'both' does not fit: "),
        ("prompt_style=raw", r"prompt_style = 'raw' does not fit: "),
        ("sender.dtype=int2", r"sender.dtype = 'int2' does not fit: "),
        ("seed", r"^override 'seed' does not fit; write --set key.path=value$"),
        ("=3", r"^override '=3' does not fit; write --set key.path=value$"),
        ("seed.x=3", r"^config: seed = \{'x': 3\} does not fit: "),
        ("task.x=3", r"^override 'task.x=3' does not fit: 'task' holds a value, not a group$"),
        ("seed=[1", r"^override 'seed=\[1' does not fit: '\[1' is not a YAML value$"),
    ],
)
def test_bad_override_is_one_line_that_names_it(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(override)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_unknown_bridge_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"^unknown bridge 'perciever'; did you mean perceiver"):
        build("bridge.name=perciever")


@pytest.mark.parametrize("key", ["task", "sender", "receiver"])
def test_missing_key_is_named(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^config: key '{key}' is missing$"):
        build_config({name: value for name, value in SMALL.items() if name != key}, where="config")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"task: [sst2\nsender: {", "is not YAML"),
        (b"\xff\xfe\x00t", "is not YAML"),
        (b"just a line", "holds no `key: value` lines"),
        (b"", "holds no `key: value` lines"),
    ],
)
def test_file_that_is_no_config_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"^config '.*bad.yaml' {message}") as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


def test_missing_file_lists_the_ready_configs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.yaml").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^config 'nanoo.yaml' does not exist; ready configs: configs/mine.yaml$"):
        load_config("nanoo.yaml")


def test_identity_does_not_follow_the_output_folder() -> None:
    assert build("output_dir=elsewhere").identity == build().identity
    assert build("output_dir=elsewhere").folder == Path("elsewhere")


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "training.lr=0.1",
        "bridge.soft_tokens=5",
        "sender.layer=1",
        "task=trec",
        "variant.target=solution",
        "prompt_style=plain",
    ],
)
def test_identity_follows_what_decides_the_weights(override: str) -> None:
    assert build(override).identity != build().identity


def test_identity_is_the_same_for_a_default_spelt_out() -> None:
    assert build("training.steps=2000", "bridge.depth=2").identity == build().identity


def test_runs_from_before_a_setting_came_keep_their_identity() -> None:
    spelt_out = ("bridge.gain=1", "data.made_up_from=letters", "training.compile=false", "training.length_buckets=1")
    assert build(*spelt_out).identity == build().identity
    assert "gain" not in build().bridge
    assert build("packing.steps=7").identity == build().identity
    drawn = (
        "training.align_to=packing",
        "training.terms.align=1",
        "pretraining.training.align_to=packing",
        "pretraining.training.terms.align=1",
    )
    for which in (lambda config: config, lambda config: config.stage_one):
        assert which(build(*drawn, "packing.steps=7")).identity != which(build(*drawn)).identity
    for changed in ("bridge.gain=2", "data.made_up_from=parts", "training.compile=true"):
        assert build(changed).identity != build().identity


def test_saved_config_reads_back_as_itself() -> None:
    config = build("training.lr=3e-4", "data.train_rows=9")
    assert build_config(config.model_dump(mode="json"), where="config") == config


@pytest.mark.parametrize(
    ("setting", "default", "other"),
    [
        ("gain", 1.0, 2.0),
        ("stride", 1, 2),
        ("unfold", 0, 2),
        ("unfold_start", "listening", "drawn"),
        ("skip", 0, 2),
        ("apart", False, True),
    ],
)
def test_a_bridge_setting_that_came_later_and_is_left_alone_makes_no_other_run(
    setting: str, default: object, other: object
) -> None:
    bridge = {"name": "pooled", "hidden_size": 64}
    left_alone, said, changed = (
        build_config({**SMALL, "bridge": {**bridge, **more}}, where="config") for more in ({}, {setting: default}, {setting: other})
    )
    assert setting not in left_alone.bridge
    assert said.identity == left_alone.identity != changed.identity


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("pretraining.texts=runs/texts", "write a list, such as [a, b]"),
        ("training=5", "is a group of settings; set one of its keys"),
    ],
)
def test_what_does_not_fit_is_said_without_python(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        load_config("configs/nano.yaml", [override])
