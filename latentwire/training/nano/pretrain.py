"""Pretraining of the embedded models: the run behind ``latentwire nano train``.

Every step reads one micro-batch of tiny-world lessons and, in the later phases, one of plain text. A killed run resumes
from its last checkpoint and reaches the same weights.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from latentwire.data.tinyworld.lessons import END, draw_lesson
from latentwire.errors import MismatchError
from latentwire.models.nano.tokenizers import train_tokenizer
from latentwire.training.checkpoint import load_checkpoint, save_checkpoint
from latentwire.training.nano.exams import examine
from latentwire.training.nano.recipe import Phase, Recipe
from latentwire.training.nano.stream import IGNORE, MicroBatch, PlainText, lesson_chunk, text_chunk
from latentwire.training.optimisers import Optimiser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

QUICK_EXAMS = (
    "look_up", "complete", "record1", "record2", "record3", "record3/who", "record3/item", "record3/place", "record3/count",
    "record3/colour", "math2", "sentiment", "intent", "code8", "code24", "note:record3",
)  # fmt: skip


def tokenizer_texts(recipe: Recipe, text: PlainText) -> Iterator[str]:
    """What the tokenizer learns its merges from: lessons of the last phase, and as many characters of plain text."""
    rng = Random(f"tokenizer:{recipe.model}:{recipe.seed}")
    characters = 0
    for _ in range(recipe.tokenizer_documents):
        document = "".join(piece for piece, _ in draw_lesson(rng, recipe.phases[-1].shares)).replace(END, "")
        characters += len(document)
        yield document
    while characters > 0:
        excerpt = text.excerpt(rng, 4000)
        characters -= len(excerpt)
        yield excerpt


class _Stream:
    """Micro-batches of one kind in order. Its position is three integers: chunk, batches taken, phase of the chunk."""

    def __init__(self, make_chunk: Callable[[int, int], list[MicroBatch]]) -> None:
        self.make_chunk = make_chunk
        self.position = [0, 0, 0]
        self._batches: list[MicroBatch] | None = None

    def next(self, phase: int) -> MicroBatch:
        if self._batches is None:
            if self.position[1] == 0:
                self.position[2] = phase
            self._batches = self.make_chunk(self.position[0], self.position[2])
        batch = self._batches[self.position[1]]
        self.position[1] += 1
        if self.position[1] == len(self._batches):
            self.position, self._batches = [self.position[0] + 1, 0, 0], None
        return batch


def micro_batch_loss(model: PreTrainedModel, decoder: Callable[..., Any], batch: MicroBatch) -> torch.Tensor:
    """Mean cross-entropy in nats over the targets; the LM head runs at those positions only.

    ``decoder`` is ``model.model``, compiled or not.
    """
    with torch.autocast(model.device.type, dtype=torch.bfloat16):
        hidden = decoder(input_ids=batch.ids, use_cache=False).last_hidden_state.flatten(0, 1)
        targets = batch.targets.flatten()
        wanted = (targets != IGNORE).nonzero()[:, 0]
        return F.cross_entropy(model.lm_head(hidden[wanted]).float(), targets[wanted])


def recipe_record(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON would give it back."""
    record: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    return record


