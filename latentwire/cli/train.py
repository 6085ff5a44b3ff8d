"""``latentwire train``: one bridge from one config."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from latentwire.cli.console import Progress, emit_json, gib, progress, say, stop_on_signals

if TYPE_CHECKING:
    from latentwire.config import RunConfig
    from latentwire.training.plan import RunPlan
    from latentwire.training.run import Prepare
    from latentwire.training.trainer import Hooks

CONFIG = typer.Argument(help="YAML file, for example configs/nano.yaml.", show_default=False)
SET = typer.Option(None, "--set", metavar="KEY=VALUE", help="Override one setting, for example bridge.soft_tokens=8. Repeatable.")
DRY_RUN = typer.Option(
    False,
    "--dry-run",
    help="Check the config, print parameters, memory, disk and rows at most; load and read nothing.",
)
RESUME = typer.Option(False, "--resume", help="Go on from the last checkpoint (starts anew when there is none).")
OVERWRITE = typer.Option(False, "--overwrite", help="Start again, replacing a run in the same folder.")
DEVICE = typer.Option(None, "--device", help="cpu, mps, cuda or cuda:N; default: LATENTWIRE_DEVICE, else the best present.")
TENSORBOARD = typer.Option(False, "--tensorboard", help="Also write TensorBoard events to <run>/tensorboard.")
EVAL = typer.Option(
    False, "--eval", help="Then evaluate the bridge with its controls, as `latentwire eval RUN --method bridge` does."
)
EVAL_SAMPLES = typer.Option(None, "--eval_samples", help="With --eval: read only so many test rows; the result says so.")
PRETRAIN = typer.Option(
    False, "--pretrain", help="Begin from stage one, as after `latentwire pretrain-bridge`, which is trained first if need be."
)
JSON = typer.Option(False, "--json", help="Print the result as JSON on stdout.")


def train(
    config: str = CONFIG,
    set_: list[str] | None = SET,
    dry_run: bool = DRY_RUN,
    resume: bool = RESUME,
    overwrite: bool = OVERWRITE,
    pretrain: bool = PRETRAIN,
    device: str | None = DEVICE,
    tensorboard: bool = TENSORBOARD,
    eval_: bool = EVAL,
    eval_samples: int | None = EVAL_SAMPLES,
    as_json: bool = JSON,
) -> None:
    """Train a bridge between two frozen models."""
    from latentwire.config import load_config
    from latentwire.training.parallel import is_first_process

    run = load_config(config, set_ or [])
    if pretrain:
        run = run.after_stage_one if dry_run else pretrained(run, device=device, overwrite=overwrite, tensorboard=tensorboard)
    run_training(
        run,
        dry_run=dry_run,
        resume=resume,
        overwrite=overwrite,
        device=device,
        tensorboard=tensorboard,
        as_json=as_json,
    )
    if eval_ and not dry_run and is_first_process():
        evaluate_bridge(run, max_rows=eval_samples, device=device)


def pretrained(config: RunConfig, *, device: str | None, overwrite: bool = False, tensorboard: bool = False) -> RunConfig:
    """The config with its bridge beginning from stage one, which is trained here unless its folder holds it already.

    ``overwrite`` replaces a stage one of other settings; the same one would only be trained again.
    """
    from latentwire.errors import MismatchError
    from latentwire.training.pretraining import prepare_texts
    from latentwire.training.run import check_folder

    if config.needs_packing:
        learn_packing_with_progress(config, device=device, overwrite=overwrite, tensorboard=tensorboard)
    stage_one, replace = config.stage_one, False
    try:
        check_folder(stage_one)
    except MismatchError:
        if not overwrite:
            raise
        replace = True
    train_with_progress(
        stage_one, resume=not replace, overwrite=replace, device=device, tensorboard=tensorboard, prepare=prepare_texts
    )
    return config.after_stage_one


def evaluate_bridge(config: RunConfig, *, max_rows: int | None, device: str | None) -> None:
    """Evaluates the trained bridge of a run and prints its table. Raises ``CheckFailedError`` where the output is degenerate."""
    from latentwire.cli.evaluate import check_results, evaluate_with_progress, print_results
    from latentwire.evaluation.run import EvaluationRequest

    request = EvaluationRequest(config.folder, methods=["bridge"], max_rows=max_rows, device=device)
    results = evaluate_with_progress(request)
    print_results(results)
    check_results(results)


def run_training(
    config: RunConfig,
    *,
    dry_run: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    device: str | None = None,
    tensorboard: bool = False,
    as_json: bool = False,
) -> dict[str, Any] | None:
    """What ``train`` does once the config is known; the paper's script shares it. Returns the summary."""
    from latentwire.training.parallel import is_first_process

    if dry_run:
        from latentwire.training.plan import plan_run

        plan = plan_run(config, device=device)
        emit_json(plan.as_dict()) if as_json else print_plan(plan)
        return None
    summary = train_with_progress(config, resume=resume, overwrite=overwrite, device=device, tensorboard=tensorboard)
    if not is_first_process():
        return summary
    if as_json:
        emit_json({**summary, "folder": str(config.folder)})
    else:
        where = f"bridge in {config.folder / 'bridge'}"
        say(f"validation {summary['validation']:.3f} at step {summary['best_step']}, {summary['seconds']:.0f} s; {where}")
        say(f"next: latentwire eval {config.folder}")
    return summary


