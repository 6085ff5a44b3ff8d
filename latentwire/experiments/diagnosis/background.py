"""The background of a diagnosis: what the run is, what happened, and what the parts of it show. Facts only, no judgement.

Every section is (heading, lines). Standard library only, Python 3.9.
"""

from __future__ import annotations

from collections.abc import Iterator

from latentwire.experiments.diagnosis.curves import Point
from latentwire.experiments.diagnosis.hypotheses import Case
from latentwire.experiments.diagnosis.outputs import Outputs, label_bits
from latentwire.experiments.diagnosis.peers import bridge_of, tasks_of

MOST_EXAMPLES = 5
MOST_ATTEMPTS = 6
Section = tuple[str, list[str]]


def background(case: Case) -> list[Section]:
    """All sections that have something to say."""
    sections = [
        ("The run", list(_run(case))),
        ("What happened", list(_attempts(case))),
        ("Outputs against targets", list(_outputs(case))),
        ("Architecture", list(_architecture(case))),
        ("Objective", list(_objective(case))),
        ("Information", list(_information(case))),
        ("Files that could not be read", list(case.run.unreadable)),
    ]
    return [(heading, lines) for heading, lines in sections if lines]


def _run(case: Case) -> Iterator[str]:
    config = case.run.config
    if config:
        models = " → ".join(str((config.get(end) or {}).get("model")) for end in ("sender", "receiver"))
        yield f"tasks {', '.join(tasks_of(config)) or '?'}; bridge {bridge_of(config) or '?'}; {models}; seed {config.get('seed')}"
        training = config.get("training") or {}
        keys = ("steps", "batch_size", "optimizer", "lr", "warmup_steps")
        yield "training " + ", ".join(f"{key} {training[key]}" for key in keys if key in training)
    if case.experiment.command:
        yield f"command `{' '.join(case.experiment.command)}`"
    for split in ("train", "validation"):
        rows = case.run.rows_of(split)
        if rows:
            yield f"{rows['rows']} {split} rows; the sender sees {rows['sender_sees']}, the receiver {rows['receiver_sees']}"


def _attempts(case: Case) -> Iterator[str]:
    yield f"state {case.experiment.state.value}: {case.experiment.reason or 'no reason given'}"
    for attempt in case.experiment.attempts[-MOST_ATTEMPTS:]:
        place = " ".join(
            part
            for part in (
                f"on {attempt.host}" if attempt.host else "",
                f"job {attempt.job_id}" if attempt.job_id else "",
                f"GPU {attempt.gpu}" if attempt.gpu else "",
            )
            if part
        )
        ending = f"exit code {attempt.exit_code}" if attempt.exit_code is not None else "no exit code"
        kind = f", class {attempt.error_class.value}" if attempt.error_class else ""
        span = f"{attempt.started or '?'} to {attempt.ended or '?'}"
        yield f"attempt {attempt.generation}{place and ' ' + place}: {attempt.state.value}, {span}, {ending}{kind}"
    if case.log.last_line:
        yield f"the log ends: “{case.log.last_line[:160]}” ({case.log.end})"


def _outputs(case: Case) -> Iterator[str]:
    for outputs in case.outputs:
        method = outputs.answered.header.get("method")
        interval = f"{outputs.low:.1%} to {outputs.high:.1%}"
        n = len(outputs.records)
        yield f"{outputs.task}, {method}: {outputs.metric} {outputs.value:.1%} ({interval}, n {n}), chance {outputs.chance:.1%}"
    if case.worst is None:
        if case.validation is not None:
            yield f"no predictions; best validation {case.validation:.1%}"
        return
    for other in sorted(case.beside, key=_order):
        control = other.answered.header.get("control")
        yield f"beside it: {other.answered.header.get('method')}{f' ({control})' if control else ''} {other.value:.1%}"
    given = ", ".join(f"“{text[:40]}” {count}" for text, count in case.worst.given.most_common(4))
    wanted = ", ".join(f"“{text[:40]}” {count}" for text, count in case.worst.wanted.most_common(4))
    yield f"most given: {given}"
    yield f"most wanted: {wanted}"
    for index, record in enumerate(case.worst.records[:MOST_EXAMPLES]):
        yield (
            f"{record['id']}: “{_short(record['prediction'])}” for “{_short(record['target'])}” "
            f"({outputs_value(case.worst, index)}; {case.worst.answered.place(index)})"
        )


