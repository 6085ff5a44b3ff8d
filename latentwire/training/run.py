"""One training run from its config to its artefact.

``<folder>/config.json``  the resolved config and its identity
``<folder>/rows.json``    what the rows are like: labels, lengths of targets, contexts cut, bits
``<folder>/log.jsonl``    loss, RMS ratio, shuffled gap, effective rank, validation
``<folder>/checkpoint.safetensors``  what a resume needs
``<folder>/bridge/``      the artefact: config, weights, card
``<folder>/train.json``   the summary; its presence means that the run is finished
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from latentwire.bridges import bridge_config
from latentwire.bridges.base import WEIGHTS_FILE, Bridge, BridgeConfig, BridgeEnds, BridgePair, identity_of
from latentwire.bridges.card import bridge_card
from latentwire.config import ARTEFACT_FOLDER, CONFIG_FILE, RESULTS_FILE, RunConfig, differences
from latentwire.data.budget import describe_cuts, fit_rows
from latentwire.data.readers import read_task
from latentwire.data.task import Example, load_task
from latentwire.errors import MismatchError, UsageError
from latentwire.files import check_writable, file_digest, read_json, remove, write_bytes, write_json
from latentwire.models.chat import Prompter
from latentwire.models.device import hardware_summary
from latentwire.models.products import with_fast_products
from latentwire.models.receiver import Receiver, load_receiver
from latentwire.models.sender import Sender, as_layers, load_sender
from latentwire.models.source import resolve
from latentwire.provenance import git_state, versions
from latentwire.training.alignment import alignment_for
from latentwire.training.bundles import Bundles, RowBundles
from latentwire.training.features import FeatureCache
from latentwire.training.learners import BridgeLearner, Learner
from latentwire.training.objectives import check_notes
from latentwire.training.packing import find_packing
from latentwire.training.parallel import Team, join_team, leave_team
from latentwire.training.portrait import ROWS_FILE, portrait
from latentwire.training.ridge import begin_with_ridge
from latentwire.training.trainer import CHECKPOINT_FILE, Hooks, Trainer
from latentwire.training.unfolding import listening_vectors

SUMMARY_FILE = "train.json"
#: what commands measure of a trained bridge and put beside it; of the next bridge in the folder it says nothing
MEASURED = (
    RESULTS_FILE, "predictions", "capacity.json", "capacity.png", "recall.json", "recall.png", "bench.json", "bench.png",
)  # fmt: skip

Say = Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """What a run learns, from which rows."""

    learner: Learner
    train: Bundles
    validation: Sequence[Example]
    revisions: dict[str, str]
    portraits: list[dict[str, Any]] = field(default_factory=list)


Prepare = Callable[[RunConfig, Sender, Receiver, Bridge, Team, Say], Prepared]


def finished_summary(config: RunConfig) -> dict[str, Any] | None:
    """The summary of a finished run of exactly this config in its folder, else None.

    Raises:
        MismatchError: the folder belongs to another config.
    """
    folder = config.folder
    if not check_folder(config):
        return None
    # the summary comes through git, the weights do not
    if not ((folder / SUMMARY_FILE).exists() and (folder / ARTEFACT_FOLDER / WEIGHTS_FILE).exists()):
        return None
    summary: dict[str, Any] = read_json(folder / SUMMARY_FILE, what="run summary")
    return summary


def check_folder(config: RunConfig) -> bool:
    """Whether the config's folder holds a run of it. Raises ``MismatchError`` where it holds one of another config."""
    folder = config.folder
    if not (folder / CONFIG_FILE).exists():
        return False
    saved = read_json(folder / CONFIG_FILE, what="run config")
    if saved.get("identity") != config.identity:
        differing = differences(saved.get("config", {}), config.model_dump(mode="json", exclude={"output_dir": True}))
        raise MismatchError(
            f"{str(folder)!r} holds a run of another config ({'; '.join(differing[:3]) or 'other version'}); "
            "choose another folder with --set output_dir=… or add --overwrite"
        )
    began, now = saved.get("init_sha256"), digest_of_weights(config)
    if began and now and began != now:
        raise MismatchError(
            f"{str(folder)!r} holds a run that began from other weights than bridge.init = {config.bridge['init']!r} has now; "
            "choose another folder with --set output_dir=… or add --overwrite"
        )
    return True


def digest_of_weights(config: RunConfig) -> str | None:
    """SHA-256 of the weights that ``bridge.init`` names; None where it names none, or none that lie here."""
    init = config.bridge.get("init")
    folder = Path(init or "").expanduser()
    found = (place / WEIGHTS_FILE for place in (folder / ARTEFACT_FOLDER, folder) if init)
    return next((file_digest(path) for path in found if path.is_file()), None)


