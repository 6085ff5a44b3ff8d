"""What a message keeps of real text: the receiver writes the text again, and its numbers and entities are looked for in it.

Tasks ask for one fact; a message that answers them may have lost all others. Here nothing is asked: the text itself is the
target. Beside the message stand another text's message (what survives it was guessed) and the text itself (what the receiver
would give back at best).

Shapes: B texts, K soft tokens, C control tokens, D_r receiver width.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latentwire.analysis.capacity.ceiling_search import Watch, interval
from latentwire.analysis.message_views import nearest_ids, readable_ids
from latentwire.analysis.recall_file import FACTS, READERS, RECALL_FILE, SCHEMA_VERSION, Recall, RecallPoint
from latentwire.analysis.sources import bridge_provenance
from latentwire.bridges.base import Bridge
from latentwire.config import ARTEFACT_FOLDER, STAGE_ONE, RunConfig
from latentwire.data.plain_text import PlainText
from latentwire.data.readers import read_task
from latentwire.data.task import load_task, task_names
from latentwire.data.task_config import TaskVariant
from latentwire.errors import DataError, UsageError
from latentwire.evaluation.controls import derangement
from latentwire.evaluation.run import load_parts, saved_config
from latentwire.files import write_json
from latentwire.messages.channel import Channel
from latentwire.messages.spans import kinds_and_spans
from latentwire.methods.base import Parts
from latentwire.methods.bridge import soft_tokens_of
from latentwire.models.receiver import Receiver
from latentwire.models.soft_tokens import Prefix, SoftTokens
from latentwire.prompts import Prompt
from latentwire.training.objectives import WRITING_CUES
from latentwire.training.pretraining import CHARACTERS_PER_TOKEN, TINY_WORLD, control_tokens

#: tokens beyond the text's own that the receiver may write
_SPARE_TOKENS = 8


@dataclass(frozen=True)
class RecallRequest:
    """What to measure of which run.

    ``texts``: tasks (what their sender reads), text files or folders; empty: the run's own tasks, or the texts of its stage one.
    A text is cut to ``most_tokens`` of the sender. ``out``: folder of the file, by default the run's.
    """

    run_folder: Path
    texts: Sequence[str] = ()
    rows: int = 200
    most_tokens: int = 64
    split: str = "test"
    data_dir: str | None = None
    seed: int = 0
    device: str | None = None
    batch_size: int = 64
    out: Path | None = None

    @property
    def folder(self) -> Path:
        return self.out or self.run_folder

    def check(self) -> None:
        """Raises ``UsageError`` for what no run could serve."""
        for name, least in (("rows", 2), ("most_tokens", 4), ("batch_size", 1)):
            value = getattr(self, name)
            if value < least:
                raise UsageError(f"{name} = {value} does not fit; give {least} or more")
        if self.folder.is_file():
            raise UsageError(f"{str(self.folder)!r} is a file; give a folder for {RECALL_FILE}")


def measure_recall(request: RecallRequest, *, watch: Watch = lambda what, done, total: None) -> Recall:
    """Measures and writes ``recall.json``.

    Raises:
        ArtefactError: no run, or no bridge in it. DataError: a source has too few texts. UnknownNameError: no such task.
        UsageError: a stage one of the tiny world alone, and no texts named.
    """
    request.check()
    config = saved_config(request.run_folder)
    artefact = request.run_folder / ARTEFACT_FOLDER
    bridge = Bridge.from_pretrained(artefact).with_finite_weights()
    sources = request.texts or own_sources(config)
    parts = load_parts(config, bridge, device=request.device, writer=False)
    texts = {source: read_texts(source, request, config, parts) for source in sources}
    asker = Asker(parts.receiver, control_tokens(artefact, "repeat"))
    bench = RecallBench(parts, bridge, asker, request.batch_size)
    total = len(texts) * len(READERS)
    points: list[RecallPoint] = []
    for source, own in texts.items():
        for reader in READERS:
            watch("recall", len(points), total)
            points.append(bench.point(source, own, reader))
    watch("recall", total, total)
    recall = Recall(schema_version=SCHEMA_VERSION, run=_measured(request, config, parts, asker, sources), points=points)
    write_json(request.folder / RECALL_FILE, recall)
    return recall


def own_sources(config: RunConfig) -> tuple[str, ...]:
    """The tasks of a run, or the plain texts of its stage one. Raises ``UsageError`` where that has none."""
    if config.task != (STAGE_ONE,):
        return config.task
    plain = tuple(name for name in config.pretraining.texts if name != TINY_WORLD)
    if not plain:
        raise UsageError("this stage one read the tiny world alone; name the texts to send, for example --texts gsm8k,squad")
    return plain


def read_texts(source: str, request: RecallRequest, config: RunConfig, parts: Parts) -> list[str]:
    """Distinct texts of a source, cut for the sender: excerpts of held-out plain text, or what a task's sender reads.

    Raises:
        DataError: fewer than two.
    """
    path = Path(source).expanduser()
    if source not in task_names() and path.suffix not in (".yaml", ".yml") and path.exists():
        plain, rng = PlainText(path), Random(f"recall:{request.seed}")
        found = [plain.excerpt(rng, CHARACTERS_PER_TOKEN * request.most_tokens, held_out=True) for _ in range(request.rows)]
    else:
        # what the receiver is taught plays no part here
        task = load_task(source, TaskVariant(sender_sees=config.variant.sender_sees))
        read = read_task(task, request.split, data_dir=request.data_dir or config.data.data_dir, max_rows=request.rows)
        found = [example.sender_prompt for example in read.examples]
    texts = [parts.sender.prompter.first(" ".join(text.split()), request.most_tokens).strip() for text in found]
    texts = list(dict.fromkeys(text for text in texts if text))
    if len(texts) < 2:
        raise DataError(f"{source!r} gives {len(texts)} text(s) and 2 are needed; raise --rows or name another source")
    return texts


class Asker:
    """How the receiver is asked to write a text again: by learned control tokens [C, D_r] where there are any, else in words."""

    def __init__(self, receiver: Receiver, control: Float[Tensor, "C D_r"] | None) -> None:
        self.receiver = receiver
        self.control = None if control is None else control.to(receiver.device)
        self.prompt = Prompt("", WRITING_CUES["text"] if control is None else "")

    def of_messages(self, soft: SoftTokens) -> Prefix:
        """Messages in the hole of the prompt."""
        return self.receiver.prefix([self.prompt] * len(soft.mask), soft if self.control is None else self._with_control(soft))

    def of_texts(self, texts: Sequence[str]) -> Prefix:
        """The texts themselves in their place."""
        prompts = [self.prompt.with_text(text) for text in texts]
        if self.control is None:
            return self.receiver.prefix(prompts)
        nothing = self.control.new_zeros(len(texts), 0, self.control.shape[1])
        no_mask = torch.zeros(nothing.shape[:2], dtype=torch.bool, device=nothing.device)
        return self.receiver.prefix(prompts, self._with_control(SoftTokens(nothing, no_mask)))

    def _with_control(self, soft: SoftTokens) -> SoftTokens:
        assert self.control is not None
        control = self.control.expand(len(soft.mask), -1, -1)
        mask = torch.ones(control.shape[:2], dtype=torch.bool, device=control.device)
        return replace(soft, vectors=torch.cat([soft.vectors, control], dim=1), mask=torch.cat([soft.mask, mask], dim=1))

    def ids(self, text: str) -> list[int]:
        """The receiver's tokens of a text, without an end."""
        return self.receiver.answer_ids(self.prompt, text, end=False)


