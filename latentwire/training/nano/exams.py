"""How well an embedded model reads: exact match on every tiny-world task from text, and held-out plain-text loss."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from latentwire.data.tinyworld.lessons import END, LESSONS, Document
from latentwire.data.tinyworld.rows import generate_rows
from latentwire.data.tinyworld.scenes import SCENES
from latentwire.training.nano.stream import IGNORE, PlainText, batched, encode_documents, text_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def _exam_documents(exam: str, split: str, n: int, seed: int) -> list[Document]:
    """``n`` documents with one target each. Exams: a scene kind, ``kind/field``, ``note:kind`` (write it), or a lesson."""
    if exam in LESSONS and exam not in SCENES:
        rng = Random(f"exam:{exam}:{seed}")
        return [LESSONS[exam](rng)[:3] for _ in range(n)]
    kind, _, field = exam.removeprefix("note:").partition("/")
    rows = [row for row in generate_rows(kind, split, n, seed) if not field or row["field"] == field]
    if exam.startswith("note:"):
        return [[(row["context"], False), ("\nNote:", False), (f" {row['note']}{END}", True)] for row in rows]
    return [
        [(row["context"], False), (f"\nQuestion: {row['question']}\nAnswer:", False), (f" {row['answer']}{END}", True)]
        for row in rows
    ]


@torch.no_grad()
def exact_match(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, exam: str, *, split: str, n: int, seed: int = 0
) -> float:
    """Share of documents whose whole target the model predicts. A greedy decode is exact just when this one is."""
    documents = _exam_documents(exam, split, n, seed)
    faulty = 0
    for batch in batched(encode_documents(tokenizer, documents), Random(0)):
        wrong = (model(input_ids=batch.ids).logits.argmax(-1) != batch.targets) & (batch.targets != IGNORE)
        faulty += int(wrong.any(dim=1).sum())
    return 1 - faulty / len(documents)


@torch.no_grad()
def held_out_loss(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: PlainText, *, rows: int = 64) -> float:
    """Nats per token on text that no training excerpt touches."""
    total = count = 0.0
    for batch in batched(list(text_rows(tokenizer, text, Random("held out"), rows, held_out=True)), Random(0)):
        logits = model(input_ids=batch.ids).logits.float().flatten(0, 1)
        total += float(F.cross_entropy(logits, batch.targets.flatten(), ignore_index=IGNORE, reduction="sum"))
        count += int((batch.targets != IGNORE).sum())
    return total / count


#: every exam of the card: answers for all scene kinds, and the notes a relay writes
CARD_EXAMS = (*SCENES, *(f"note:{kind}" for kind in SCENES))


def examine(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    split: str = "validation",
    n: int = 200,
    exams: tuple[str, ...] = CARD_EXAMS,
) -> dict[str, float]:
    """Exact match per exam."""
    was_training = model.training
    model.eval()
    scores = {exam: round(exact_match(model, tokenizer, exam, split=split, n=n), 4) for exam in exams}
    model.train(was_training)
    return scores
