"""Checks of a task that need rows and tokenizers only: each takes a posed task and returns one finding.

They are the lessons of a published run that scored 0–2 % on word problems because of its targets, its metric and its prompts
rather than its channel: targets cut at 16 tokens, whole solutions taught and only their last number compared, 10 tokens
generated, options cut off behind the text.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Sequence
from math import log2

from latentwire.analysis.preflight.findings import Check, Status
from latentwire.analysis.preflight.posed_rows import Fitting, Posed
from latentwire.data.task import Example
from latentwire.data.task_config import holes
from latentwire.evaluation.metrics import METRICS
from latentwire.evaluation.predictions import BY_TEXT
from latentwire.methods.base import Prediction

#: a metric that looks at less of the target than this leaves the loss to something that is never scored
EVALUATED_LEAST, EVALUATED_ENOUGH = 0.1, 0.5
#: contexts cut, and answers lost with them, that a task can bear
CUT_MOST, LOST_MOST = 0.05, 0.01
#: share of the sender's words that the receiver's own prompt may hold
SHOWN_MOST = 0.9
#: rows whose target is taken apart word by word
_TAKEN_APART = 50
#: a target this long rarely has the length of all others by nature
_WORD = re.compile(r"[\w-]+")
_WALL_TOKENS, _WALL_ROWS, _WALL_SHARE = 8, 20, 0.5


def rows_readable(posed: Posed) -> Check:
    """Can every split be read that training and evaluation read?"""
    counts = ", ".join(f"{len(rows.examples):,} {split}" for split, rows in posed.splits.items())
    numbers: dict[str, float | int | str | None] = {f"rows_{split}": len(rows.examples) for split, rows in posed.splits.items()}
    if posed.unreadable:
        split, why = next(iter(posed.unreadable.items()))
        return Check(
            "rows", "fail", f"the {split} split cannot be read: {why}", mend=f"mend or name the split {split!r}", numbers=numbers
        )
    counted = Counter((split, row.id) for split, rows in posed.splits.items() for row in rows.examples)
    doubled = [row_id for (_, row_id), count in counted.items() if count > 1]
    if doubled:
        text = f"{len(doubled)} ids stand on several rows, the first is {doubled[0]!r}"
        return Check("rows", "fail", text, doubled[0], "give every row an id of its own, or remove the field 'id'", numbers)
    return Check("rows", "pass", f"looked at {counts} rows", numbers=numbers)


def output_form(posed: Posed) -> Check:
    """Is the answer one of some options, or open text?"""
    examples = posed.examples
    if posed.task.has_options:
        count = statistics.fmean(len(row.options) for row in examples)
        text = f"constrained: one of {count:g} options, at most {log2(max(count, 1)):.1f} bits"
        return Check("output", "pass", text, numbers={"options": count, "bits_at_most": log2(max(count, 1))})
    dense = _teaches_content(posed)
    text = "open: every token of the answer must come out exactly"
    if dense:
        return Check("output", "pass", f"{text}; the training has a dense stage ({dense})", numbers={"dense_stage": dense})
    mend = "--set training.first_stage.objective=text (note, where the task has notes): answers alone rarely teach exact content"
    return Check("output", "warn", f"{text}, and the config trains on answers alone", mend=mend, numbers={"dense_stage": None})


def _teaches_content(posed: Posed) -> str | None:
    """What in the config teaches the channel more than answers: a stage before the task, a dense term, a pretrained bridge."""
    training, init = posed.config.training, posed.config.bridge.get("init")
    if init:
        return f"bridge.init={init}"
    if training.first_stage.objective != "none":
        return f"first_stage {training.first_stage.objective}"
    return next((f"term {name}" for name in ("text", "note", "align") if getattr(training.terms, name)), None)


def targets_fit(posed: Posed) -> Check:
    """Does every target survive the limit on answers, its end token included?"""
    limit, tokens = posed.task.config.max_new_tokens, posed.target_tokens
    if posed.task.has_options:
        return Check("targets", "pass", "options are scored whole; no limit applies")
    longest = max(tokens, key=lambda place: tokens[place])
    most, longest_id = tokens[longest], longest[1]
    median = statistics.median(tokens.values())
    cut = sum(count > limit for count in tokens.values())
    numbers: dict[str, float | int | str | None] = {
        "max_new_tokens": limit, "longest": most, "median": median, "cut": cut, "rows": len(tokens)
    }  # fmt: skip
    found = f"median {median:g}, longest {most} tokens of {posed.receiver.name}"
    if cut:
        kept = _score_when_cut(posed, limit)
        numbers["gold_score_when_cut"] = kept
        text = f"{cut:,} of {len(tokens):,} targets are longer than max_new_tokens = {limit} ({found})"
        text += f"; generation stops there, and even the gold answers would score {kept:.1%}"
        mend = f"--set variant.max_new_tokens={most + 1}, or raise it in {posed.where}"
        return Check("targets", "fail", text, longest_id, mend, numbers)
    wall = _wall(posed)
    if wall is not None:
        count, share, row_id = wall
        numbers["at_longest"] = share
        text = f"{share:.0%} of the targets have exactly {count} tokens and none has more: the rows look cut to a number of tokens"
        return Check("targets", "warn", text, row_id, "make the rows again with whole targets", numbers)
    if most + 1 > limit:
        text = f"fit exactly, but with no room for the end token: max_new_tokens = {limit}, {found}"
        mend = f"--set variant.max_new_tokens={most + 1}; else nobody sees whether the receiver stops there"
        return Check("targets", "warn", text, longest_id, mend, numbers)
    return Check("targets", "pass", f"all fit max_new_tokens = {limit} with their end token: {found}", numbers=numbers)


def _score_when_cut(posed: Posed, limit: int) -> float:
    """The headline score of gold answers that are cut as generation would cut them."""
    scores = []
    for row in posed.examples:
        ids = posed.receiver.answer_ids(row.receiver_prompt, row.answer, end=False)[:limit]
        scores.append(_score(posed, str(posed.receiver.tokenizer.decode(ids, skip_special_tokens=True)).strip(), row))
    return statistics.fmean(scores)


def _wall(posed: Posed) -> tuple[int, float, str] | None:
    """Many targets of one token count that differ in words: a cut leaves that, nature does not."""
    tokens = posed.target_tokens
    longest = max(tokens.values())
    at_longest = [row for split, rows in posed.splits.items() for row in rows.examples if tokens[split, row.id] == longest]
    words = {len(row.answer.split()) for row in at_longest}
    share = len(at_longest) / len(tokens)
    if len(tokens) < _WALL_ROWS or longest < _WALL_TOKENS or share < _WALL_SHARE or len(words) < 3:
        return None
    return longest, share, at_longest[0].id


def target_is_evaluated(posed: Posed) -> Check:
    """Is what the loss teaches what the headline metric looks at?"""
    name, metric = "target and metric", posed.task.config.metrics[0]
    if posed.task.has_options:
        if metric == BY_TEXT:
            text = f"letters are taught, and the headline {metric} scores the options' texts behind another prompt"
            return Check(name, "fail", text, mend=f"put accuracy first in `metrics` of {posed.where}")
        return Check(name, "pass", f"the options that are taught are those that {metric} scores")
    sample = posed.examples[:_TAKEN_APART]
    shares = [_looked_at(posed, row) for row in sample]
    share = statistics.fmean(shares)
    worst = sample[shares.index(min(shares))].id
    tokens = statistics.median(posed.target_tokens.values())
    solution = posed.task.variant.target == "solution"
    what = "the worked solution" if solution else "the target"
    numbers: dict[str, float | int | str | None] = {"share_looked_at": share, "median_tokens": tokens, "metric": metric}
    if share >= EVALUATED_ENOUGH:
        return Check(name, "pass", f"{metric} looks at {share:.0%} of {what}", numbers=numbers)
    text = f"{what} is taught (median {tokens:g} tokens) and {metric} looks at {share:.1%} of it: most of the loss is never scored"
    mend = (
        "--set variant.target=answer teaches what is scored"
        if solution
        else f"let `answer` in {posed.where} take out what is not scored (after, remove), or put a metric of the whole target first"
    )
    # a bare answer could be taught instead; a task of its own that ends in the answer may need its worked line
    return Check(name, "fail" if solution or share < EVALUATED_LEAST else "warn", text, worst, mend, numbers)


def _looked_at(posed: Posed, row: Example) -> float:
    """Share of the target's tokens that the headline metric notices when their word is replaced, one word at a time."""
    words = list(re.finditer(r"\S+", row.answer))
    sizes = posed.receiver.count_texts([f" {word[0]}" for word in words])
    noticed = 0
    for word, size in zip(words, sizes, strict=True):
        other = "8128" if "8128" not in word[0] else "496"
        changed = row.answer[: word.start()] + other + row.answer[word.end() :]
        noticed += size if _score(posed, changed, row) < 1 else 0
    return noticed / max(1, sum(sizes))


