"""Scoring many options: the trie's single pass against one bare pass of the same length and against one pass for each option."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from latentwire.benchmarks.bench_file import OptionsCase, Ratio, timed_ratio
from latentwire.benchmarks.floor import causal_pass, embedded, tree_pass
from latentwire.benchmarks.pair import BenchPair
from latentwire.benchmarks.timing import Advance, measure
from latentwire.data.tinyworld.lexicon import COLOURS, ITEMS
from latentwire.messages.channel import Channel

#: asked of the trie over the bare pass at most, and of the separate passes over the trie at least
BARE_MOST, SEPARATE_LEAST = 1.2, 10.0
WANTED_OPTIONS = (77, 150)


def measure_options(
    pair: BenchPair, options: Sequence[str], *, repetitions: int, advance: Advance = lambda done, total: None
) -> tuple[OptionsCase, list[Ratio]]:
    """These options behind the prefixes of the pair's rows, at batch 1. The trie's time is from options as text to scores."""
    receiver, sender = pair.parts.receiver, pair.parts.sender
    channel = Channel(pair.bridge.message, receiver)
    rows = pair.rows[:8]
    prompts = [row.receiver_prompt for row in rows]
    with torch.no_grad():
        soft = channel.deliver(pair.bridge(sender.read([row.sender_prompt for row in rows]))).soft
        prefixes = [receiver.prefix([prompt], soft[index : index + 1]) for index, prompt in enumerate(prompts)]
    tries = [receiver.tries([prompt], [options]) for prompt in prompts]
    spelled = [tries[0][0].spelled(option) for option in range(len(options))]
    bare = [tree_pass(receiver, prefix, trie) for prefix, trie in zip(prefixes, tries, strict=True)]
    causal = [causal_pass(receiver, item.arguments["inputs_embeds"], item.arguments["logits_to_keep"]) for item in bare]
    single = [causal_pass(receiver, torch.cat([prefixes[0].embeddings, _answer(pair, ids)], dim=1), len(ids)) for ids in spelled]

    @torch.no_grad()
    def score(turn: int) -> object:
        place = turn % len(rows)
        return receiver.score_options(prefixes[place], receiver.tries([prompts[place]], [options]))

    @torch.no_grad()
    def bare_pass(turn: int) -> object:
        return bare[turn % len(rows)](receiver)

    candidates = {
        "trie": score,
        "bare": bare_pass,
        "bare_causal": lambda turn: causal[turn % len(rows)](),
        "separate": lambda turn: [run() for run in single],
    }
    times = measure(candidates, device=pair.device, repetitions=repetitions, advance=advance)
    case = f"{len(options)} options"
    found = OptionsCase(
        options=len(options),
        nodes=len(tries[0][0].tokens),
        prefix_tokens=prefixes[0].mask.shape[1],
        trie=times.spread("trie"),
        bare=times.spread("bare"),
        bare_causal=times.spread("bare_causal"),
        separate=times.spread("separate"),
    )
    asked = len(options) >= min(WANTED_OPTIONS)
    return found, [
        timed_ratio("options", times, ("trie", "bare"), case, most=BARE_MOST if asked else None),
        timed_ratio("options", times, ("separate", "trie"), case, least=SEPARATE_LEAST if asked else None),
        timed_ratio("options", times, ("trie", "bare_causal"), case),
    ]


def _answer(pair: BenchPair, ids: Sequence[int]) -> torch.Tensor:
    """Embeddings of an option's tokens but the last, which predicts nothing."""
    receiver = pair.parts.receiver
    return embedded(receiver, torch.tensor([ids[:-1]], dtype=torch.long, device=receiver.device))


def option_texts(pair: BenchPair, count: int) -> list[str]:
    """``count`` different options: those of the task, then made-up ones that begin like them."""
    own = list(dict.fromkeys(pair.rows[0].options))
    made = [f"{colour} {item} {verb}" for verb in ("not delivered yet", "sent by mistake") for item in ITEMS for colour in COLOURS]
    if not own:
        return made[:count]
    tails = [option.split(" ", 1)[-1] for option in own]
    crossed = [
        f"{head.split(' ', 1)[0]} {tail}"
        for shift in range(1, len(own))
        for head, tail in zip(own, tails[shift:] + tails[:shift], strict=True)
    ]
    return list(dict.fromkeys([*own, *crossed, *made]))[:count]
