"""The configuration of a run: what is trained between which models on which tasks, and where it is written.

A config comes from a YAML file and ``key.path=value`` overrides, is checked as a whole, and is saved beside every result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from logging import getLogger
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from latentwire.data.task_config import TaskVariant
from latentwire.errors import ConfigError
from latentwire.files import digest
from latentwire.messages.settings import MessageSettings
from latentwire.schema import Schema, Setting, settings_in, validated

#: the task name and folder of a run that pretrains a bridge
STAGE_ONE = "stage1"
#: the folder of a packing
PACKING = "packing"
#: what of a bridge a packing depends on: how many soft tokens it sends, how large they are at first and how they are read
DECIDES_PACKING = ("name", "tokens_per_soft_token", "soft_tokens", "gain", "stride", "unfold", "unfold_start", "skip")
#: in a run folder: the resolved config, the trained bridge, what was measured of it
CONFIG_FILE, ARTEFACT_FOLDER, RESULTS_FILE = "config.json", "bridge", "results.json"


class ModelSettings(Schema):
    """One of the two language models."""

    model: str = Field(description="embedded name, folder or Hub id")
    revision: str | None = Field(None, description="branch, tag or commit on the Hub; default: main")
    dtype: Literal["float32", "bfloat16", "float16", "int8", "int4"] | None = Field(
        None, description="default: bfloat16 on accelerators, float32 on a CPU; int8 and int4 need a CUDA GPU"
    )
    device: str | None = Field(None, description="cpu, mps, cuda or cuda:N where each model has its own; --device puts both on one")


class SenderSettings(ModelSettings):
    """The sender, and which hidden state the bridge reads."""

    layer: int | tuple[int, ...] | None = Field(
        None, description="hidden state to read (0: embeddings), or several, from the lowest up; default: half of the depth"
    )

    @field_validator("layer")
    @classmethod
    def _in_order(cls, value: int | tuple[int, ...] | None) -> int | tuple[int, ...] | None:
        layers = (value,) if isinstance(value, int) else value
        if layers is not None and (not layers or layers[0] < 0 or sorted(set(layers)) != list(layers)):
            raise ValueError("give a layer from 0 on, or several, each once and from the lowest up, such as [0, 1, 2]")
        return layers[0] if layers is not None and len(layers) == 1 else value


class DataSettings(Schema):
    """Rows: where from and how many. ``None`` takes all."""

    data_dir: str | None = Field(None, description="folder with <set>/<split>.jsonl[.gz]; default: the Hub")
    train_rows: int | None = Field(None, ge=1, description="train rows of each task at most; default: all")
    validation_rows: int | None = Field(500, ge=1, description="rows cut from train to choose weights by; null: all there are")
    made_up_words: float = Field(0.0, ge=0, le=1, description="share of generated train contexts with made-up names and places")
    made_up_from: Literal["letters", "parts"] = Field(
        "letters", description="made-up words are spelled at random, or crossed from known parts"
    )
    cache_cap_gib: float = Field(50.0, gt=0, description="the cache of sender states at most; what was used least recently goes")


class FirstStage(Schema):
    """Steps before the task that teach a bridge what a message is made of.

    ``align``: soft tokens near the receiver's own embeddings of the words they stand for (``align_to``), without a pass of it.
    ``note``, ``text``: the receiver writes the note, or the sender's text, from the soft tokens.
    """

    objective: Literal["none", "align", "note", "text"] = Field("none", description="what is taught in the first steps")
    share: float = Field(0.5, ge=0, lt=1, description="share of all steps")


class Terms(Schema):
    """Weights of the parts of the task's loss (``latentwire.training.objectives``); all but ``answer`` are left out at 0."""

    answer: float = Field(1.0, ge=0, description="the answer, or the option among all")
    note: float = Field(0.0, ge=0, description="the receiver also writes the note")
    text: float = Field(0.0, ge=0, description="the receiver also writes the sender's text")
    align: float = Field(0.0, ge=0, description="soft tokens near the receiver's embeddings of the words they stand for")
    kl: float = Field(0.0, ge=0, description="the answer's distribution near that of the receiver which reads the text")
    contrast: float = Field(0.0, ge=0, description="the row's own message must explain the answer better than another row's")
    diversity: float = Field(0.0, ge=0, description="messages of different rows apart")


