"""Training rows per second: a step of the trainer against the paper's procedure, a named baseline with the same gradients.

The baseline (``PaperStep``) does in every step what the published reference does: the whole sender runs on the batch and returns
all of its hidden states, the receiver's weights keep their gradients, which nothing clears, and logits and their cross-entropy are
computed at every position. Rows, bridge, loss, optimiser and number format are those of the trainer; a test holds their gradients
together.

Shapes: B rows, S sender tokens, T receiver tokens, D_r receiver width.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from latentwire.benchmarks.bench_file import Ratio, TrainingCase, ratio_row
from latentwire.benchmarks.pair import BenchPair
from latentwire.benchmarks.timing import Advance, count_flops, measure
from latentwire.bridges.base import Bridge
from latentwire.config import FirstStage, RunConfig, Terms
from latentwire.data.task import Example
from latentwire.errors import DataError
from latentwire.messages.channel import Channel
from latentwire.models.sender import SenderStates, as_layers
from latentwire.models.tokens import pad_right
from latentwire.training.bundles import RowBundles
from latentwire.training.features import FeatureCache
from latentwire.training.learners import BridgeLearner
from latentwire.training.trainer import Trainer, make_optimiser

#: rows per second over those of the paper's procedure at least
NANO_LEAST, SIZED_LEAST = 3.0, 5.0
_BATCHES = 8
#: the label of a position at which nothing is predicted
_NOTHING = -100


class PaperStep:
    """One training step as in the paper's code: nothing frozen away, nothing cached, nothing left out."""

    def __init__(self, pair: BenchPair, bridge: Bridge, config: RunConfig) -> None:
        writer = pair.parts.sender.writer
        assert writer is not None
        self.sender, self.receiver, self.bridge, self.pair = writer, pair.parts.receiver, bridge, pair
        self.optimiser = make_optimiser(bridge, config.training)
        self.clip_norm, self.steps = config.training.clip_norm, 0
        self.channel = Channel(bridge.message, self.receiver)

    def __call__(self, rows: Sequence[Example]) -> float:
        """A whole step; returns the loss."""
        loss = self.loss(rows)
        loss.backward()
        self.optimiser.step(self.steps, clip_norm=self.clip_norm)
        self.steps += 1
        return loss.item()

    def loss(self, rows: Sequence[Example]) -> Tensor:
        """Mean over the rows of the mean cross-entropy of the answer's tokens, its end token included."""
        # never taken back: the receiver's gradients add up from step to step, as in the paper's code
        self.receiver.model.requires_grad_(True)
        texts = [row.sender_prompt for row in rows]
        soft = self.channel.taught(self.bridge(self._states(texts)), texts)
        prefixes, answers, positions = [], [], []
        for index, (row, message) in enumerate(zip(rows, self.receiver.messages(soft), strict=True)):
            before, after = self.receiver.prompter.prefix_ids(row.receiver_prompt)
            answers.append(torch.tensor(self.receiver.answer_ids(row.receiver_prompt, row.answer)))
            text = self._embedded([*before, *after, *answers[-1].tolist()])
            prefixes.append(torch.cat([text[: len(before)], *message, text[len(before) :]]))
            positions.append(soft.positions(len(prefixes[-1]), before=len(before), count=int(soft.mask[index].sum())))
        mask = pad_sequence([torch.ones(len(prefix), dtype=torch.long) for prefix in prefixes], batch_first=True)
        logits = self.receiver.model(
            inputs_embeds=pad_sequence(prefixes, batch_first=True),
            attention_mask=mask.to(self.receiver.device),
            position_ids=pad_sequence(positions, batch_first=True).to(self.receiver.device),
        ).logits.float()
        # what is predicted at each position: the next token of the answer, or nothing
        wanted = torch.full(mask.shape, _NOTHING)
        for own, answer, length in zip(wanted, answers, map(len, prefixes), strict=True):
            own[length - len(answer) - 1 : length - 1] = answer
        wanted = wanted.to(logits.device)
        losses = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=_NOTHING, reduction="none").view_as(wanted)
        return (losses.sum(dim=1) / (wanted != _NOTHING).sum(dim=1)).mean()

    def close(self) -> None:
        """Freezes the receiver again."""
        self.receiver.model.requires_grad_(False)
        for weight in self.receiver.model.parameters():
            weight.grad = None

    @torch.no_grad()
    def _embedded(self, ids: Sequence[int]) -> Tensor:
        return self.receiver.embed(torch.tensor(ids, dtype=torch.long, device=self.receiver.device))

    @torch.no_grad()
    def _states(self, texts: Sequence[str]) -> SenderStates:
        """All hidden states of the whole sender, of which the bridge reads its layer."""
        sender = self.pair.parts.sender
        encoded, skip = sender.prompter.context_ids(texts)
        ids, mask = pad_right(encoded, sender.tokenizer.pad_token_id or 0, sender.device)
        output = self.sender.model(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True)
        states = torch.cat([output.hidden_states[layer] for layer in as_layers(sender.layer)], dim=-1)
        return SenderStates(states[:, skip:], mask[:, skip:])


