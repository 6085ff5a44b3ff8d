"""Training of a learner (a bridge, a learned prompt, adapters) against a frozen receiver.

The sender's states come from the feature cache, so a step of a bridge is: bridge forward, receiver forward over what the
loss needs, backward into the bridge alone. Which rows a step sees depends on (seed, step) only; a run that was killed
resumes from its last checkpoint and ends with the same bytes on a CPU.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from latentwire.config import RunConfig, TrainingSettings
from latentwire.data.task import Example
from latentwire.errors import NonFiniteLossError, StoppedEarlyError, UsageError
from latentwire.files import write_text
from latentwire.models.compiling import compiled_forward, passing_through
from latentwire.models.receiver import Receiver
from latentwire.models.soft_tokens import SoftTokens
from latentwire.prompts import Prompt
from latentwire.training.bundles import Bundles, RowOrder
from latentwire.training.checkpoint import load_checkpoint, save_checkpoint
from latentwire.training.learners import Learner
from latentwire.training.objectives import (
    asked_losses,
    contrast_term,
    diversity_term,
    effective_rank,
    is_scored_by_options,
    kl_term,
    rms_ratio,
    rows_of,
    task_loss,
    task_losses,
    writing_loss,
)
from latentwire.training.optimisers import Optimiser
from latentwire.training.parallel import Team

CHECKPOINT_FILE, LOG_FILE = "checkpoint.safetensors", "log.jsonl"


@dataclass
class Hooks:
    """How a run talks to the outside while it trains."""

    log: Callable[[dict[str, Any]], None] = lambda entry: None
    advance: Callable[[int], None] = lambda step: None
    should_stop: Callable[[], bool] = lambda: False


@dataclass
class Best:
    """The best validation so far and the weights that gave it."""

    score: float = -1.0
    loss: float = float("inf")
    step: int = -1
    weights: dict[str, Tensor] = field(default_factory=dict)


class Trainer:
    """One training run in ``folder``.

    Args:
        learner: trained in place; after ``run`` it holds the weights that were best on validation.
        train: rows to learn from, those together that one message serves.
        validation: examples; they choose the checkpoint and nothing else does.
        team: the processes that share each batch; only the first writes files.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        learner: Learner,
        train: Bundles,
        validation: Sequence[Example],
        folder: Path,
        hooks: Hooks | None = None,
        team: Team | None = None,
    ) -> None:
        self.config, self.settings = config, config.training
        self.learner, self.module, self.receiver = learner, learner.module, learner.receiver
        self.bundles, self.validation_rows = train, validation
        self.folder, self.hooks = folder, hooks or Hooks()
        self.team = team or Team()
        self._check_terms()
        self.team.agree(self.module)
        self.order = RowOrder(
            len(train), config.seed, buckets=self.settings.length_buckets, length=lambda index: len(train[index][0].sender_prompt)
        )
        self.optimiser = make_optimiser(learner.module, self.settings)
        #: validation meets too many shapes of passes to compile them all
        self._compiled = compiled_forward(self.receiver.model, self.receiver.device) if self.settings.compile else None
        self.step, self.seconds = 0, 0.0
        self.best = Best()
        self.log: list[dict[str, Any]] = []
        self._last_loss: Tensor | None = None

    def _check_terms(self) -> None:
        """Raises ``UsageError`` where terms do not fit the rows, the learner or the processes."""
        settings = self.settings
        for name in ("diversity", "contrast"):
            if (weight := getattr(settings.terms, name)) and self.team.shares > 1:
                raise UsageError(
                    f"training.terms.{name} = {weight} compares rows of a batch; train in one process, with the batch in one part"
                )
        scored = next((row for row in self.validation_rows if is_scored_by_options(row, settings)), None)
        if settings.questions_per_message > 1 and scored is not None:
            raise UsageError(
                f"training.questions_per_message = {settings.questions_per_message} asks for written answers, and task "
                f"{scored.task!r} has options; set training.option_objective=answer, or leave it at 1"
            )

    # --------------------------------------------------------------------------------------------------------- loop

    def run(self) -> Best:
        """Trains to the last step.

        Raises:
            StoppedEarlyError: the hooks asked to stop; all is saved.
            NonFiniteLossError: a loss or gradient is no finite number; the log says so, the checkpoint is the last sound one.
        """
        settings = self.settings
        if not settings.steps and self.best.step < 0:
            self._report({"step": 0} | self.validate())
            self.save()
        while self.step < settings.steps:
            started = time.perf_counter()
            entry = self.train_step()
            if self.step % settings.validate_every == 0 or self.step == settings.steps:
                entry |= self.validate()
            self.seconds += time.perf_counter() - started
            if len(entry) > 1:
                self._report(entry)
            self.hooks.advance(self.step)
            stopping = self.team.any(self.hooks.should_stop(), self.receiver.device) and self.step < settings.steps
            if self.step % settings.checkpoint_every == 0 or self.step == settings.steps or stopping:
                self.save()
            if stopping:
                raise StoppedEarlyError(f"stopped at step {self.step} of {settings.steps}, all saved; go on with --resume")
        self.module.load_state_dict(self.best.weights)
        self.module.eval()
        return self.best

    def _report(self, entry: dict[str, Any]) -> None:
        self.log.append(entry)
        self.hooks.log(entry)

    def train_step(self) -> dict[str, Any]:
        """One update; returns ``{"step"}``, with diagnostics every ``log_every`` steps."""
        settings = self.settings
        bundles = [self._asked(index) for index in self.order.batch(self.step, settings.batch_size)]
        self.module.train()
        loss_sum = torch.zeros((), device=self.receiver.device)
        parts = self.team.share(bundles)
        for number, part in parts:
            # what is drawn at random is the same after a resume, and whichever process has the part
            torch.manual_seed(hash((self.config.seed, self.step, number) if number else (self.config.seed, self.step)))
            soft = self.learner.soft_tokens([bundle[0] for bundle in part])
            with passing_through(self.receiver.model, self._compiled):
                loss = self._loss(part, soft)
                # the mean over the batch is the sum over its parts, each weighted by its rows
                (self._with_terms(loss, part, soft) * (len(part) / len(bundles))).backward()
            loss_sum += loss.detach() * len(part)
        self.team.add_gradients(self.optimiser.parameters)
        gradient_norm = self.optimiser.step(self.step, clip_norm=settings.clip_norm)
        self.step += 1
        # the norm is on the host already; it is not finite where the loss is not
        if not math.isfinite(gradient_norm):
            raise self._non_finite("gradient" if math.isfinite(loss_sum.item()) else "loss")
        self._last_loss = loss_sum / len(bundles)
        entry: dict[str, Any] = {"step": self.step}
        if self.step % settings.log_every == 0:
            compared = bool(parts) and self.learner.sends_messages
            entry |= {
                "stage": "first" if self._in_first_stage(self.step - 1) else "task",
                "loss": round(self.team.add([loss_sum.item()], self.receiver.device)[0] / len(bundles), 5),
                "gradient_norm": round(gradient_norm, 5),
                **(self._diagnostics(part, soft, loss.item()) if compared and soft is not None else {}),
            }
        return entry

    def _non_finite(self, what: str) -> NonFiniteLossError:
        """Writes the log with the step at which it happened, for the diagnosis, and says what to try."""
        last = None if self._last_loss is None else round(self._last_loss.item(), 5)
        self.log.append({"step": self.step, "non_finite": what, "last_finite_loss": last})
        if self.team.first:
            self._write_log()
        settings = self.settings
        before = "no step before it had a finite one" if last is None else f"the last finite loss was {last}"
        return NonFiniteLossError(
            f"{what} is no finite number at step {self.step} of {settings.steps} ({before}); lower training.lr "
            f"(now {settings.lr:g}), raise training.warmup_steps (now {settings.warmup_steps}), or use bfloat16 or float32 "
            "instead of float16, for example --set "
            f"training.lr={settings.lr / 10:g}"
        )

    def _in_first_stage(self, step: int) -> bool:
        stage = self.settings.first_stage
        return stage.objective != "none" and step < stage.share * self.settings.steps

    def _asked(self, index: int) -> Sequence[Example]:
        """The rows of a bundle that are asked in this step: all, or as many as one message is asked about."""
        bundle, most = self.bundles[index], self.settings.questions_per_message
        return bundle if len(bundle) <= most else Random(f"asked:{self.config.seed}:{self.step}:{index}").sample(bundle, most)

    def _loss(self, bundles: Sequence[Sequence[Example]], soft: SoftTokens | None) -> Tensor:
        """The main term of this step: what the first stage teaches, or the answers."""
        rows, stage = [bundle[0] for bundle in bundles], self.settings.first_stage.objective
        if soft is not None and self._in_first_stage(self.step):
            return self.learner.align_loss(rows, soft) if stage == "align" else writing_loss(self.receiver, rows, soft, stage)
        return self._answer_losses(bundles, soft).mean()

    def _answer_losses(self, bundles: Sequence[Sequence[Example]], soft: SoftTokens | None) -> Tensor:
        if soft is not None and any(len(bundle) > 1 for bundle in bundles):
            return asked_losses(self.receiver, bundles, soft)
        rows = [bundle[0] for bundle in bundles]
        rng = Random(f"options:{self.config.seed}:{self.step}")
        return task_losses(self.receiver, rows, self.learner.prompts(rows), soft, rng=rng, settings=self.settings)

    def _with_terms(self, loss: Tensor, bundles: Sequence[Sequence[Example]], soft: SoftTokens | None) -> Tensor:
        """The whole objective: the main term and, once the task is taught, what the config adds."""
        terms, rows = self.settings.terms, [bundle[0] for bundle in bundles]
        if soft is None or self._in_first_stage(self.step):
            return loss
        total = terms.answer * loss
        for objective, weight in (("note", terms.note), ("text", terms.text)):
            if weight:
                total = total + weight * writing_loss(self.receiver, rows, soft, objective)
        if terms.align:
            total = total + terms.align * self.learner.align_loss(rows, soft)
        if terms.kl:
            total = total + terms.kl * kl_term(self.receiver, rows, self.learner.prompts(rows), soft)
        if terms.contrast and len(rows) > 1:
            own, others = (self._answer_losses(bundles, messages) for messages in (soft, soft.shifted()))
            total = total + terms.contrast * contrast_term(own, others)
        if terms.diversity:
            total = total + terms.diversity * diversity_term(soft)
        return total

    @torch.no_grad()
    def _diagnostics(self, bundles: Sequence[Sequence[Example]], soft: SoftTokens, loss: float) -> dict[str, float]:
        """Signs of collapse: RMS ratio, matched-minus-shuffled gap of the loss (near 0 is bad), effective rank."""
        self.step -= 1  # the shuffled loss belongs to the step that was just made
        shuffled = self._loss(bundles, soft.shifted()).item() if len(bundles) > 1 else loss
        self.step += 1
        return {
            "rms_ratio": round(rms_ratio(soft, self.receiver.embedding_rms), 5),
            "shuffled_gap": round(shuffled - loss, 5),
            "effective_rank": round(effective_rank(soft), 3),
        }

    # --------------------------------------------------------------------------------------------------- validation

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean over tasks of the share of right answers, and the mean loss; keeps the weights if they are the best."""
        self.module.eval()
        count = len(self.validation_rows)
        rights, losses = [0.0] * count, [0.0] * count
        size = max(32, self.settings.batch_size)
        for start in range(0, count, size)[self.team.rank :: self.team.size]:
            rows = self.validation_rows[start : start + size]
            soft, prompts = self.learner.soft_tokens(rows), self.learner.prompts(rows)
            rng = Random(f"validation:{start}")
            loss = task_loss(self.receiver, rows, prompts, soft, rng=rng, settings=self.settings)
            losses[start] = loss.item() * len(rows)
            rights[start : start + len(rows)] = map(float, answered_right(self.receiver, rows, prompts, soft))
        rights, losses = (self.team.add(values, self.receiver.device) for values in (rights, losses))
        right: dict[str, list[float]] = {}
        for row, value in zip(self.validation_rows, rights, strict=True):
            right.setdefault(row.task, []).append(value)
        score = sum(sum(values) / len(values) for values in right.values()) / len(right)
        loss_mean = sum(losses) / count
        if not math.isfinite(loss_mean):
            raise self._non_finite("validation loss")
        if (score, -loss_mean) > (self.best.score, -self.best.loss):
            weights = {name: tensor.detach().cpu().clone() for name, tensor in self.module.state_dict().items()}
            self.best = Best(score, loss_mean, self.step, weights)
        per_task = {f"validation/{task}": round(sum(values) / len(values), 5) for task, values in right.items()}
        return {"validation": round(score, 5), "validation_loss": round(loss_mean, 5)} | (per_task if len(per_task) > 1 else {})

    # -------------------------------------------------------------------------------------------------- checkpoints

    def save(self) -> None:
        """Writes the checkpoint and, for people, the log up to it; in a team the first process does."""
        if not self.team.first:
            return
        self._write_log()
        save_checkpoint(
            self.folder / CHECKPOINT_FILE,
            {
                "identity": self.config.identity,
                "step": self.step,
                "seconds": self.seconds,
                "module": dict(self.module.state_dict()),
                "optimiser": self.optimiser.state_dict(),
                "best": {"score": self.best.score, "loss": self.best.loss, "step": self.best.step, "weights": self.best.weights},
                "log": self.log,
            },
        )

    def _write_log(self) -> None:
        write_text(self.folder / LOG_FILE, "".join(json.dumps(entry) + "\n" for entry in self.log))

    def restore(self) -> None:
        """Goes back to the last checkpoint. Raises ``ArtefactError`` where it is missing, cut or corrupt."""
        state = load_checkpoint(self.folder / CHECKPOINT_FILE)
        self.module.load_state_dict(state["module"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds, self.log = state["step"], state["seconds"], state["log"]
        self.best = Best(**state["best"])


def make_optimiser(module: nn.Module, settings: TrainingSettings) -> Optimiser:
    """The optimiser of a run over the module's parameters."""
    return Optimiser(
        module.named_parameters(),
        name=settings.optimizer,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        total_steps=settings.steps,
        warmup_steps=settings.warmup_steps,
    )


def answered_right(receiver: Receiver, rows: Sequence[Example], prompts: Sequence[Prompt], soft: SoftTokens | None) -> list[bool]:
    """Whether the best-scored option, or the greedy answer, is the gold one."""
    result = [False] * len(rows)
    with_options = [index for index, row in enumerate(rows) if row.options]
    free = [index for index, row in enumerate(rows) if not row.options]
    if with_options:
        asked = [prompts[index] for index in with_options]
        tries = receiver.tries(asked, [rows[index].options for index in with_options])
        labels = [-1 if (label := rows[index].label) is None else label for index in with_options]
        preferred = receiver.prefers(receiver.prefix(asked, rows_of(soft, with_options)), tries, labels)
        for index, is_best in zip(with_options, preferred, strict=True):
            result[index] = is_best
    if free:
        asked = [prompts[index] for index in free]
        answers = [receiver.answer_ids(prompt, rows[index].answer) for prompt, index in zip(asked, free, strict=True)]
        exact = receiver.predicted_exactly(receiver.prefix(asked, rows_of(soft, free)), answers)
        for index, is_exact in zip(free, exact.tolist(), strict=True):
            result[index] = is_exact
    return result
