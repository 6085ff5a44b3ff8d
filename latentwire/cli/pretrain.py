"""``latentwire pretrain-bridge``: stage one, general text through a pair's bridge."""

from __future__ import annotations

from latentwire.cli.console import emit_json, say
from latentwire.cli.train import CONFIG, DEVICE, DRY_RUN, JSON, OVERWRITE, RESUME, SET, TENSORBOARD


def pretrain_bridge(
    config: str = CONFIG,
    set_: list[str] | None = SET,
    dry_run: bool = DRY_RUN,
    resume: bool = RESUME,
    overwrite: bool = OVERWRITE,
    device: str | None = DEVICE,
    tensorboard: bool = TENSORBOARD,
    as_json: bool = JSON,
) -> None:
    """Teach a pair's bridge general text, once, before any task (stage one; settings under pretraining)."""
    from latentwire.cli.train import learn_packing_with_progress, print_plan, train_with_progress
    from latentwire.config import load_config
    from latentwire.training.parallel import is_first_process
    from latentwire.training.plan import plan_run
    from latentwire.training.pretraining import prepare_texts

    whole = load_config(config, set_ or [])
    run = whole.stage_one
    if dry_run:
        plan = plan_run(run, device=device)
        emit_json(plan.as_dict()) if as_json else print_plan(plan)
        return
    if whole.needs_packing:
        learn_packing_with_progress(whole, device=device, overwrite=overwrite, tensorboard=tensorboard)
    summary = train_with_progress(
        run, resume=resume, overwrite=overwrite, device=device, tensorboard=tensorboard, prepare=prepare_texts
    )
    if not is_first_process():
        return
    if as_json:
        emit_json({**summary, "folder": str(run.folder)})
        return
    written = f"{summary['validation']:.1%} of the held-out texts written exactly, {summary['validation_loss']:.3f} nats per token"
    say(f"{written} at step {summary['best_step']}, {summary['seconds']:.0f} s; bridge in {run.folder / 'bridge'}")
    say(f"next: latentwire train {config} --set bridge.init={run.folder}")
