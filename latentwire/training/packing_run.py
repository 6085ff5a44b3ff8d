"""The run that learns a packing: once beside stage one, for all bridges that are drawn towards it."""

from __future__ import annotations

import torch

from latentwire.bridges import bridge_config
from latentwire.config import RunConfig
from latentwire.errors import MismatchError
from latentwire.files import write_json
from latentwire.training.bundles import RowBundles
from latentwire.training.learners import PackingLearner
from latentwire.training.packing import CONFIG_FILE, WEIGHTS_FILE, Notes, Packing, save_packing
from latentwire.training.run import Say, begin_unfolding, check_folder, load_pair, read_rows
from latentwire.training.trainer import CHECKPOINT_FILE, Hooks, Trainer


def learn_packing(
    config: RunConfig,
    *,
    overwrite: bool = False,
    device: str | None = None,
    hooks: Hooks | None = None,
    say: Say = lambda line: None,
) -> None:
    """Learns the packing of ``config`` into its folder, or goes on where it was stopped, or finds it there.

    ``overwrite`` replaces a packing of other settings; the same one would only be learned again.

    Raises:
        MismatchError: the folder holds another one. StoppedEarlyError: the hooks asked to stop; the same command goes on.
    """
    run = config.packing_run
    folder, content = run.folder, {"identity": run.identity, "config": run.model_dump(mode="json", exclude={"output_dir": True})}
    try:
        check_folder(run)
    except MismatchError:
        if not overwrite:
            raise
        for name in (WEIGHTS_FILE, CHECKPOINT_FILE):
            (folder / name).unlink(missing_ok=True)
    if (folder / WEIGHTS_FILE).exists():
        say(f"{folder} already holds this packing; nothing to do")
        return
    sender, receiver = load_pair(run, device=device)
    train, validation, _, _ = read_rows(run, sender, receiver, say)
    notes = Notes(bridge_config(run.bridge), sender, receiver)
    torch.manual_seed(run.seed)
    settings = bridge_config(run.bridge)
    packing = Packing(receiver, notes.sizes(train, most=config.packing.most_said), gain=settings.gain, unfold=settings.unfold)
    begin_unfolding(packing.unfold_embeddings, settings, receiver, run.seed)
    bundles = RowBundles(train, run.training.questions_per_message)
    learner = PackingLearner(packing, notes, redrawn=config.packing.redrawn)
    trainer = Trainer(run, learner=learner, train=bundles, validation=validation, folder=folder, hooks=hooks)
    write_json(folder / CONFIG_FILE, content)
    if (folder / CHECKPOINT_FILE).exists():
        trainer.restore()
        say(f"resumed at step {trainer.step} of {run.training.steps}")
    best = trainer.run()
    save_packing(packing, folder)
    say(f"packing: validation {best.score:.3f} at step {best.step}, {trainer.seconds:.0f} s; in {folder}")