@dataclass(frozen=True)
class _Part:
    """Some texts as a reader gives them back."""

    nats_per_token: list[float]
    written: list[str]
    spelled: list[str] | None
    message_tokens: list[int]
    message_bytes: list[int]


class RecallBench:
    """The loaded models, through which every source goes with every reader."""

    def __init__(self, parts: Parts, bridge: Bridge, asker: Asker, batch_size: int) -> None:
        self.parts, self.bridge, self.asker, self.batch_size = parts, bridge, asker, batch_size
        self.channel = Channel(bridge.message, parts.receiver)
        self.vocabulary: Int[Tensor, " V"] = readable_ids(parts.receiver)

    @torch.no_grad()
    def point(self, source: str, texts: Sequence[str], reader: str) -> RecallPoint:
        """All texts of one source through one reader."""
        sent = [texts[other] for other in derangement(len(texts))] if reader == "shuffled" else list(texts)
        done = [
            self._part(texts[start : start + self.batch_size], sent[start : start + self.batch_size], reader)
            for start in range(0, len(texts), self.batch_size)
        ]
        facts = {kind: [facts_of(text, kind) for text in texts] for kind in FACTS}

        def found(kind: str, outputs: list[str] | None) -> Any:
            if outputs is None:
                return None
            shares = [share_found(own, output) for own, output in zip(facts[kind], outputs, strict=True) if own]
            return interval(shares) if shares else None

        written = [text for part in done for text in part.written]
        spelled = None if reader == "text" else [text for part in done for text in part.spelled or ()]
        read = self.parts.sender.prompter
        return RecallPoint(
            source=source,
            reader=reader,
            n=len(texts),
            n_numbers=sum(map(bool, facts["numbers"])),
            n_entities=sum(map(bool, facts["entities"])),
            sender_tokens=statistics.fmean(read.count_texts(texts)),
            message_tokens=statistics.fmean(count for part in done for count in part.message_tokens),
            message_bytes=statistics.fmean(count for part in done for count in part.message_bytes),
            nats_per_token=interval([value for part in done for value in part.nats_per_token]),
            numbers_written=found("numbers", written),
            entities_written=found("entities", written),
            numbers_spelled=found("numbers", spelled),
            entities_spelled=found("entities", spelled),
        )

    def _part(self, texts: Sequence[str], sent: Sequence[str], reader: str) -> _Part:
        receiver = self.parts.receiver
        spelled = None
        if reader == "text":
            prefix = self.asker.of_texts(texts)
            tokens, sizes = receiver.prompter.count_texts(texts), [len(text.encode()) for text in texts]
        else:
            delivery = self.channel.deliver(self.channel.written(soft_tokens_of(self.parts.sender, self.bridge, sent), sent))
            prefix = self.asker.of_messages(delivery.soft)
            tokens, sizes = list(delivery.message_tokens), list(delivery.message_bytes)
            spelled = self._spelled(delivery.soft)
        answers = [self.asker.ids(text) for text in texts]
        log_probs, mask = receiver.answer_log_probs(prefix, answers)
        nats = (-log_probs.sum(dim=1) / mask.sum(dim=1)).tolist()
        most = max(len(answer) for answer in answers) + _SPARE_TOKENS
        return _Part(nats, receiver.generate(prefix, max_new_tokens=most), spelled, tokens, sizes)

    def _spelled(self, soft: SoftTokens) -> list[str]:
        """The nearest readable tokens of each message as a text, and the verbatim text behind them."""
        nearest = nearest_ids(self.parts.receiver, soft.vectors[soft.mask], self.vocabulary)
        rows = nearest.split(soft.tokens_per_row.tolist())
        verbatim = soft.verbatim or ("",) * len(rows)
        texts = [self.parts.receiver.tokenizer.decode(row.tolist()) for row in rows]
        return [f"{text} {extra}".strip() for text, extra in zip(texts, verbatim, strict=True)]