def train_run(
    config: RunConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    device: str | None = None,
    hooks: Hooks | None = None,
    say: Say = lambda line: None,
    pair: tuple[Sender, Receiver] | None = None,
    prepare: Prepare | None = None,
) -> dict[str, Any]:
    """Trains the config's bridge, or returns the summary of the finished run that already did.

    ``pair`` are the config's two models where they are loaded already. ``prepare`` gives what is learned and the rows to learn
    it from; by default those of the config's tasks.

    Raises:
        MismatchError: the folder belongs to another config. UsageError: it holds an unfinished run and neither
        ``resume`` nor ``overwrite`` is given. StoppedEarlyError: the hooks asked to stop; resume goes on.
    """
    folder = config.folder
    if resume and overwrite:
        raise UsageError("resume and overwrite exclude each other: one goes on, the other starts again; leave one out")
    if not overwrite:
        summary = finished_summary(config)
        if summary is not None:
            say(f"{folder} already holds this trained bridge; nothing to do")
            return summary
        if (folder / CHECKPOINT_FILE).exists() and not resume:
            raise UsageError(
                f"{str(folder)!r} holds an unfinished run of this config; add --resume to go on or --overwrite to start again"
            )
    check_writable(folder)
    team, device = join_team(device)
    try:
        return _train(
            config, team, resume=resume, overwrite=overwrite, device=device, hooks=hooks or Hooks(),
            say=say if team.first else _silent, pair=pair,
            prepare=prepare or prepare_tasks,
        )  # fmt: skip
    finally:
        leave_team()


def _train(
    config: RunConfig,
    team: Team,
    *,
    resume: bool,
    overwrite: bool,
    device: str | None,
    hooks: Hooks,
    say: Say,
    pair: tuple[Sender, Receiver] | None,
    prepare: Prepare,
) -> dict[str, Any]:
    folder = config.folder
    if config.training.needs_packing:
        find_packing(config)
    sender, receiver = pair or load_pair(config, device=device)
    bridge = new_bridge(config, sender, receiver)
    found = prepare(config, sender, receiver, bridge, team, say)
    trainer = Trainer(
        config,
        learner=found.learner,
        train=found.train,
        validation=found.validation,
        folder=folder,
        hooks=hooks if team.first else Hooks(should_stop=hooks.should_stop),
        team=team,
    )
    if team.first:
        if overwrite:
            for name in (SUMMARY_FILE, CHECKPOINT_FILE, *MEASURED):
                remove(folder / name)
        write_json(
            folder / CONFIG_FILE,
            {
                "identity": config.identity,
                "config": config.model_dump(mode="json", exclude={"output_dir": True}),
                "init_sha256": digest_of_weights(config),
            },
        )
        if found.portraits:
            write_json(folder / ROWS_FILE, found.portraits)
    team.wait()
    if resume and (folder / CHECKPOINT_FILE).exists():
        trainer.restore()
        say(f"resumed at step {trainer.step} of {config.training.steps}")
    best = trainer.run()
    summary = {
        "name": config.name,
        "identity": config.identity,
        "steps": config.training.steps,
        "seconds": round(trainer.seconds, 1),
        "trainable_params": bridge.num_params,
        "best_step": best.step,
        "validation": round(best.score, 5),
        "validation_loss": round(best.loss, 5),
        "train_rows": found.train.rows,
        "validation_rows": len(found.validation),
        "data_revisions": found.revisions,
        "git": git_state(),
        "versions": versions(),
        "hardware": hardware_summary(receiver.device) | {"processes": team.size},
    }
    if team.first:
        bridge.save_pretrained(folder / ARTEFACT_FOLDER, card=bridge_card(bridge, config.model_dump(mode="json"), summary))
        for name, content in found.learner.files_beside().items():
            write_bytes(folder / ARTEFACT_FOLDER / name, content)
        summary["weights_sha256"] = file_digest(folder / ARTEFACT_FOLDER / "model.safetensors")
        write_json(folder / SUMMARY_FILE, summary)
    team.wait()
    return summary


def prepare_tasks(config: RunConfig, sender: Sender, receiver: Receiver, bridge: Bridge, team: Team, say: Say) -> Prepared:
    """The rows of the config's tasks, their states cached, for a bridge."""
    train, validation, revisions, portraits = read_rows(config, sender, receiver, say)
    check_notes(config.training, train)
    begin_with_ridge(bridge, sender, receiver, train, validation, say)
    texts = [row.sender_prompt for row in (*train, *validation)]
    cache = _filled_cache(config, sender, texts, team, say)
    settings = config.training
    learner = BridgeLearner(
        bridge,
        receiver,
        cache.states,
        token_dropout=settings.token_dropout,
        alignment=alignment_for(config, sender, receiver, bridge, train),
    )
    return Prepared(learner, RowBundles(train, settings.questions_per_message), validation, revisions, portraits)


def _filled_cache(config: RunConfig, sender: Sender, texts: list[str], team: Team, say: Say) -> FeatureCache:
    """The cache with the states of all texts; the first process computes them, the others read what it wrote."""
    if not team.first:
        team.wait()
    cache = FeatureCache(sender, cap_gib=config.data.cache_cap_gib, notice=say)
    cache.add(texts)
    if team.first:
        team.wait()
    say(f"sender states: {cache.texts_read} texts read, {len(set(texts)) - cache.texts_read} from the cache")
    return cache


def _silent(line: str) -> None:
    pass