def outputs_value(outputs: Outputs, index: int) -> str:
    """``right``, ``wrong`` or the score of a record."""
    value = outputs.records[index].get("values", {}).get(outputs.metric)
    return {1.0: "right", 0.0: "wrong"}.get(value, str(value))


def _order(outputs: Outputs) -> tuple[str, str]:
    return str(outputs.answered.header.get("control") or ""), outputs.answered.path


def _architecture(case: Case) -> Iterator[str]:
    parameters = case.run.summary.get("trainable_params")
    if parameters:
        yield f"{parameters:,} trainable parameters"
    for peer in case.peers[:3]:
        shared = " and ".join(word for word, is_same in (("task", peer.same_task), ("bridge", peer.same_bridge)) if is_same)
        differing = ", ".join(f"{key} {ours} here, {theirs} there" for key, (ours, theirs) in list(peer.differences.items())[:4])
        more = f" and {len(peer.differences) - 4} more" if len(peer.differences) > 4 else ""
        size = f", {peer.trainable_params:,} trainable parameters" if peer.trainable_params else ""
        yield f"{peer.name} (same {shared}{size}) reached {peer.score:.1%}: {differing or 'same settings'}{more}"
    if not case.peers:
        yield "no completed run of the same task or bridge to compare with"


def _objective(case: Case) -> Iterator[str]:
    curve = case.curve
    named = (
        ("loss", "loss"),
        ("validation", "validation"),
        ("validation_loss", "validation loss"),
        ("gradient_norm", "gradient norm"),
        ("shuffled_gap", "shuffled gap"),
        ("effective_rank", "effective rank"),
        ("rms_ratio", "rms ratio"),
    )
    for key, name in named:
        points = curve.points(key)
        if points:
            yield f"{name}: {_condensed(points)} ({case.run.log_place(points[-1].index)})"
    rows = case.run.rows_of("train", case.worst.task if case.worst else None)
    tokens = rows.get("target_tokens")
    if tokens:
        most = rows.get("max_new_tokens")
        yield f"targets: {tokens['p50']:g} tokens in the median, {tokens['max']} at most; max_new_tokens {most}"
    if rows.get("contexts_cut"):
        yield f"{rows['contexts_cut']} of {rows['rows']} train contexts were cut for the sender"
    if rows.get("metrics"):
        yield f"metric: {rows['metrics'][0]}"


def _condensed(points: list[Point]) -> str:
    """First, middle and last value with their steps."""
    chosen = {0: points[0], len(points) // 2: points[len(points) // 2], len(points) - 1: points[-1]}
    return ", ".join(f"{point.value:.4g} (step {point.step})" for _, point in sorted(chosen.items()))


def _information(case: Case) -> Iterator[str]:
    rows = case.run.rows_of("train", case.worst.task if case.worst else None)
    bits = rows.get("bits")
    if bits:
        yield f"a row holds {bits:.1f} bits"
    if case.worst is None or not case.worst.records:
        return
    count = len(case.worst.records)
    tokens = sum(float(record.get("message_tokens") or 0) for record in case.worst.records) / count
    size = sum(float(record.get("message_bytes") or 0) for record in case.worst.records) / count
    if tokens:
        yield f"a message has {tokens:.1f} soft tokens, {size:,.0f} bytes"
    measured = label_bits(case.worst)
    if measured is not None:
        yield f"a label needs {measured[0]:.2f} bits; {measured[1]:.2f} bits of it were measured in the answers"


def _short(text: object) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= 60 else line[:58] + " …"