def metric_accepts_gold(posed: Posed) -> Check:
    """Does the gold answer itself score 100 %, also after a way through the receiver's tokenizer?"""
    name, metric = "gold answers", posed.task.config.metrics[0]
    if posed.task.has_options:
        return _options_differ(posed)
    bare, wrong = [], []
    for row in posed.examples:
        ids = posed.receiver.answer_ids(row.receiver_prompt, row.answer, end=False)
        text = str(posed.receiver.tokenizer.decode(ids, skip_special_tokens=True)).strip()
        bare.append(_score(posed, row.answer, row))
        if bare[-1] < 1 or _score(posed, text, row) < 1:
            wrong.append((row, text))
    score = 1 - len(wrong) / len(bare)
    numbers: dict[str, float | int | str | None] = {"score": score, "bare_score": statistics.fmean(bare), "rows": len(bare)}
    if not wrong:
        return Check(name, "pass", f"all score 1 by {metric}, tokenized and read back too", numbers=numbers)
    row, text = wrong[0]
    if min(bare) < 1:
        found = f"{metric} refuses {len(wrong):,} of {len(bare):,} gold answers themselves, for example {row.answer[:60]!r}"
        return Check(name, "fail", found, row.id, f"mend `answer` or `metrics` in {posed.where}", numbers)
    found = (
        f"{len(wrong):,} of {len(bare):,} gold answers come out of the receiver's tokenizer as another text, "
        f"for example {row.answer[:40]!r} as {text[:40]!r}"
    )
    mend = "use a receiver whose tokenizer has these characters, or take them out of the answers with answer.remove"
    return Check(name, "fail" if score < 0.99 else "warn", found, row.id, mend, numbers)


