"""What is timed is the path and what it is held against does the same work."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from latentwire.benchmarks.floor import prepare_floor
from latentwire.benchmarks.latency import measure_latency
from latentwire.benchmarks.pair import NOTE_TOKENS, BenchPair, lengthened
from latentwire.benchmarks.scale import context_of, measure_scale
from latentwire.benchmarks.scoring import measure_options, option_texts
from latentwire.benchmarks.sized import SMALL, make_sized_pair
from latentwire.benchmarks.stages import STAGES, measure_stages
from latentwire.benchmarks.throughput import measure_throughput
from latentwire.benchmarks.timing import count_flops
from latentwire.benchmarks.training_speed import PaperStep, compare_gradients, measure_training, our_trainer, step_config
from latentwire.errors import DataError, UsageError
from latentwire.messages.channel import Channel
from latentwire.messages.settings import MessageSettings
from latentwire.training.run import new_bridge


@pytest.mark.parametrize("rows", [1, 3])
def test_the_floor_ends_in_the_same_tokens_as_the_path(writing: BenchPair, rows: int) -> None:
    batch = writing.batch(0, rows)
    floor = prepare_floor(writing, batch)
    last = floor().logits[:, -1].argmax(-1).tolist()
    parts = writing.parts
    soft = writing.bridge(parts.sender.read([row.sender_prompt for row in batch]))
    prefix = parts.receiver.prefix([row.receiver_prompt for row in batch], soft)
    with torch.no_grad():
        written = parts.receiver.generate_ids(prefix, max_new_tokens=writing.answer_tokens)
    assert [ids[-1] for ids in written] == last
    assert floor.sizes["decode_steps"] == writing.answer_tokens == len(written[0])


@pytest.mark.parametrize("rows", [1, 3])
def test_the_floor_scores_the_same_options(scoring: BenchPair, rows: int) -> None:
    batch = scoring.batch(0, rows)
    floor = prepare_floor(scoring, batch)
    logits = floor().logits
    receiver = scoring.parts.receiver
    tries = receiver.tries([row.receiver_prompt for row in batch], [row.options for row in batch])
    found = [trie.option_scores(own.log_softmax(-1)) for trie, own in zip(tries, logits, strict=True)]
    answers = scoring.method("bridge").predict(batch, max_new_tokens=1)
    for own, answer in zip(found, answers, strict=True):
        assert answer.scores == pytest.approx(own.tolist(), abs=1e-4)


def test_all_answers_and_notes_have_the_tokens_asked_for(writing: BenchPair) -> None:
    writer = writing.parts.sender.writer
    assert writer is not None
    prefix = writer.prefix([row.receiver_prompt for row in writing.batch(0, 2)])
    assert {len(ids) for ids in writer.generate_ids(prefix, max_new_tokens=NOTE_TOKENS)} == {NOTE_TOKENS}


def test_stages_are_those_of_the_path_and_leave_it_as_it_was(writing: BenchPair) -> None:
    method, receiver = writing.method("bridge"), writing.parts.receiver
    before = (Channel.deliver, receiver.model.forward, writing.bridge.forward, writing.parts.sender.read_ids)
    stages = measure_stages(writing, method, lambda turn: writing.batch(turn, 2), repetitions=5)
    assert (Channel.deliver, receiver.model.forward, writing.bridge.forward, writing.parts.sender.read_ids) == before
    assert list(stages["stages_ms"]) == list(STAGES)
    assert all(value > 0 for value in stages["stages_ms"].values())
    assert 0.8 < stages["covered"] <= 1.0


def test_a_latency_case_has_every_method_and_what_it_sends(writing: BenchPair) -> None:
    case, ratios = measure_latency(writing, case="batch 1", batch_size=1, repetitions=3)
    assert [row["method"] for row in case["methods"]] == ["bridge", "receiver_text", "text_relay", "floor"]
    assert all((row["flops"] or 0) > 0 for row in case["methods"])
    bridge = case["methods"][0]
    width = writing.parts.receiver.width
    assert (bridge["message_tokens"], bridge["message_bytes"]) == (8, 8 * width * 4)
    assert case["note_tokens"] == NOTE_TOKENS
    assert 0 < case["bridge_share"] < 1
    assert [ratio["name"] for ratio in ratios] == ["bridge / floor", "text_relay / bridge", "bridge / receiver_text"]
    assert [(ratio["most"], ratio["least"]) for ratio in ratios] == [(1.15, None), (None, 8.0), (None, None)]


def test_lengthened_rows_are_as_long_as_asked_and_ask_the_same(writing: BenchPair) -> None:
    rows = lengthened(writing, receiver_tokens=256)
    counts = writing.parts.receiver.prompter.count_texts([row.sender_prompt for row in rows])
    assert min(counts) >= 250
    assert [row.receiver_prompt for row in rows] == [row.receiver_prompt for row in writing.rows]
    assert all(row.receiver_prompt_aware.before.startswith(row.sender_prompt) for row in rows)


@pytest.mark.parametrize("count", [2, 77, 150])
def test_options_for_scoring_are_as_many_as_asked_and_all_different(scoring: BenchPair, count: int) -> None:
    assert len(set(option_texts(scoring, count))) == count


def test_the_options_case_counts_its_nodes(scoring: BenchPair) -> None:
    case, ratios = measure_options(scoring, option_texts(scoring, 20), repetitions=2)
    assert case["options"] == 20
    assert 0 < case["nodes"] < 20 * 12
    assert [ratio["met"] for ratio in ratios] == [None, None, None]


def test_throughput_compares_rows_not_calls(writing: BenchPair) -> None:
    case, (ratio,) = measure_throughput(writing, repetitions=2, batch_size=8)
    assert case["batch_size"] == 8
    assert case["batched_rows_per_second"] > 0
    assert ratio["least"] == 10.0


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("writing", {}, {}),
        ("scoring", {}, {}),
        ("writing", {"name": "pooled", "stride": 3, "unfold": 1}, {}),
        ("writing", {"name": "pooled"}, {"verbatim": "rules"}),
    ],
)
def test_the_papers_procedure_gives_the_same_gradients(
    kind: str, settings: dict[str, object], message: dict[str, str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    pair: BenchPair = request.getfixturevalue(kind)
    if settings:
        changed = pair.config.model_copy(update={"bridge": settings, "message": MessageSettings(**message)})
        bridge = new_bridge(changed, pair.parts.sender, pair.parts.receiver)
        pair = replace(pair, config=changed, parts=replace(pair.parts, bridge=bridge))
    config = step_config(pair, 6)
    bridges = [copy.deepcopy(pair.bridge).requires_grad_(True).train() for _ in range(2)]
    trainer = our_trainer(pair, bridges[0], config, pair.rows[:6], tmp_path)
    baseline = PaperStep(pair, bridges[1], config)
    cosine, distance = compare_gradients(pair, trainer, baseline, pair.rows[:6])
    # the receiver's own weights get gradients too, as in the paper's code, and ours never do
    weights = list(pair.parts.receiver.model.parameters())
    once = [weight.grad.clone() for weight in weights if weight.grad is not None]
    assert len(once) == len(weights)
    # and nothing clears them
    baseline.loss(pair.rows[:6]).backward()
    assert all(torch.allclose(weight.grad, 2 * before) for weight, before in zip(weights, once, strict=True))
    baseline.close()
    assert all(weight.grad is None and not weight.requires_grad for weight in weights)
    assert cosine > 0.99999
    assert distance < 1e-3


def test_fewer_rows_than_a_step_takes_are_named(writing: BenchPair) -> None:
    with pytest.raises(DataError, match="a training step takes 16 rows"):
        measure_training(replace(writing, rows=writing.rows[:10]), repetitions=2)


def test_the_products_of_attention_are_counted_on_a_cpu(writing: BenchPair) -> None:
    model = writing.parts.receiver.model
    ids = torch.ones(1, 64, dtype=torch.long)
    counted = count_flops(lambda: model(input_ids=ids))
    model.set_attn_implementation("eager")
    try:
        plain = count_flops(lambda: model(input_ids=ids))
    finally:
        model.set_attn_implementation("sdpa")
    assert counted == plain


def test_the_sized_pair_is_not_made_over_a_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"identity": "", "config": {"sender": {"model": "nano-llama"}}}')
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(UsageError, match="holds a run; leave out --sized"):
        make_sized_pair(tmp_path, SMALL)
    assert (tmp_path / "config.json").read_bytes() == before
    made = make_sized_pair(tmp_path / "own", SMALL)
    assert make_sized_pair(made, SMALL) == made


def test_training_leaves_the_pair_frozen_and_its_bridge_alone(writing: BenchPair) -> None:
    before = {name: tensor.clone() for name, tensor in writing.bridge.state_dict().items()}
    case, _ = measure_training(writing, repetitions=2, batch_size=4)
    # the paper's step reads the sender and makes gradients of the receiver's weights
    assert 0 < 1.2 * case["flops"] < case["baseline_flops"]
    assert case["gradient_cosine"] > 0.99999
    assert not any(weight.requires_grad for weight in writing.parts.receiver.model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in writing.bridge.state_dict().items())


def test_curves_have_slopes_and_say_where_they_end(writing: BenchPair) -> None:
    curves = {curve["unit"]: curve for curve in measure_scale(writing, repetitions=3)}
    assert [point["size"] for point in curves["soft tokens"]["points"]] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert all(curve["slope"] is not None for curve in curves.values())
    assert "at most 1024" in str(curves["sender tokens"]["ends_because"])
    assert [point["size"] for point in curves["blocks"]["points"]] == [1, 2, 3, 4]


@pytest.mark.parametrize("tokens", [16, 64, 300])
def test_contexts_have_the_tokens_asked_for(writing: BenchPair, tokens: int) -> None:
    assert writing.parts.sender.prompter.count_texts([context_of(writing, tokens)])[0] == pytest.approx(tokens, abs=1)