class TrainingSettings(Schema):
    """Optimisation of the bridge."""

    steps: int = Field(2000, ge=0, description="0: the bridge stays as it begins")
    batch_size: int = Field(16, ge=1, description="messages per step")
    questions_per_message: int = Field(1, ge=1, description="rows that share a context and are asked about one message in one pass")
    optimizer: Literal["adamw", "muon"] = Field("adamw", description="muon: updates of matrices orthogonalised, AdamW for the rest")
    lr: float = Field(2e-4, gt=0, description="learning rate at its highest; it falls to zero on a cosine")
    weight_decay: float = Field(0.01, ge=0, description="decoupled from the gradient")
    warmup_steps: int = Field(100, ge=0, description="steps in which the learning rate rises")
    clip_norm: float = Field(1.0, gt=0, description="norm of all gradients together at most")
    token_dropout: float = Field(0.0, ge=0, lt=1, description="share of sender tokens that a bridge does not see in a step")
    terms: Terms = Terms()
    first_stage: FirstStage = FirstStage()
    align_to: Literal["text", "note", "packing"] = Field(
        "text", description="to whose words: the sender's text, in place; its note; or the note as a packing learned to say it"
    )
    option_objective: Literal["options", "answer"] = Field(
        "options", description="where there are options: cross-entropy among them, or of the tokens of the gold one"
    )
    sampled_options: int = Field(16, ge=2, description="options per row where the trie has more than 64 nodes")
    length_buckets: int = Field(
        1, ge=1, description="batches of contexts alike in length, cut from so many batches of the shuffled rows; 1: as shuffled"
    )
    compile: bool = Field(False, description="torch.compile for the receiver's passes: faster steps after a minute")
    log_every: int = Field(50, ge=1, description="steps between two lines of log.jsonl")
    validate_every: int = Field(500, ge=1, description="steps between two looks at the validation rows")
    checkpoint_every: int = Field(250, ge=1, description="steps between two checkpoints")

    @property
    def aligns(self) -> bool:
        """Whether any step draws soft tokens towards words."""
        return bool(self.terms.align) or self.first_stage.objective == "align"

    @property
    def needs_packing(self) -> bool:
        return self.aligns and self.align_to == "packing"


class PackingSettings(TrainingSettings):
    """How the packing is learned that ``align_to=packing`` draws a bridge towards (``latentwire.training.packing``)."""

    steps: int = Field(1500, ge=1, description="steps of the packing")
    batch_size: int = Field(32, ge=1, description="messages per step")
    questions_per_message: int = Field(3, ge=1, description="rows that share a context and are asked about one message in one pass")
    lr: float = Field(3e-3, gt=0, description="learning rate at its highest")
    weight_decay: float = Field(0.0, ge=0, description="decoupled from the gradient")
    warmup_steps: int = Field(50, ge=0, description="steps in which the learning rate rises")
    validate_every: int = Field(250, ge=1, description="steps between two looks at the validation rows")
    most_said: int = Field(8, ge=1, description="soft tokens in which a record is said; those behind say nothing")
    redrawn: float = Field(
        0.0, ge=0, le=1, description="share of the train messages in which each record's number of soft tokens is drawn evenly"
    )


class Lessons(Schema):
    """Shares of what the receiver writes from a message in stage one."""

    repeat: float = Field(1.0, ge=0, description="the text that the sender read")
    go_on: float = Field(1.0, ge=0, description="what follows it")
    note: float = Field(1.0, ge=0, description="the tiny world's note on it; other texts have none")

    @model_validator(mode="after")
    def _some(self) -> Lessons:
        if not any((self.repeat, self.go_on, self.note)):
            raise ValueError("all lessons have the share 0; give repeat, go_on or note more")
        return self