def _options_differ(posed: Posed) -> Check:
    """The gold option can be told from every other one."""
    name = "gold answers"
    for row in posed.examples:
        for kind, options in (("options", row.options), ("option texts", row.option_texts)):
            ids = [tuple(posed.receiver.answer_ids(row.receiver_prompt, option, end=False)) for option in options]
            if len(set(ids)) < len(ids):
                twice = options[next(index for index, own in enumerate(ids) if own in ids[:index])]
                status: Status = "fail" if kind == "options" or not row.options else "warn"
                text = f"two {kind} are one for the receiver: {twice!r}, so the gold one cannot be told from it"
                return Check(name, status, text, row.id, "mend the row's options, or remove the row")
    return Check(name, "pass", "every gold option can be told from the others")


def prompts_whole(posed: Posed) -> Check:
    """Do options, answers and contexts reach somebody who reads them, after the budgets?"""
    name = "prompts"
    fittings = list(posed.fittings.values())
    total = sum(len(fitting.whole) + len(fitting.refused) for fitting in fittings)
    refused = [row for fitting in fittings for row in fitting.refused]
    lost = [row_id for fitting in fittings for row_id in _options_lost(fitting)]
    unseen = [row.id for fitting in fittings for row in fitting.fitted if not _options_seen(posed, row)]
    gone = [row_id for fitting in fittings for row_id in _answers_lost(posed, fitting)]
    cut = {cut.row_id for fitting in fittings for cut in fitting.cuts if cut.end == "sender"}
    numbers: dict[str, float | int | str | None] = {
        "rows": total, "refused": len(refused), "options_lost": len(lost), "options_unseen": len(unseen),
        "answers_lost": len(gone), "contexts_cut": len(cut),
    }  # fmt: skip
    limit = f"raise limits.sender_tokens in {posed.where} as far as the sender reads"
    if refused:
        text = f"{len(refused):,} of {total:,} rows are refused: {refused[0][1].partition('; ')[0]}"
        return Check(name, "fail", text, refused[0][0], refused[0][1].partition("; ")[2] or limit, numbers)
    if lost:
        text = f"{len(lost):,} of {total:,} rows lose options when their text is cut for the sender"
        mend = f"{limit}, or write the options behind the field that limits.cut names, in sender_prompt"
        return Check(name, "fail", text, lost[0], mend, numbers)
    if unseen:
        text = f"in {len(unseen):,} of {total:,} rows letters are scored whose texts neither model reads"
        return Check(
            name, "fail", text, unseen[0], f"put {{options}} into sender_prompt or receiver_prompt of {posed.where}", numbers
        )
    if gone:
        text = f"{len(gone):,} of {total:,} rows lose the answer when their text is cut for the sender"
        return Check(name, "fail" if len(gone) > LOST_MOST * total else "warn", text, gone[0], limit, numbers)
    if cut:
        text = f"{len(cut):,} of {total:,} contexts are cut for the sender; no option and no answer is lost"
        first = next(row_id for row_id in sorted(cut))
        return Check(name, "warn" if len(cut) > CUT_MOST * total else "pass", text, first, limit, numbers)
    return Check(name, "pass", "nothing is cut; what is asked about reaches the sender whole", numbers=numbers)