class Pretrainer:
    """One pretraining run in ``folder``: tokenizer, ``checkpoint.safetensors``, then the exported model.

    ``compiled`` is half as fast again and needs a C++ compiler; resuming to the same bytes needs the same choice.
    """

    def __init__(self, recipe: Recipe, text: PlainText, folder: Path, *, resume: bool = False, compiled: bool = False) -> None:
        self.recipe, self.text, self.folder, self.compiled = recipe, text, folder, compiled
        spec = recipe.spec()
        torch.manual_seed(recipe.seed)
        self.tokenizer = self._tokenizer(resume)
        self.model = spec.build()
        self.model.set_attn_implementation("eager")  # on a CPU and at these lengths, twice as fast as the fused kernels
        self.decoder: Callable[..., Any] = self.model.model
        if compiled:
            self.decoder = torch.compile(self.decoder, dynamic=False)
        self.step, self.phase_at, self.phase_from = 0, 0, 0
        self.tokens, self.text_tokens, self.seconds = 0, 0, 0.0
        self.optimiser = Optimiser(
            self.model.named_parameters(),
            name="muon",
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            total_steps=1,  # how many there will be is up to the gates
            warmup_steps=recipe.warmup_steps,
            schedule=lambda _: self.learning_rate_factor(),
        )
        # chunks are small because the mixture of the lessons is fixed within one
        self.lessons = _Stream(
            lambda chunk, phase: lesson_chunk(
                self.tokenizer, recipe.phases[phase].shares, seed=recipe.seed, chunk=chunk, documents=600
            )
        )
        self.texts = _Stream(lambda chunk, _: text_chunk(self.tokenizer, text, seed=recipe.seed, chunk=chunk, rows=64))
        if resume:
            self._restore()

    def _tokenizer(self, resume: bool) -> PreTrainedTokenizerBase:
        """Learned once per run and kept beside the checkpoint: the embeddings mean nothing with another."""
        from transformers import PreTrainedTokenizerFast

        folder = self.folder / "tokenizer"
        if resume and folder.is_dir():
            kept: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(folder)
            return kept
        learned = train_tokenizer(self.recipe.spec(), tokenizer_texts(self.recipe, self.text))
        learned.save_pretrained(folder)
        return learned

    @property
    def checkpoint_path(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    @property
    def phase(self) -> Phase:
        return self.recipe.phases[self.phase_at]

    @property
    def finished(self) -> bool:
        return self.phase_at == len(self.recipe.phases)

    def learning_rate_factor(self) -> float:
        """1, then linearly to 0 within the last phase."""
        if self.phase_at < len(self.recipe.phases) - 1:
            return 1.0
        return 1.0 - (self.step - self.phase_from) / self.phase.steps

    def train_step(self) -> float:
        """One update; returns the loss on the lessons in nats."""
        batches = [self.lessons.next(self.phase_at)]
        if self.phase.text_every and self.step % self.phase.text_every == 0:
            batches.append(self.texts.next(self.phase_at))
            self.text_tokens += batches[-1].ids.numel()
        losses = [micro_batch_loss(self.model, self.decoder, batch) for batch in batches]
        (sum(losses) / len(losses)).backward()  # type: ignore[union-attr]
        self.optimiser.step(self.step)
        self.step += 1
        self.tokens += sum(batch.ids.numel() for batch in batches)
        return losses[0].item()

    def _leave_phase(self, *, check_every: int) -> str | None:
        """Goes on to the next phase if this one is over; says why."""
        done = self.step - self.phase_from
        reason = f"after {done} steps" if done >= self.phase.steps else None
        if reason is None and self.phase.gate and done >= self.phase.least_steps and done % check_every == 0:
            scores = examine(self.model, self.tokenizer, exams=tuple(self.phase.gate))
            if all(scores[exam] >= wanted for exam, wanted in self.phase.gate.items()):
                reason = f"after {done} steps at {scores}"
        if reason is None:
            return None
        name = self.phase.name
        self.phase_at, self.phase_from = self.phase_at + 1, self.step
        return f"phase {name!r} ends {reason}"

    def run(
        self,
        *,
        report: Callable[[str], None],
        should_stop: Callable[[], bool] = lambda: False,
        every: int = 200,
        examine_every: int = 1000,
    ) -> bool:
        """Trains to the end, saving every ``every`` steps; False if it was asked to stop before (all is saved)."""
        mean_loss = None
        while not self.finished:
            started = time.perf_counter()
            phase = self.phase
            loss = self.train_step()
            mean_loss = loss if mean_loss is None else 0.98 * mean_loss + 0.02 * loss
            left = self._leave_phase(check_every=every)
            self.seconds += time.perf_counter() - started
            stopping = should_stop()
            if self.step % every == 0 or left or stopping:
                self.save()
                report(
                    f"{self.recipe.model} step {self.step} ({phase.name}) · {self.tokens / 1e6:.1f} M tokens · "
                    f"{self.seconds / 60:.1f} min · lesson loss {mean_loss:.3f}"
                )
            if left:
                report(f"{self.recipe.model} {left}")
            if stopping:
                return self.finished
            if self.step % examine_every == 0 and not self.finished:
                report(f"{self.recipe.model} reads {examine(self.model, self.tokenizer, exams=QUICK_EXAMS)}")
        return True

    def save(self) -> None:
        save_checkpoint(
            self.checkpoint_path,
            {
                "recipe": recipe_record(self.recipe),
                "model": self.model.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                **{name: getattr(self, name) for name in self._COUNTERS},
                "streams": [stream.position for stream in (self.lessons, self.texts)],
            },
        )

    _COUNTERS = ("step", "phase_at", "phase_from", "tokens", "text_tokens", "seconds")

    def _restore(self) -> None:
        state = load_checkpoint(self.checkpoint_path)
        here = recipe_record(self.recipe)
        differing = {key: (was, here.get(key)) for key, was in state["recipe"].items() if here.get(key) != was}
        if differing:
            listed = ", ".join(f"{key}: {was!r} there, {now!r} here" for key, (was, now) in differing.items())
            raise MismatchError(f"{str(self.checkpoint_path)!r} belongs to another recipe ({listed}); choose another --out")
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        for name in self._COUNTERS:
            setattr(self, name, state[name])
        self.lessons.position, self.texts.position = state["streams"]
