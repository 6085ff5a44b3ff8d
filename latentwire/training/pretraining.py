"""Stage one: a bridge learns to carry general text between its pair, once, before any task (Pilchen et al. 2025 train alike).

The receiver writes, from a message alone, the text that the sender read (``repeat``), what follows it (``go_on``) or the tiny
world's note on it (``note``). Learned control tokens behind the message say which; they are not part of the bridge and end with the
stage, but are kept beside it for ``latentwire recall``. Of the tiny world's documents, which hold questions in many forms,
``go_on`` asks these, many about one message.

Row i of the stream depends on (seed, i) alone. Shapes: B rows, K soft tokens, C control tokens, D_r receiver width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from latentwire.bridges.base import Bridge
from latentwire.config import PretrainingSettings, RunConfig
from latentwire.data.plain_text import PlainText
from latentwire.data.task import Example
from latentwire.data.tinyworld.lessons import END, Document, draw_lesson
from latentwire.data.tinyworld.lexicon import SEEN, made_up_lexicon
from latentwire.data.tinyworld.rows import draw_scene
from latentwire.data.tinyworld.scenes import SCENES
from latentwire.errors import ArtefactError, UnknownNameError
from latentwire.models.chat import Prompter
from latentwire.models.receiver import Receiver
from latentwire.models.sender import Sender
from latentwire.models.soft_tokens import SoftTokens
from latentwire.prompts import Prompt
from latentwire.training.alignment import MOST_COUNTED_TEXTS, Alignment, alignment_for
from latentwire.training.bundles import Bundles
from latentwire.training.learners import BridgeLearner, StatesReader
from latentwire.training.parallel import Team
from latentwire.training.ridge import begin_with_ridge
from latentwire.training.run import Prepared, Say

TINY_WORLD = "tinyworld"
WRITTEN = ("repeat", "go_on", "note")
CONTROL_FILE = "control_tokens.safetensors"
#: documents of the tiny world whose later lines are asked of their first one
ASKED_LESSONS = {"continue": 1, "look_up": 1, "complete": 1, "attributes": 1, "things": 1}
CHARACTERS_PER_TOKEN = 5
#: scenes with made-up names and places, so that a name is any word in its place
MADE_UP_SHARE = 0.5


def prepare_texts(config: RunConfig, sender: Sender, receiver: Receiver, bridge: Bridge, team: Team, say: Say) -> Prepared:
    """Endless training bundles and a fixed validation set of general text. Texts are read once, so nothing is cached."""
    settings = config.pretraining
    writer = TextWriter(settings, sender.prompter, receiver.prompter)
    training = settings.training
    train = TextBundles(writer, training.steps * training.batch_size, config.seed, training.questions_per_message)
    held_out = TextBundles(writer, settings.validation_rows, config.seed, 1, held_out=True)
    validation = [held_out[index][0] for index in range(len(held_out))]
    counted = [train[index][0] for index in range(min(len(train), MOST_COUNTED_TEXTS))]
    begin_with_ridge(bridge, sender, receiver, counted, validation, say)
    learner = PretrainingLearner(
        bridge,
        receiver,
        sender.read,
        control_tokens=settings.control_tokens,
        seed=config.seed,
        token_dropout=training.token_dropout,
        alignment=alignment_for(config, sender, receiver, bridge, counted),
    )
    say(f"stage one: texts from {', '.join(settings.texts)}, {len(train):,} messages")
    return Prepared(learner, train, validation, dict.fromkeys(settings.texts, ""))


class PretrainingLearner(BridgeLearner):
    """A bridge and the control tokens that ask for one kind of writing."""

    def __init__(
        self,
        bridge: Bridge,
        receiver: Receiver,
        states: StatesReader,
        *,
        control_tokens: int,
        seed: int,
        token_dropout: float = 0.0,
        alignment: Alignment | None = None,
    ) -> None:
        super().__init__(bridge, receiver, states, token_dropout=token_dropout, alignment=alignment)
        generator = torch.Generator().manual_seed(seed)
        first = torch.randn(len(WRITTEN), control_tokens, receiver.width, generator=generator) * receiver.embedding_rms
        self.control_embeddings = nn.Parameter(first.to(receiver.device))
        self.module = nn.ModuleDict({"bridge": bridge})
        self.module.register_parameter("control_embeddings", self.control_embeddings)

    def soft_tokens(self, rows: Sequence[Example]) -> SoftTokens:
        """The messages, each with the control tokens of its row's lesson behind it, and none where the row asks in words."""
        message = super().soft_tokens(rows)
        lessons = torch.tensor(
            [WRITTEN.index(row.field) if row.field in WRITTEN else -1 for row in rows], device=message.mask.device
        )
        control = self.control_embeddings[lessons.clamp(min=0)]
        wanted = (lessons >= 0)[:, None].expand(-1, control.shape[1])
        return replace(message, vectors=torch.cat([message.vectors, control], dim=1), mask=torch.cat([message.mask, wanted], dim=1))

    def files_beside(self) -> dict[str, bytes]:
        """The control tokens: [lessons, C, D_r], in the order of ``WRITTEN``."""
        return {CONTROL_FILE: save({"control_embeddings": self.control_embeddings.detach().cpu()})}

    def align_loss(self, rows: Sequence[Example], soft: SoftTokens) -> Tensor:
        """That of the messages without their control tokens."""
        message = soft.vectors.shape[1] - self.control_embeddings.shape[1]
        return super().align_loss(rows, replace(soft, vectors=soft.vectors[:, :message], mask=soft.mask[:, :message]))