def load_pair(config: RunConfig, *, device: str | None = None, full_sender: bool = False) -> tuple[Sender, Receiver]:
    """The two frozen models of a config, both on ``device`` where it is given, else each on its own."""
    sender = load_sender(
        config.sender.model,
        layer=config.sender.layer,
        full=full_sender,
        revision=config.sender.revision,
        device=device or config.sender.device,
        dtype=config.sender.dtype,
        prompt_style=config.prompt_style,
    )
    receiver = load_receiver(
        config.receiver.model,
        revision=config.receiver.revision,
        device=device or config.receiver.device,
        dtype=config.receiver.dtype,
        prompt_style=config.prompt_style,
    )
    return sender, receiver


def load_prompters(config: RunConfig) -> tuple[Prompter, Prompter]:
    """How sender and receiver of a config read prompts; only tokenizers are loaded."""
    ends = (config.sender, config.receiver)
    sender, receiver = (Prompter(resolve(end.model, end.revision), config.prompt_style) for end in ends)
    return sender, receiver


def new_bridge(config: RunConfig, sender: Sender, receiver: Receiver) -> Bridge:
    """A bridge for this pair: its weights fixed by the seed, or those of ``bridge.init``.

    Raises:
        MismatchError: ``bridge.init`` is a bridge of another shape or pair.
    """
    torch.manual_seed(config.seed)
    ends = BridgeEnds(
        sender_width=sender.width,
        sender_layers=len(as_layers(sender.layer)),
        receiver_width=receiver.width,
        receiver_rms=receiver.embedding_rms,
    )
    settings = bridge_config(config.bridge)
    bridge = settings.build(ends)
    bridge.pair = BridgePair(
        sender=identity_of(sender.source),
        receiver=identity_of(receiver.source),
        sender_layer=sender.layer,
        sender_prompt="{context}",
        receiver_prompt="{message}\nQuestion: {question}\nAnswer:",
        sender_style=sender.prompter.style,
        receiver_style=receiver.prompter.style,
    )
    if settings.init is not None:
        _take_weights(bridge, settings.init)
    elif not config.training.needs_packing:  # a packing brings its own
        begin_unfolding(bridge.unfold_embeddings, settings, receiver, config.seed)
    bridge.message = config.message
    return with_fast_products(bridge.to(receiver.device))


def begin_unfolding(vectors: nn.Parameter | None, settings: BridgeConfig, receiver: Receiver, seed: int) -> None:
    """Puts what unfolds soft tokens where ``bridge.unfold_start`` says; drawn it already is."""
    if vectors is not None and settings.unfold_start == "listening":
        vectors.data.copy_(listening_vectors(receiver, settings, seed=seed))


def _take_weights(bridge: Bridge, location: str) -> None:
    """The weights of the bridge in a run's folder or an artefact. Raises ``MismatchError`` where it is another one."""
    folder = Path(location).expanduser() / ARTEFACT_FOLDER
    known = Bridge.from_pretrained(folder if folder.is_dir() else location)
    # where a bridge's own training began does not matter to what begins with it
    here, there = (item.config.model_dump(exclude={"init", "unfold_start", "start"}) for item in (bridge, known))
    if here != there:
        raise MismatchError(
            f"bridge.init = {location!r} holds another bridge ({'; '.join(differences(there, here)[:3])}); "
            "give this run the same bridge settings, or run `latentwire pretrain-bridge` with these"
        )
    if bridge.pair is not None and known.pair is not None:
        pair = bridge.pair
        known.pair.check(
            sender=pair.sender,
            receiver=pair.receiver,
            sender_layer=pair.sender_layer,
            sender_style=pair.sender_style,
            receiver_style=pair.receiver_style,
        )
    bridge.load_state_dict(known.state_dict())


def read_rows(
    config: RunConfig, sender: Sender, receiver: Receiver, say: Say
) -> tuple[list[Example], list[Example], dict[str, str], list[dict[str, Any]]]:
    """Rows to learn from and to choose on, of all tasks; the revisions of their data; and what the rows of each split are like."""
    read: dict[str, list[Example]] = {"train": [], "validation": []}
    revisions: dict[str, str] = {}
    portraits: list[dict[str, Any]] = []
    data = config.data
    for name in config.task:
        task = load_task(name, config.variant)
        for split, most in (("train", data.train_rows), ("validation", data.validation_rows)):
            together = split == "train" and config.training.questions_per_message > 1
            whole = read_task(
                task, split, data_dir=data.data_dir, max_rows=most, every_question=together,
                made_up_words=data.made_up_words, made_up_from=data.made_up_from,
            )  # fmt: skip
            rows = fit_rows(task, whole, sender=sender.prompter, receiver=receiver.prompter)
            portraits.append(portrait(task, split, whole, rows, reader=receiver.prompter))
            read[split] += rows.examples
            revisions.setdefault(task.name, rows.revision)
            for line in (rows.note, describe_cuts(rows)):
                if line:
                    say(f"{task.name}, {split}: {line}")
    train, validation = read["train"], read["validation"]
    say(f"rows: {len(train)} to train, {len(validation)} to validate, {len(config.task)} task(s)")
    return train, validation, revisions, portraits