def facts_of(text: str, kind: str) -> list[str]:
    """The numbers, or the entities, of a text, each once."""
    return list(dict.fromkeys(span for of, span in kinds_and_spans(text) if of in FACTS[kind]))


#: what makes something a part of a longer number or word, as the rules for spans cut them
_NO_PART_BEFORE, _NO_PART_BEHIND = r"(?<![\w+−-])(?<!\d[.,:/–])", r"(?!\w)(?![.,:/–-]\d)"


def share_found(facts: Sequence[str], output: str) -> float:
    """Share of the facts that stand in ``output``, whole: 47 is not found in 147, 4,700, 10:47 or -47, nor Ann in Anna."""
    return statistics.fmean(bool(re.search(rf"{_NO_PART_BEFORE}{re.escape(fact)}{_NO_PART_BEHIND}", output)) for fact in facts)


def _measured(request: RecallRequest, config: RunConfig, parts: Parts, asker: Asker, sources: Sequence[str]) -> dict[str, Any]:
    """What produced the numbers, as in other result files, and what was sent."""
    return bridge_provenance(request.run_folder, config, parts) | {
        "sources": list(sources),
        "split": request.split,
        "rows": request.rows,
        "most_tokens": request.most_tokens,
        "asked_by": "words" if asker.control is None else "control tokens",
        "text_seed": request.seed,
    }