def control_tokens(artefact: Path, lesson: str) -> Tensor | None:
    """The control tokens [C, D_r] that asked for ``lesson`` while the bridge in this folder learned stage one, else None.

    Raises:
        ArtefactError: the file is cut or corrupt.
    """
    path = artefact / CONTROL_FILE
    if not path.is_file():
        return None
    try:
        return load_file(path)["control_embeddings"][WRITTEN.index(lesson)]
    except (SafetensorError, KeyError, IndexError):
        raise ArtefactError(f"control tokens {str(path)!r} are cut or corrupt; pretrain the bridge again") from None


class TextWriter:
    """Draws bundles of rows: a text for the sender, and what the receiver is to make of its message."""

    def __init__(self, settings: PretrainingSettings, sender: Prompter, receiver: Prompter) -> None:
        self.settings, self.sender, self.receiver = settings, sender, receiver
        self.scenes = settings.scenes or tuple(SCENES)
        for name in self.scenes:
            if name not in SCENES:
                raise UnknownNameError("tiny-world scene", name, SCENES)
        self.plain = {name: PlainText(Path(name).expanduser()) for name in settings.texts if name != TINY_WORLD}

    def draw(self, rng: Random, row_id: str, questions: int, *, held_out: bool) -> list[Example]:
        """One bundle: one row, or several that ask about one message."""
        source, lessons = rng.choice(self.settings.texts), self.settings.lessons
        # plain text has no notes
        known = ("repeat", "go_on") if source in self.plain and (lessons.repeat or lessons.go_on) else WRITTEN
        lesson = rng.choices(known, weights=[getattr(lessons, name) for name in known])[0]
        if source in self.plain:
            return [self._of_text(rng, row_id, self.plain[source], lesson, held_out=held_out)]
        if lesson == "go_on":
            return _asked(draw_lesson(rng, ASKED_LESSONS), row_id, rng, questions)
        words = made_up_lexicon() if rng.random() < MADE_UP_SHARE else SEEN
        scene, _ = draw_scene(rng, rng.choice(self.scenes), "validation" if held_out else "train", words=words)
        if lesson == "note" or rng.random() < 0.5:
            text = self.sender.first(scene.text, self.settings.context_tokens)
            return [_row(row_id, text, lesson, scene.note if lesson == "note" else self._cut(text), note=scene.note)]
        text = self.sender.first(draw_lesson(rng, ASKED_LESSONS)[0][0], self.settings.context_tokens)
        return [_row(row_id, text, lesson, self._cut(text))]

    def _of_text(self, rng: Random, row_id: str, plain: PlainText, lesson: str, *, held_out: bool) -> Example:
        settings = self.settings
        wanted = settings.context_tokens + (settings.target_tokens if lesson == "go_on" else 0)
        excerpt = " ".join(plain.excerpt(rng, CHARACTERS_PER_TOKEN * wanted, held_out=held_out).split())
        text = self.sender.first(excerpt, settings.context_tokens if lesson == "go_on" else rng.randint(4, settings.context_tokens))
        rest = excerpt[len(text) :].strip()
        return (
            _row(row_id, text, "go_on", self._cut(rest))
            if lesson == "go_on" and rest
            else _row(row_id, text, "repeat", self._cut(text))
        )

    def _cut(self, text: str) -> str:
        return self.receiver.first(text, self.settings.target_tokens)


class TextBundles(Bundles):
    """``count`` bundles, each drawn when it is asked for."""

    def __init__(self, writer: TextWriter, count: int, seed: int, questions: int, *, held_out: bool = False) -> None:
        self.writer, self.count, self.seed, self.questions, self.held_out = writer, count, seed, questions, held_out

    def __len__(self) -> int:
        return self.count

    @property
    def rows(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sequence[Example]:
        part = "validation" if self.held_out else "train"
        rng = Random(f"stage1:{part}:{self.seed}:{index}")
        return self.writer.draw(rng, f"{part}-{index}", self.questions, held_out=self.held_out)


def _asked(document: Document, row_id: str, rng: Random, questions: int) -> list[Example]:
    """The lines of a document as questions about its first one."""
    text, lines = document[0][0], document[1:]
    pairs = [(asked, answer) for (asked, _), (answer, _) in zip(lines[::2], lines[1::2], strict=True)]
    chosen = rng.sample(pairs, min(questions, len(pairs)))
    return [
        _row(f"{row_id}.{number}", text, "asked", answer.removesuffix(END).strip(), after=asked)
        for number, (asked, answer) in enumerate(chosen)
    ]


def _row(row_id: str, text: str, lesson: str, target: str, *, after: str = "", note: str | None = None) -> Example:
    """A row; a text of which there is no shorter note is its own."""
    return Example(
        id=row_id,
        task="stage one",
        sender_prompt=text,
        receiver_prompt=Prompt("", after),
        receiver_prompt_aware=Prompt(text, after),
        options=(),
        label=None,
        answer=target,
        answers=(target,),
        sender_sees="a text",
        receiver_sees="nothing",
        field=lesson,
        note=note or text,
    )