def step_config(pair: BenchPair, batch_size: int) -> RunConfig:
    """The pair's config for one plain task: the answer's tokens are taught, nothing before and nothing beside them, with the
    paper's AdamW.
    """
    training = pair.config.training.model_copy(
        update={
            "batch_size": batch_size,
            "first_stage": FirstStage(),
            "terms": Terms(),
            "option_objective": "answer",
            "questions_per_message": 1,
            "token_dropout": 0.0,
            "optimizer": "adamw",
            # a step of a benchmark reports nothing, as most steps of a training do
            "log_every": 10**9,
            "steps": 10**6,
        }
    )
    return pair.config.model_copy(update={"training": training, "task": (pair.task.name,)})


def our_trainer(pair: BenchPair, bridge: Bridge, config: RunConfig, rows: Sequence[Example], folder: Path) -> Trainer:
    """The trainer with its feature cache filled."""
    cache = FeatureCache(pair.parts.sender, folder=folder / "features")
    cache.add([row.sender_prompt for row in rows])
    learner = BridgeLearner(bridge, pair.parts.receiver, cache.states)
    return Trainer(config, learner=learner, train=RowBundles(list(rows), 1), validation=rows, folder=folder)


def measure_training(
    pair: BenchPair,
    *,
    repetitions: int,
    batch_size: int = 16,
    least: float | None = None,
    advance: Advance = lambda done, total: None,
) -> tuple[TrainingCase, list[Ratio]]:
    """Whole steps, optimiser included, on rows of the pair's task; the feature cache is full, as after the first epoch."""
    rows = pair.rows[: _BATCHES * batch_size]
    rows = rows[: len(rows) // batch_size * batch_size]
    if not rows:
        raise DataError(
            f"a training step takes {batch_size} rows, and {pair.task.name!r} has {len(pair.rows)} here; take another task"
        )
    config = step_config(pair, batch_size)
    bridges = [deepcopy(pair.bridge).requires_grad_(True).train() for _ in range(2)]
    with TemporaryDirectory() as folder:
        trainer = our_trainer(pair, bridges[0], config, rows, Path(folder))
        baseline = PaperStep(pair, bridges[1], config)
        cosine, distance = compare_gradients(pair, trainer, baseline, rows[:batch_size])

        def ours(turn: int) -> object:
            pair.parts.receiver.model.requires_grad_(False)
            return trainer.train_step()

        def paper(turn: int) -> object:
            return baseline([trainer.bundles[index][0] for index in trainer.order.batch(turn, batch_size)])

        times = measure({"step": ours, "paper": paper}, device=pair.device, repetitions=repetitions, warmup=2, advance=advance)
        # afterwards and not compiled: torch neither counts what is compiled nor compiles what it counts
        flops = count_flops(lambda: our_gradients(pair, trainer, rows[:batch_size]))
        baseline_flops = count_flops(lambda: baseline.loss(rows[:batch_size]).backward())
        baseline.close()
    gain = times.ratio("paper", "step")
    sender_counts = pair.parts.sender.prompter.count_texts([row.sender_prompt for row in rows])
    answers = [len(pair.parts.receiver.answer_ids(row.receiver_prompt, row.answer)) for row in rows]
    spreads = {name: times.spread(name) for name in ("step", "paper")}
    case = TrainingCase(
        task=pair.task.name,
        batch_size=batch_size,
        sender_tokens=round(statistics.fmean(sender_counts), 1),
        answer_tokens=round(statistics.fmean(answers), 1),
        step=spreads["step"],
        rows_per_second=round(1000 * batch_size / spreads["step"]["median_ms"], 2),
        baseline=spreads["paper"],
        baseline_rows_per_second=round(1000 * batch_size / spreads["paper"]["median_ms"], 2),
        flops=flops,
        baseline_flops=baseline_flops,
        gradient_cosine=cosine,
        gradient_distance=distance,
    )
    label = f"{pair.task.name}, batch {batch_size}"
    return case, [ratio_row("training", "rows per second, trainer / paper's procedure", label, gain, repetitions, least=least)]


def our_gradients(pair: BenchPair, trainer: Trainer, rows: Sequence[Example]) -> None:
    """The trainer's gradients of one batch, left at the bridge."""
    pair.parts.receiver.model.requires_grad_(False)
    soft = trainer.learner.soft_tokens(rows)
    trainer._answer_losses([[row] for row in rows], soft).mean().backward()


def compare_gradients(pair: BenchPair, trainer: Trainer, baseline: PaperStep, rows: Sequence[Example]) -> tuple[float, float]:
    """Cosine and relative distance of the bridge's gradients under both procedures; both are thrown away."""
    our_gradients(pair, trainer, rows)
    baseline.loss(rows).backward()
    found = []
    for module in (trainer.module, baseline.bridge):
        found.append(torch.cat([parameter.grad.flatten() for parameter in module.parameters() if parameter.grad is not None]))
        module.zero_grad(set_to_none=True)
    ours, paper = (gradient.cpu() for gradient in found)
    cosine = float(F.cosine_similarity(ours.double(), paper.double(), dim=0))
    return round(cosine, 8), round(float((ours - paper).norm() / paper.norm()), 8)