def train_with_progress(
    config: RunConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    device: str | None = None,
    tensorboard: bool = False,
    prepare: Prepare | None = None,
) -> dict[str, Any]:
    """Trains with a bar or lines on stderr; saves and raises ``StoppedEarlyError`` on a signal."""
    from latentwire.training.run import train_run

    with _shown(config, tensorboard=tensorboard) as hooks:
        return train_run(config, resume=resume, overwrite=overwrite, device=device, hooks=hooks, say=say, prepare=prepare)


def learn_packing_with_progress(
    config: RunConfig, *, device: str | None, overwrite: bool = False, tensorboard: bool = False
) -> None:
    """Learns the packing that the config's bridge is drawn towards, unless it is there.

    Raises ``UsageError`` where several processes were to learn it together.
    """
    from latentwire.errors import UsageError
    from latentwire.training.packing import WEIGHTS_FILE
    from latentwire.training.packing_run import learn_packing
    from latentwire.training.parallel import processes

    run = config.packing_run
    if processes() > 1:
        if not (run.folder / WEIGHTS_FILE).is_file():
            raise UsageError(
                "a packing is learned in one process; run `latentwire pretrain-bridge` with this config first, without torchrun"
            )
        return
    with _shown(run, tensorboard=tensorboard) as hooks:
        learn_packing(config, overwrite=overwrite, device=device, hooks=hooks, say=say)


@contextmanager
def _shown(config: RunConfig, *, tensorboard: bool) -> Iterator[Hooks]:
    """Hooks that draw a bar or write lines, and stop the training on a signal."""
    from latentwire.errors import StoppedEarlyError
    from latentwire.training.parallel import is_first_process
    from latentwire.training.trainer import Hooks

    writer = _tensorboard_writer(config) if tensorboard and is_first_process() else None
    with progress(config.training.steps, f"train {config.name}") as bar, stop_on_signals() as stop:
        try:
            yield Hooks(log=lambda entry: _show(entry, bar, writer), advance=bar.at, should_stop=stop)
        except StoppedEarlyError as error:
            if stop.interrupted:
                say(str(error))
                raise KeyboardInterrupt from None
            raise
        finally:
            if writer is not None:
                writer.close()


def _show(entry: dict[str, Any], bar: Progress, writer: Any) -> None:
    if "loss" in entry:
        bar.at(entry["step"], f"loss {entry['loss']:.3f} · gap {entry['shuffled_gap']:.2f} · rank {entry['effective_rank']:.0f}")
    if "validation" in entry:
        say(f"step {entry['step']}: validation {entry['validation']:.3f}, loss {entry['validation_loss']:.3f}")
    if writer is not None:
        for key, value in entry.items():
            if isinstance(value, int | float) and key != "step":
                writer.add_scalar(key, value, entry["step"])


def _tensorboard_writer(config: RunConfig) -> Any:
    from latentwire.errors import UsageError

    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError("--tensorboard needs the tensorboard package; install it with `pip install tensorboard`") from None
    return SummaryWriter(config.folder / "tensorboard")


def print_plan(plan: RunPlan) -> None:
    """What ``--dry-run`` shows."""
    from latentwire.training.plan import WORKING_BYTES

    rows = [
        ("run", f"{plan.name} → {plan.folder}"),
        ("tasks", ", ".join(plan.tasks)),
        ("rows per task", f"train {plan.train_rows_per_task}, validation {plan.validation_rows_per_task}"),
        ("sender", f"{plan.sender}, blocks 1-{plan.sender_blocks}, {gib(plan.sender_memory_bytes)}"),
        ("receiver", f"{plan.receiver}, {gib(plan.receiver_memory_bytes)}"),
        (
            "to answer",
            f"{gib(plan.answering_memory_bytes)}: the layers that are used, the bridge, and {gib(WORKING_BYTES)} beside them",
        ),
        (
            "bridge",
            f"{plan.bridge}, {plan.trainable_params:,} trainable parameters, {gib(plan.bridge_training_memory_bytes)} to train",
        ),
        ("message", plan.message),
        ("device", plan.device),
        ("disk", f"checkpoint {gib(plan.checkpoint_disk_bytes)}, artefact {gib(plan.artefact_disk_bytes)}, sender states on top"),
        ("work", f"{plan.steps:,} steps, {plan.rows_seen:,} rows seen"),
    ]
    width = max(len(key) for key, _ in rows)
    for key, value in rows:
        print(f"{key:<{width}}  {value}")
