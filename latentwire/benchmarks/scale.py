"""Cost against one size at a time, with fitted slopes: context, soft tokens, options, batch, and the sender's layer.

A slope of 1 in log-log means that twice the size costs twice the time; attention makes long contexts steeper than that, and small
sizes, where a pass costs what starting it costs, flatter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch

from latentwire.benchmarks.bench_file import Curve, Point
from latentwire.benchmarks.pair import BenchPair
from latentwire.benchmarks.scoring import option_texts
from latentwire.benchmarks.timing import Advance, Candidate, loglog_slope, measure, timed
from latentwire.messages.channel import Channel
from latentwire.models.sender import lower_blocks
from latentwire.models.soft_tokens import SoftTokens
from latentwire.models.tokens import pad_right

CONTEXT_TOKENS = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
SOFT_TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
OPTIONS = (2, 4, 8, 16, 32, 77, 150)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
#: of the context that the curve over sender layers reads
LAYER_CONTEXT = 256
#: a point takes as many repetitions as fit, between these
_LEAST, _POINT_SECONDS = 3, 4.0

Sizes = Iterator[tuple[int, Candidate]]


class _EndsError(Exception):
    """A curve cannot go on; says why."""


def measure_scale(
    pair: BenchPair, *, repetitions: int, advance: Advance = lambda done, total: None, most_size: int | None = None
) -> list[Curve]:
    """All curves at batch 1 (but that over batches). ``most_size`` leaves larger sizes out."""
    curves = [
        ("context, text to answer", "sender tokens", CONTEXT_TOKENS, _contexts(pair)),
        ("message, soft tokens to answer", "soft tokens", SOFT_TOKENS, _soft_tokens(pair)),
        ("options, scored in one pass", "options", OPTIONS, _options(pair)),
        ("batch, texts to answers", "rows", BATCHES, _batches(pair)),
        ("sender layer, one read", "blocks", _blocks(pair), _layers(pair)),
    ]
    found = []
    for number, (what, unit, sizes, candidate) in enumerate(curves):
        kept = [size for size in sizes if most_size is None or size <= most_size]
        found.append(_curve(pair, what, unit, kept, candidate, repetitions))
        advance(number + 1, len(curves))
    return found


def _curve(
    pair: BenchPair, what: str, unit: str, sizes: Sequence[int], candidate: Callable[[int], Candidate], repetitions: int
) -> Curve:
    points: list[Point] = []
    why = None
    for size in sizes:
        try:
            run = candidate(size)
        except _EndsError as end:
            why = str(end)
            break
        with torch.no_grad():
            once = timed(run, 0, pair.device).wall_ms
            count = max(_LEAST, min(repetitions, int(1000 * _POINT_SECONDS / once)))
            times = measure({"point": run}, device=pair.device, repetitions=count, warmup=1)
        points.append(Point(size=size, times=times.spread("point")))
    medians = [point["times"]["median_ms"] for point in points]
    measured = [point["size"] for point in points]
    several = len(points) > 1
    return Curve(
        what=what,
        unit=unit,
        points=points,
        slope=round(loglog_slope(measured, medians), 3) if several else None,
        last_slope=round(loglog_slope(measured[-2:], medians[-2:]), 3) if several else None,
        ends_because=why,
    )


def context_of(pair: BenchPair, tokens: int) -> str:
    """A text of exactly so many sender tokens, made of the rows' contexts, or as near as the tokenizer's borders allow."""
    sender = pair.parts.sender
    texts: list[str] = []
    total = 0
    for turn in range(tokens + 1):
        text = pair.rows[turn % len(pair.rows)].sender_prompt
        texts.append(text)
        total += sender.prompter.count_texts([text])[0]
        if total > tokens:
            break
    return sender.prompter.first(" ".join(texts), tokens)


def _contexts(pair: BenchPair) -> Callable[[int], Candidate]:
    sender, receiver, method = pair.parts.sender, pair.parts.receiver, pair.method("bridge")
    question = receiver.prompter.count([row.receiver_prompt for row in pair.rows[:1]])[0] + pair.answer_tokens

    def candidate(tokens: int) -> Candidate:
        if tokens + 8 > sender.max_tokens:
            raise _EndsError(f"the sender reads at most {sender.max_tokens} tokens")
        row = dataclasses.replace(pair.rows[0], sender_prompt=context_of(pair, tokens))
        soft = pair.bridge.config.soft_tokens_of(tokens) or 0
        if soft + question + 8 > receiver.max_tokens:
            raise _EndsError(f"the receiver reads at most {receiver.max_tokens} tokens, the message would have {soft}")
        return lambda turn: pair.predict(method, [row])

    return candidate


def _soft_tokens(pair: BenchPair) -> Callable[[int], Candidate]:
    receiver, method, row = pair.parts.receiver, pair.method("bridge"), pair.rows[0]

    def candidate(count: int) -> Candidate:
        made = torch.Generator().manual_seed(count)
        vectors = torch.randn(1, count, receiver.width, generator=made) * receiver.embedding_rms
        soft = SoftTokens(vectors.to(receiver.device), torch.ones(1, count, dtype=torch.bool, device=receiver.device))
        limit = pair.task.config.max_new_tokens
        return lambda turn: method.answers(
            [row], [row.receiver_prompt], lambda asked: receiver.prefix(asked, soft), max_new_tokens=limit
        )

    return candidate


def _options(pair: BenchPair) -> Callable[[int], Candidate]:
    receiver, sender, prompt = pair.parts.receiver, pair.parts.sender, pair.rows[0].receiver_prompt
    channel = Channel(pair.bridge.message, receiver)
    with torch.no_grad():
        soft = channel.deliver(pair.bridge(sender.read([pair.rows[0].sender_prompt]))).soft
        prefix = receiver.prefix([prompt], soft)

    def candidate(count: int) -> Candidate:
        options = option_texts(pair, count)
        return lambda turn: receiver.score_options(prefix, receiver.tries([prompt], [options]))

    return candidate


def _batches(pair: BenchPair) -> Callable[[int], Candidate]:
    method = pair.method("bridge")
    return lambda size: lambda turn: pair.predict(method, pair.batch(turn, size))


def _blocks(pair: BenchPair) -> list[int]:
    """Eight depths at most, the whole model's last."""
    depth: int = pair.parts.sender.source.config.num_hidden_layers
    return sorted({max(1, round(depth * part / 8)) for part in range(1, 9)})


def _layers(pair: BenchPair) -> Callable[[int], Candidate]:
    sender = pair.parts.sender
    assert sender.writer is not None
    decoder = sender.writer.model.get_decoder()
    encoded, _ = sender.prompter.context_ids([context_of(pair, LAYER_CONTEXT)])
    ids, _ = pad_right(encoded, 0, sender.device)

    def candidate(blocks: int) -> Candidate:
        lower = lower_blocks(decoder, blocks)
        return lambda turn: lower(input_ids=ids, use_cache=False)

    return candidate