class PretrainingSettings(Schema):
    """Stage one (``latentwire pretrain-bridge``): a pair's bridge learns to carry general text, before any task."""

    texts: tuple[str, ...] = Field(("tinyworld",), min_length=1, description="tinyworld, text files, or folders of .txt files")
    scenes: tuple[str, ...] | None = Field(None, min_length=1, description="kinds of tiny-world scenes; default: all")
    lessons: Lessons = Lessons()
    context_tokens: int = Field(96, ge=4, description="sender tokens of a text at most")
    target_tokens: int = Field(64, ge=2, description="receiver tokens that are written at most")
    control_tokens: int = Field(4, ge=1, description="learned tokens behind the message that say what to write")
    validation_rows: int = Field(200, ge=1, description="texts kept apart to choose weights by")
    training: TrainingSettings = TrainingSettings()


class PromptSettings(Schema):
    """How tasks are posed and prompts written: the same for every task and both models of a run."""

    variant: TaskVariant = TaskVariant()
    prompt_style: Literal["plain", "chat", "auto"] = Field("auto", description="auto: chat where the tokenizer has a template")


class RunConfig(PromptSettings):
    """Everything that decides a trained bridge."""

    task: tuple[str, ...] = Field(min_length=1, description="one task or several, by name or YAML file; see `latentwire tasks`")
    sender: SenderSettings
    receiver: ModelSettings
    bridge: dict[str, Any] = Field(default_factory=lambda: {"name": "perceiver"})
    data: DataSettings = DataSettings()
    training: TrainingSettings = TrainingSettings()
    pretraining: PretrainingSettings = PretrainingSettings()
    packing: PackingSettings = PackingSettings()
    message: MessageSettings = MessageSettings()
    seed: int = Field(42, description="of everything that is drawn")
    output_dir: str | None = Field(None, description="folder of the run; default: runs/ with task, bridge and seed")

    @field_validator("task", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @property
    def name(self) -> str:
        """A folder name: task, bridge and seed."""
        tasks = self.task[0] if len(self.task) == 1 else f"{len(self.task)}tasks"
        return f"{Path(tasks).stem}-{self.bridge.get('name', 'perceiver')}-seed{self.seed}"

    @property
    def folder(self) -> Path:
        return Path(self.output_dir) if self.output_dir else Path("runs") / self.name

    @property
    def stage_one(self) -> RunConfig:
        """The run that pretrains this config's bridge: the same for all tasks of a pair, unless the config has a folder."""
        ends = (Path(end.model).name for end in (self.sender, self.receiver))
        shared = Path("runs") / "-".join((*ends, str(self.bridge.get("name", "perceiver")), f"seed{self.seed}"))
        return self.model_copy(
            update={
                "task": (STAGE_ONE,),
                "bridge": {**self.bridge, "init": None},
                "training": self.pretraining.training,
                "output_dir": str((Path(self.output_dir) if self.output_dir else shared) / STAGE_ONE),
            }
        )

    @property
    def needs_packing(self) -> bool:
        """Whether its bridge, or that of its stage one, is drawn towards packed notes."""
        return self.training.needs_packing or self.pretraining.training.needs_packing

    @property
    def needs_own_packing(self) -> bool:
        """Whether a training of this config alone needs a packing, and begins from nothing that would have one beside it."""
        return self.training.needs_packing and not self.bridge.get("init")

    @property
    def packing_run(self) -> RunConfig:
        """The run that learns the packing: beside stage one, on the config's tasks, whatever is inside the bridge."""
        return self.model_copy(
            update={
                "bridge": {key: value for key, value in self.bridge.items() if key in DECIDES_PACKING},
                "training": self.packing,
                "output_dir": str(self.stage_one.folder.parent / PACKING),
            }
        )

    @property
    def packing_folder(self) -> Path:
        """Where the packing lies: beside the stage one that the bridge begins with, or that is beside this run."""
        init = self.bridge.get("init")
        stage_one = Path(init) if init else self.folder if self.task == (STAGE_ONE,) else self.stage_one.folder
        return stage_one.parent / PACKING

    @property
    def after_stage_one(self) -> RunConfig:
        """This config with its bridge beginning from that of ``stage_one``."""
        return self.model_copy(update={"bridge": {**self.bridge, "init": str(self.stage_one.folder)}})

    @property
    def identity(self) -> str:
        """Hash of all that decides the weights; two configs with equal identity train the same bridge."""
        unused: dict[str, Any] = {"output_dir": True, "sender": {"device"}, "receiver": {"device"}}
        # what came later and is left alone changes nothing, so runs from before there was a choice keep their identity
        unused["training"] = _left_alone(self.training, "length_buckets", "compile")
        unused["pretraining"] = (
            {"training": _left_alone(self.pretraining.training, "length_buckets", "compile")} if self.task == (STAGE_ONE,) else True
        )
        left_alone = _left_alone(self.packing, "most_said", "redrawn")
        if isinstance(self.training, PackingSettings):
            # a packing's own run: the settings that all trainings have stand under ``training``
            more = {"most_said", "redrawn"} - left_alone
            unused["packing"] = PackingSettings.model_fields.keys() - more if more else True
        else:
            unused["packing"] = left_alone if self.training.needs_packing else True
        unused["data"] = _left_alone(self.data, "made_up_from")
        if self.message == MessageSettings():
            unused["message"] = True
        return digest(self.model_dump_json(exclude=unused))[:16]


def _left_alone(settings: Schema, *names: str) -> set[str]:
    """Those of the named settings that are at their defaults."""
    fields = type(settings).model_fields
    return {name for name in names if name in fields and getattr(settings, name) == fields[name].default}


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The config in a YAML file, or in the ``config.json`` of a run, with ``key.path=value`` overrides applied.

    Raises:
        ConfigError: the file or an override does not fit; the message names the key and its nearest neighbours.
    """
    path = Path(path).expanduser()
    content = read_mapping(path, what="config")
    if "tasks" in content and "config" in content:
        raise ConfigError(
            f"{str(path)!r} is a suite of many experiments; run it with `latentwire experiments plan {path}`, "
            f"or take the config of one run, {content['config']!r}"
        )
    if {"identity", "config"} <= set(content) and isinstance(content["config"], dict):
        content = content["config"]
    return build_config(content, overrides, where=f"config {str(path)!r}")


def read_mapping(path: Path, *, what: str) -> dict[str, Any]:
    """The mapping in a YAML file; ``what`` is how errors call the file.

    Raises:
        ConfigError: there is no such file, or it is not YAML, or holds something else.
    """
    import yaml

    if path.is_dir():
        raise ConfigError(f"{what} {str(path)!r} is a folder; give a YAML file in it")
    if not path.is_file():
        present = ", ".join(sorted(str(item) for item in Path("configs").glob("*.yaml"))) or "none in ./configs"
        raise ConfigError(f"{what} {str(path)!r} does not exist; ready configs: {present}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} {str(path)!r} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{what} {str(path)!r} holds no `key: value` lines")
    return content


def build_config(content: Mapping[str, Any], overrides: Sequence[str] = (), *, where: str) -> RunConfig:
    """A config from a mapping; the bridge's own settings are checked too. Raises ``ConfigError`` where a setting does not fit."""
    from latentwire.bridges import bridge_config

    tree: dict[str, Any] = {**content}
    # a new bridge name drops the old bridge's settings, so it goes first whatever the order on the command line
    before = tree.get("bridge")
    for override in sorted(overrides, key=lambda item: not item.startswith("bridge.name=")):
        _apply(tree, override)
    config = validated(RunConfig, tree, where=where)
    bridge = bridge_config(config.bridge, where=f"{where}: bridge")
    if isinstance(before, dict) and any(override.startswith("bridge.name=") for override in overrides):
        _tell_left_out(before, bridge, {override.partition("=")[0].strip() for override in overrides})
    if bridge.mixes_layers and not isinstance(config.sender.layer, tuple):
        raise ConfigError(
            f"{where}: bridge {bridge.name!r} mixes several sender layers and sender.layer is {config.sender.layer}; "
            "give them, for example --set sender.layer=[0,1,2], or take bridge.name=pooled"
        )
    if not config.training.steps and not bridge.knows_at_first:
        raise ConfigError(
            f"{where}: training.steps = 0 does not fit: the bridge would stay as it was drawn; give 1 or more, begin from trained "
            "weights with bridge.init, or take --set 'bridge={name: linear, start: ridge}'"
        )
    if not config.pretraining.training.steps and not bridge.model_copy(update={"init": None}).knows_at_first:
        raise ConfigError(
            f"{where}: pretraining.training.steps = 0 does not fit: stage one begins with a drawn bridge; give 1 or more"
        )
    # what came later and is left alone changes nothing, so runs from before there was a choice keep their identity
    unused = _left_alone(bridge, "gain", "apart", "start", "stride", "unfold", "unfold_start", "skip")
    return config.model_copy(update={"bridge": bridge.model_dump(exclude=unused)})


def _tell_left_out(before: Mapping[str, Any], bridge: Schema, given: set[str]) -> None:
    """Says which settings a new bridge name left out although the new bridge has them too."""
    left_out = [
        f"{key}: {value}"
        for key, value in before.items()
        if key != "name" and key in type(bridge).model_fields and f"bridge.{key}" not in given and getattr(bridge, key) != value
    ]
    if left_out:
        getLogger("latentwire").warning(
            "bridge.name leaves out the config's other bridge settings (%s); give those that are to stay, "
            "for example --set bridge.%s",
            ", ".join(left_out),
            left_out[0].replace(": ", "="),
        )


def _apply(tree: dict[str, Any], override: str) -> None:
    """Sets ``a.b=value``; the value is read as YAML."""
    import yaml

    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"override {override!r} does not fit; write --set key.path=value")
    *path, last = key.strip().split(".")
    node = tree
    for part in path:
        child = node.get(part)
        if child is None:
            child = {}
        if not isinstance(child, dict):
            raise ConfigError(f"override {override!r} does not fit: {part!r} holds a value, not a group")
        node[part] = child = {**child}
        node = child
    try:
        node[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"override {override!r} does not fit: {text!r} is not a YAML value") from None
    if path == ["bridge"] and last == "name":
        # settings of another bridge would not fit the new one
        for stale in [setting for setting in node if setting != "name"]:
            del node[stale]


def settings_of() -> list[Setting]:
    """Every setting of a run; those of a bridge say which bridges have them."""
    from latentwire.bridges import BRIDGES, bridge_config

    owners: dict[Setting, list[str]] = {}
    for name in BRIDGES:
        for setting in settings_in(type(bridge_config({"name": name})), "bridge."):
            if setting.name != "bridge.name":
                owners.setdefault(setting, []).append(name)
    bridge = [Setting("bridge.name", " | ".join(BRIDGES), "perceiver", "which bridge; see `latentwire bridges`")]
    for setting, names in owners.items():
        of = "" if len(names) == len(BRIDGES) else f"{', '.join(names)}: "
        bridge.append(replace(setting, what=of + setting.what))
    found = settings_in(RunConfig)
    place = next(index for index, setting in enumerate(found) if setting.name == "bridge")
    return [*found[:place], *bridge, *found[place + 1 :]]


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """``key: there → here`` for every leaf that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [line for key in keys for line in differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))]
    return [] if old == new else [f"{path}: {old!r} there, {new!r} here"]
