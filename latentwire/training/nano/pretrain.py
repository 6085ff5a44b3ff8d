"""Pretraining of the embedded models: the recipe behind ``latentwire nano train``.

Every step reads one micro-batch of tiny-world lessons. They begin with the circuits (continue, look up) alone; once those
have formed, the mixture moves to what a bridge will ask for, and steps also read a micro-batch of plain text; the last
part drills what is hard (sums, long codes, names). A second, shorter cycle of the learning rate is for records keyed by
name. A killed run resumes from its last checkpoint and reaches the same weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from latentwire.data.tinyworld.lessons import END, draw_lesson
from latentwire.errors import MismatchError, UnknownNameError
from latentwire.models.nano.specs import NANO_SPECS, NanoSpec
from latentwire.models.nano.tokenizers import train_tokenizer
from latentwire.training.checkpoint import load_checkpoint, save_checkpoint
from latentwire.training.nano.exams import examine
from latentwire.training.nano.stream import IGNORE, MicroBatch, PlainText, lesson_chunk, text_chunk
from latentwire.training.optimisers import Optimiser, stable_then_linear

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

QUICK_EXAMS = ("look_up", "complete", "record1", "record2", "record3", "math1", "math2", "intent", "code24", "note:record3")


@dataclass(frozen=True)
class PretrainConfig:
    """Everything that decides the weights of one embedded model."""

    model: str
    steps: int = 10_000
    seed: int = 0
    lr: float = 3e-3
    weight_decay: float = 0.05
    warmup_steps: int = 100
    decay_share: float = 0.4
    circuit_steps: int = 1_600
    ramp_steps: int = 1_200
    drill_from: int = 6_400
    second_cycle_from: int = 11_000
    second_decay_share: float = 0.5
    tokenizer_documents: int = 20_000

    def spec(self) -> NanoSpec:
        if self.model not in NANO_SPECS:
            raise UnknownNameError("embedded model", self.model, NANO_SPECS)
        return NANO_SPECS[self.model]

    def lesson_progress(self, step: int) -> float:
        """How far the lessons have moved: circuits (0), the whole world (1), its hard parts (2), records by name (3)."""
        if step >= self.second_cycle_from:
            return 3.0
        if step >= self.drill_from:
            return 2.0
        return min(1.0, max(0.0, (step - self.circuit_steps) / self.ramp_steps))

    def reads_text(self, step: int) -> bool:
        """Whether this step also reads plain text: once the circuits have formed; less often among the drills."""
        every = 1 if step < self.drill_from else 2 if step < self.second_cycle_from else 4
        return step >= self.circuit_steps and step % every == 0

    def learning_rate_factor(self, progress: float) -> float:
        """Two cycles, each constant and then linear to zero."""
        step = progress * self.steps
        if step < self.second_cycle_from:
            return stable_then_linear(self.decay_share)(step / self.second_cycle_from)
        return stable_then_linear(self.second_decay_share)((step - self.second_cycle_from) / (self.steps - self.second_cycle_from))


#: The steps are where a mixture had given what it could, watched in the run that made version 1 of each model.
RECIPES = {
    "nano-llama": PretrainConfig(
        model="nano-llama", steps=14_000, decay_share=0.36, circuit_steps=1_600, drill_from=6_400, second_cycle_from=11_000
    ),
    "nano-mistral": PretrainConfig(
        model="nano-mistral", steps=13_000, decay_share=0.38, circuit_steps=2_200, drill_from=5_400, second_cycle_from=10_000
    ),
}


def tokenizer_texts(config: PretrainConfig, text: PlainText) -> Iterator[str]:
    """What the tokenizer learns its merges from: lessons, and as many characters of plain text."""
    rng = Random(f"tokenizer:{config.model}:{config.seed}")
    characters = 0
    for _ in range(config.tokenizer_documents):
        document = "".join(piece for piece, _ in draw_lesson(rng, 0.7)).replace(END, "")
        characters += len(document)
        yield document
    while characters > 0:
        excerpt = text.excerpt(rng, 4000)
        characters -= len(excerpt)
        yield excerpt


class _Stream:
    """Micro-batches of one kind in order. Its position is three integers: chunk, batches taken, step the chunk began at."""

    def __init__(self, make_chunk: Callable[[int, int], list[MicroBatch]]) -> None:
        self.make_chunk = make_chunk
        self.position = [0, 0, 0]
        self._batches: list[MicroBatch] | None = None

    def next(self, step: int) -> MicroBatch:
        if self._batches is None:
            if self.position[1] == 0:
                self.position[2] = step
            self._batches = self.make_chunk(self.position[0], self.position[2])
        batch = self._batches[self.position[1]]
        self.position[1] += 1
        if self.position[1] == len(self._batches):
            self.position, self._batches = [self.position[0] + 1, 0, 0], None
        return batch


def micro_batch_loss(model: PreTrainedModel, batch: MicroBatch) -> torch.Tensor:
    """Mean cross-entropy in nats over the targets; the LM head runs at those positions only."""
    with torch.autocast(model.device.type, dtype=torch.bfloat16):
        hidden = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state.flatten(0, 1)
        targets = batch.targets.flatten()
        wanted = (targets != IGNORE).nonzero()[:, 0]
        return F.cross_entropy(model.lm_head(hidden[wanted]).float(), targets[wanted])


class Pretrainer:
    """One pretraining run in ``folder``: tokenizer, ``checkpoint.safetensors``, then the exported model."""

    def __init__(self, config: PretrainConfig, text: PlainText, folder: Path, *, resume: bool = False) -> None:
        self.config, self.text, self.folder = config, text, folder
        spec = config.spec()
        torch.manual_seed(config.seed)
        self.tokenizer: PreTrainedTokenizerBase = train_tokenizer(spec, tokenizer_texts(config, text))
        self.model = spec.build()
        self.optimiser = Optimiser(
            self.model.named_parameters(),
            name="muon",
            lr=config.lr,
            weight_decay=config.weight_decay,
            total_steps=config.steps,
            warmup_steps=config.warmup_steps,
            schedule=config.learning_rate_factor,
        )
        self.step, self.tokens, self.text_tokens, self.seconds = 0, 0, 0, 0.0
        # chunks are small because the mixture of the lessons is fixed within one
        self.lessons = _Stream(
            lambda chunk, step: lesson_chunk(
                self.tokenizer, seed=config.seed, chunk=chunk, progress=config.lesson_progress(step), documents=600
            )
        )
        self.texts = _Stream(lambda chunk, step: text_chunk(self.tokenizer, text, seed=config.seed, chunk=chunk, rows=64))
        if resume:
            self._restore()

    @property
    def checkpoint_path(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    def train_step(self) -> float:
        """One update; returns the loss on the lessons in nats."""
        batches = [self.lessons.next(self.step)]
        if self.config.reads_text(self.step):
            batches.append(self.texts.next(self.step))
            self.text_tokens += batches[-1].ids.numel()
        losses = [micro_batch_loss(self.model, batch) for batch in batches]
        (sum(losses) / len(losses)).backward()  # type: ignore[union-attr]
        self.optimiser.step(self.step)
        self.step += 1
        self.tokens += sum(batch.ids.numel() for batch in batches)
        return losses[0].item()

    def run(
        self,
        *,
        report: Callable[[str], None],
        should_stop: Callable[[], bool] = lambda: False,
        every: int = 200,
        examine_every: int = 2000,
    ) -> bool:
        """Trains to the end, saving every ``every`` steps; False if it was asked to stop before (all is saved)."""
        mean_loss = None
        while self.step < self.config.steps:
            started = time.perf_counter()
            loss = self.train_step()
            self.seconds += time.perf_counter() - started
            mean_loss = loss if mean_loss is None else 0.98 * mean_loss + 0.02 * loss
            at_end, stopping = self.step == self.config.steps, should_stop()
            if self.step % every == 0 or at_end or stopping:
                self.save()
                report(
                    f"{self.config.model} step {self.step}/{self.config.steps} · {self.tokens / 1e6:.1f} M tokens · "
                    f"{self.seconds / 60:.1f} min · lesson loss {mean_loss:.3f}"
                )
            if stopping:
                return at_end
            if self.step % examine_every == 0 and not at_end:
                report(f"{self.config.model} reads {examine(self.model, self.tokenizer, n=100, exams=QUICK_EXAMS)}")
        return True

    def save(self) -> None:
        save_checkpoint(
            self.checkpoint_path,
            {
                "config": asdict(self.config),
                "model": self.model.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "step": self.step,
                "tokens": self.tokens,
                "text_tokens": self.text_tokens,
                "seconds": self.seconds,
                "streams": [stream.position for stream in (self.lessons, self.texts)],
            },
        )

    def _restore(self) -> None:
        state = load_checkpoint(self.checkpoint_path)
        differing = {
            key: (value, getattr(self.config, key)) for key, value in state["config"].items() if getattr(self.config, key) != value
        }
        if differing:
            listed = ", ".join(f"{key}: {was!r} there, {now!r} here" for key, (was, now) in differing.items())
            raise MismatchError(f"{str(self.checkpoint_path)!r} belongs to another config ({listed}); choose another --out")
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.tokens, self.text_tokens, self.seconds = (state[k] for k in ("step", "tokens", "text_tokens", "seconds"))
        self.lessons.position, self.texts.position = state["streams"]