def _options_lost(fitting: Fitting) -> list[str]:
    """Rows in which an option stood in what the sender reads, and no longer does after the cut."""
    pairs = zip(fitting.whole, fitting.fitted, strict=True)
    return [
        before.id
        for before, after in pairs
        if before.sender_prompt != after.sender_prompt
        and any(text in before.sender_prompt and text not in after.sender_prompt for text in before.option_texts)
    ]


def _options_seen(posed: Posed, row: Example) -> bool:
    """Whether letters stand for texts that sender or receiver can read; a label that is scored itself needs no reader."""
    if posed.task.config.kind != "multiple_choice":
        return True
    read = f"{row.sender_prompt}\n{row.receiver_prompt.text}"
    return all(text in read for text in row.option_texts)


def _answers_lost(posed: Posed, fitting: Fitting) -> list[str]:
    """Rows of a span task whose gold answers all stood in what the sender reads, before the cut alone."""
    if posed.task.config.kind != "span":
        return []
    return [
        before.id
        for before, after in zip(fitting.whole, fitting.fitted, strict=True)
        if before.sender_prompt != after.sender_prompt
        and any(answer in before.sender_prompt for answer in before.answers)
        and not any(answer in after.sender_prompt for answer in before.answers)
    ]


def answer_hidden(posed: Posed) -> Check:
    """Does the receiver's own prompt leave something to communicate?"""
    name, examples = "hidden", posed.examples
    sender, receiver = (
        holes(template) - {"message"} for template in (posed.task.config.sender_prompt, posed.task.config.receiver_prompt)
    )
    shown = statistics.median(_words_shown(row) for row in examples)
    given = [row.id for row in examples if _gives_answer(row)]
    numbers: dict[str, float | int | str | None] = {"words_shown": shown, "answers_given": len(given), "rows": len(examples)}
    mend = f"leave the context out of receiver_prompt in {posed.where}; receiver_prompt_aware is where it belongs"
    if sender and sender <= receiver:
        fields = ", ".join(sorted(sender))
        text = f"the receiver's own prompt holds all the sender reads ({fields}): nothing is left to communicate"
        return Check(name, "fail", text, examples[0].id, mend, numbers)
    if shown > SHOWN_MOST:
        text = f"the receiver's own prompt holds {shown:.0%} of the sender's words (median)"
        return Check(name, "fail", text, max(examples, key=_words_shown).id, mend, numbers)
    if len(given) > CUT_MOST * len(examples):
        status: Status = "fail" if len(given) > len(examples) / 2 else "warn"
        text = f"the gold answer stands in the receiver's own prompt in {len(given):,} of {len(examples):,} rows"
        return Check(name, status, text, given[0], mend, numbers)
    text = f"the receiver's own prompt holds {shown:.0%} of the sender's words (median), the answer in {len(given):,} rows"
    return Check(name, "pass", text, numbers=numbers)


def _words_shown(row: Example) -> float:
    """Share of the sender's different words that stand in the receiver's own prompt."""
    sender, receiver = (set(re.findall(r"\w+", text.lower())) for text in (row.sender_prompt, row.receiver_prompt.text))
    return len(sender & receiver) / len(sender) if sender else 0.0


def _gives_answer(row: Example) -> bool:
    """Whether the gold answer stands in the receiver's prompt, and not merely among all options."""

    def spaced(text: str) -> str:
        return f" {' '.join(_WORD.findall(text.lower()))} "

    prompt = spaced(row.receiver_prompt.text)

    def stands(answer: str) -> bool:
        return bool(spaced(answer).strip()) and spaced(answer) in prompt

    gold = row.option_texts[row.label] if row.option_texts and row.label is not None else row.answer
    others = [option for index, option in enumerate(row.option_texts) if index != row.label]
    return stands(gold) and not (others and any(stands(option) for option in others))


def _score(posed: Posed, text: str, row: Example) -> float:
    """The headline score of a free answer."""
    return METRICS[posed.task.config.metrics[0]](Prediction(text, None, None, 0, 0), row) or 0.0


def check_rows(posed: Posed) -> Sequence[Check]:
    """All checks of this module, in the order of the page."""
    return [
        check(posed)
        for check in (
            rows_readable,
            output_form,
            targets_fit,
            target_is_evaluated,
            metric_accepts_gold,
            prompts_whole,
            answer_hidden,
        )
    ]
