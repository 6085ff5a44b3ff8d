"""Hypotheses about rows, targets and answers: what was taught, what was asked for, and what the model gave instead.

Standard library only, Python 3.9.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from latentwire.experiments.diagnosis.hypotheses import Case, Evidence, Hypothesis, register
from latentwire.experiments.diagnosis.outputs import (
    Outputs,
    answer_mark,
    best_permutation,
    contained_but_wrong,
    label_bits,
    text_lengths,
)
from latentwire.experiments.diagnosis.peers import tasks_of

#: targets shorter than this may all have the same length without having been cut
SHORT_TARGET_TOKENS = 8
#: bits that one soft token was seen to carry after a short training (random codes, embedded pair)
BITS_PER_SOFT_TOKEN = 10.0

_TARGET_TOO_LONG = re.compile(r"the target has (\d+) tokens .*max_new_tokens is (\d+)")
_OPTIONS_TOO_LONG = re.compile(r"what is never cut \(options, question, cue\) has (\d+) tokens")


def show_row(case: Case, split: str = "train") -> str:
    """The command that prints what both models get of the first row."""
    task = case.worst.task if case.worst else next(iter(tasks_of(case.run.config)), "TASK")
    named = next((name for name in tasks_of(case.run.config) if task in name), task)
    data = case.setting("data.data_dir")
    folder = f" --data_dir {shlex.quote(str(data))}" if data else ""
    return f"latentwire tasks show {shlex.quote(named)} --split {split} --row 0{folder}"


@register
class TargetsCut(Hypothesis):
    """The published failure of GSM8K: 16 tokens of a solution of 100."""

    name = "targets_cut"
    title = "Targets are cut: the answer stands behind the place where they end"
    mechanism = (
        "A worked solution ends in its answer. Where targets are cut to a number of tokens, training teaches the beginning of the "
        "solution and then to stop, and the metric looks for an answer that was never taught and never has room."
    )

    def evidence(self, case: Case) -> Iterator[Evidence]:
        named = _TARGET_TOO_LONG.search(case.verdict.message) if case.verdict else None
        if named and case.verdict:
            text = f"the run refused a target of {named[1]} tokens where max_new_tokens is {named[2]}: “{case.verdict.message}”"
            yield Evidence(text, 12.0, case.log.place_of(case.verdict.message) or case.verdict.where)
        yield from self._taught(case)
        if case.worst is not None:
            yield from self._answered(case, case.worst)

    def _taught(self, case: Case) -> Iterator[Evidence]:
        task = case.worst.task if case.worst else None
        tokens = case.run.rows_of("train", task).get("target_tokens")
        if not isinstance(tokens, dict) or tokens["max"] < SHORT_TARGET_TOKENS:
            return
        place = case.run.rows_place("target_tokens")
        if tokens["at_max"] >= 0.5 and case.is_poor:
            text = f"{tokens['at_max']:.0%} of the train targets have exactly {tokens['max']} tokens, and none has more"
            yield Evidence(f"{text}: a cut leaves such a wall", 3.0, place)
        elif tokens["at_max"] < 0.2:
            yield Evidence(f"train targets have many lengths (median {tokens['p50']:g}, most {tokens['max']} tokens)", -1.0, place)

    def _answered(self, case: Case, outputs: Outputs) -> Iterator[Evidence]:
        lengths, mark = text_lengths(outputs), answer_mark(outputs)
        if lengths is None:
            return
        taught = case.run.rows_of("train", outputs.task).get("target_words_p50")
        if isinstance(taught, (int, float)) and lengths.wanted >= 1.5 * taught and lengths.wanted - taught >= 4:
            text = f"train targets have {taught:g} words in the median, the gold answers of the test split {lengths.wanted:g}"
            yield Evidence(text, 4.0, case.run.rows_place("target_words_p50"))
        elif isinstance(taught, (int, float)):
            text = f"train targets are as long as the gold answers of the test split ({taught:g} and {lengths.wanted:g} words)"
            yield Evidence(text, -3.0, case.run.rows_place("target_words_p50"))
        if lengths.wanted >= 8 and lengths.given <= 0.67 * lengths.wanted:
            text = f"answers have {lengths.given:g} words in the median, {lengths.given_most} at most; gold ones {lengths.wanted:g}"
            yield Evidence(text, 2.0, outputs.answered.place(0))
        elif lengths.wanted >= 8:
            yield Evidence(f"answers are as long as gold answers ({lengths.given:g} and {lengths.wanted:g} words)", -2.0)
        if mark is not None and mark[2] < 0.1:
            text = (
                f"“{mark[0]}”, before which {mark[1]:.0%} of the gold answers do their work, stands in {mark[2]:.0%} of the answers"
            )
            yield Evidence(text, 2.0, outputs.answered.place(0))

    def fix(self, case: Case) -> str:
        named = _TARGET_TOO_LONG.search(case.verdict.message) if case.verdict else None
        if named:
            return f"give targets room: variant.max_new_tokens={named[1]} or more; never cut the target"
        return (
            "teach whole solutions (variant.target=solution, enough variant.max_new_tokens) or bare answers (variant.target=answer)"
        )

    def command(self, case: Case) -> str:
        named = _TARGET_TOO_LONG.search(case.verdict.message) if case.verdict else None
        if named:
            return case.train_again(variant__max_new_tokens=int(named[1]))
        return show_row(case)


@register
class OptionsLost(Hypothesis):
    """Text was cut after the options were appended to it."""

    name = "options_cut"
    title = "Options are cut off: the text was shortened after the options were appended"
    mechanism = (
        "The field that limits.cut may shorten holds the options at its end, so long rows lose them first. The sender then answers "
        "a question whose choices it never saw, which cannot be better than chance."
    )

    def evidence(self, case: Case) -> Iterator[Evidence]:
        named = _OPTIONS_TOO_LONG.search(case.verdict.message) if case.verdict else None
        if named and case.verdict:
            text = f"the run refused a row whose options do not fit: “{case.verdict.message}”"
            yield Evidence(text, 12.0, case.log.place_of(case.verdict.message) or case.verdict.where)
        task = case.worst.task if case.worst else None
        for split in ("train", "validation"):
            rows = case.run.rows_of(split, task)
            lost, count = rows.get("options_lost") or 0, rows.get("rows") or 0
            # words of the options may stand in a text by chance, so a few rows say nothing
            if count and lost >= max(3, 0.2 * count):
                text = f"{lost} of {count} {split} rows held their options before the cut and not after it"
                yield Evidence(text, 3.0 + 2.0 * lost / count, case.run.rows_place("options_lost"))
                if case.is_poor and split == "train":
                    yield Evidence("the result is no better than chance", 1.0)
        notes = [line for line in self._notes(case) if "cut to fit" in line]
        if notes and any(case.run.rows_of(split, task).get("options_lost") for split in ("train", "validation")):
            yield Evidence(f"the evaluation says: {notes[0]}", 0.5, case.run.results_path)

    def _notes(self, case: Case) -> list[str]:
        notes = case.run.told.get("notes") or {}
        return [str(line) for lines in notes.values() for line in lines]

    def fix(self, case: Case) -> str:
        return (
            "put the options outside the field that may be cut ({options} in the prompt), or raise limits.sender_tokens of the task"
        )

    def command(self, case: Case) -> str:
        return show_row(case)


@register
class LabelsSwapped(Hypothesis):
    """The labels of train and test do not mean the same."""

    name = "labels_swapped"
    title = "Labels are swapped between what was taught and what is asked"
    mechanism = (
        "The answers carry the information and call it by other names: the order of the label list, or the numbers of the labels, "
        "differ between the rows that were learned from and the rows that are scored."
    )

    def evidence(self, case: Case) -> Iterator[Evidence]:
        outputs = case.worst
        if outputs is None or len(outputs.labelled) < 20 or len(outputs.wanted) < 2:
            return
        found = best_permutation(outputs)
        if found is None or not found.moved:
            return
        gain, place = found.accuracy - outputs.value, outputs.answered.place(0)
        if gain >= 0.15 and found.accuracy > outputs.chance + 0.1:
            pairs = ", ".join(f"“{given}” as “{meant}”" for given, meant in sorted(found.moved.items())[:6])
            text = f"accuracy is {outputs.value:.1%}; reading {pairs} it is {found.accuracy:.1%}, on rows not used to find this"
            yield Evidence(text, 4.0 + 4.0 * gain, place)
            if outputs.high < outputs.chance:
                yield Evidence(f"accuracy is below chance ({outputs.chance:.1%}), so something is known", 2.0, place)
            if case.validation is not None and case.validation > outputs.value + 0.2:
                text = f"validation, cut from train, is {case.validation:.1%}: the labels of train are learned well"
                yield Evidence(text, 2.0, case.run.summary_path)
        elif found.accuracy > outputs.value:
            yield Evidence(f"the best exchange of labels would give {found.accuracy:.1%}, not much more", -1.0, place)

    def fix(self, case: Case) -> str:
        return "give both splits one meaning of labels: compare `options` and `answer` of the task file with the rows' label names"

    def command(self, case: Case) -> str:
        return f"for split in train test; do {show_row(case, split='$split')}; done"


@register
class MajorityAnswer(Hypothesis):
    """What a model learns that gets nothing from the message: the commonest answer."""

    name = "majority_answer"
    title = "It learned the commonest answer, not the context"
    mechanism = (
        "Without information about the row the loss is lowest when every row gets the commonest answer. It is a symptom: the "
        "message carried nothing, or too little, when training ended."
    )

    def evidence(self, case: Case) -> Iterator[Evidence]:
        outputs = case.worst
        if outputs is None or len(outputs.records) < 20 or len(outputs.wanted) < 2:
            return
        text, count = outputs.given.most_common(1)[0]
        share, gold = count / len(outputs.records), outputs.wanted[text] / len(outputs.records)
        if share >= 0.9 and gold < 0.8:
            line = f"“{text[:60]}” is the answer to {share:.0%} of the rows; it is right for {gold:.0%}"
            yield Evidence(line, 2.5, outputs.answered.place(0))
            labels = case.run.rows_of("train", outputs.task).get("labels") or {}
            if labels and max(labels, key=lambda name: labels[name]) == text:
                most = labels[text] / sum(labels.values())
                yield Evidence(f"it is the commonest train label ({most:.0%})", 0.5, case.run.rows_place("labels"))
        elif case.is_poor:
            yield Evidence(f"the commonest answer, “{text[:60]}”, is given to {share:.0%} of the rows only", -0.5)

    def fix(self, case: Case) -> str:
        return "find out why the message carries nothing (the hypotheses beside this one); then train longer or with a first stage"

    def command(self, case: Case) -> str:
        return case.train_again(
            training__first_stage__objective="text", training__steps=2 * int(case.setting("training.steps") or 1000)
        )


@register
class EmptyAnswers(Hypothesis):
    """Silence."""

    name = "empty_answers"
    title = "The answers are empty"
    mechanism = (
        "The receiver ends its answer at once: the prompt ends where an answer seems complete, or the end token was all that was "
        "taught."
    )

    def evidence(self, case: Case) -> Iterator[Evidence]:
        outputs = case.worst
        if outputs is None or text_lengths(outputs) is None:
            return
        empty = [index for index, record in enumerate(outputs.records) if not str(record["prediction"]).strip()]
        if len(empty) >= 0.5 * len(outputs.records):
            text = f"{len(empty)} of {len(outputs.records)} answers are empty"
            yield Evidence(text, 4.0, outputs.answered.place(empty[0]))

    def fix(self, case: Case) -> str:
        return "look at the exact prompt and target of a row: the cue must ask for an answer, and the target must not be empty"

    def command(self, case: Case) -> str:
        return show_row(case)


@register
class MetricTooStrict(Hypothesis):
    """The metric and the target do not fit each other."""

    name = "metric_mismatch"
    title = "Right answers are scored as wrong: metric and target do not fit"
    mechanism = (
        "The answer stands in the text, with words around it that the metric does not accept. What is measured is the form of the "
        "answer, not what the message carried."
    )

    def evidence(self, case: Case) -> Iterator[Evidence]:
        outputs = case.worst
        if outputs is None:
            return
        wrong = sum(record.get("values", {}).get(outputs.metric, 0) == 0 for record in outputs.records)
        held = contained_but_wrong(outputs)
        if len(held) >= max(5, 0.3 * wrong):
            record = outputs.records[held[0]]
            text = (
                f"{len(held)} of {wrong} answers with {outputs.metric} 0 hold the whole target, for example "
                f"“{str(record['prediction'])[:80]}” for “{str(record['target'])[:40]}”"
            )
            yield Evidence(text, 4.0, outputs.answered.place(held[0]))

    def fix(self, case: Case) -> str:
        return "choose a metric that reads the answer out of the text (number_match, final_answer, f1), or teach the bare answer"

    def command(self, case: Case) -> str:
        return show_row(case, split="test")


@register
class MessageTooSmall(Hypothesis):
    """Fewer bits cross than the answer needs."""

    name = "message_too_small"
    title = "The message is too small for what it has to carry"
    mechanism = (
        "A context of so many bits cannot cross in so few soft tokens after a training of this length; what does not fit is "
        "guessed. Vectors can hold far more, but an encoder learns to use them slowly."
    )

    def evidence(self, case: Case) -> Iterator[Evidence]:
        outputs = case.worst
        if outputs is None or not case.is_poor:
            return
        bits = case.run.rows_of("train", outputs.task).get("bits")
        tokens = sum(float(record.get("message_tokens") or 0) for record in outputs.records) / len(outputs.records)
        if not isinstance(bits, (int, float)) or not tokens:
            return
        room = tokens * BITS_PER_SOFT_TOKEN
        text = f"a row needs {bits:.1f} bits; {tokens:.1f} soft tokens carried about {room:.0f} bits in short trainings"
        yield Evidence(text, 2.0 if bits > room else -2.0, case.run.rows_place("bits"))
        measured = label_bits(outputs)
        if measured is not None and bits > room:
            yield Evidence(f"of {measured[0]:.2f} bits of the label, {measured[1]:.2f} were measured to arrive", 0.5)

    def fix(self, case: Case) -> str:
        return "send more soft tokens (bridge.soft_tokens, or fewer bridge.tokens_per_soft_token), or train longer"

    def command(self, case: Case) -> str:
        tokens = case.setting("bridge.soft_tokens")
        if isinstance(tokens, int):
            return case.train_again(bridge__soft_tokens=4 * tokens)
        return case.train_again(bridge__tokens_per_soft_token=1)
