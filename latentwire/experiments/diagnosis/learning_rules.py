"""Hypotheses about learning: what reached the bridge, what the message carries, how long it was taught.

Standard library only, Python 3.9.
"""

from __future__ import annotations

from collections.abc import Iterator

from latentwire.experiments.diagnosis.curves import ZERO_GRADIENT
from latentwire.experiments.diagnosis.hypotheses import Case, Evidence, Hypothesis, register
from latentwire.experiments.diagnosis.output_rules import show_row

#: nats; a gap between the loss with the right and with another row's message below this is no gap
NO_GAP = 0.02
#: share of the sender's words in the receiver's own prompt from which on both see the same
SAME_VIEW = 0.9


@register
class DeadBridge(Hypothesis):
    """No gradient arrives."""

    name = "dead_bridge"
    title = "The bridge is dead: no gradient reaches it"
    mechanism = (
        "The weights never moved, because the loss does not depend on them: the message is detached from the graph, multiplied by "
        "zero, masked out, or does not stand in the prompt that the loss is computed on. Learning rate and steps change nothing."
    )

    def evidence(self, case: Case) -> Iterator[Evidence]:
        norms = case.curve.points("gradient_norm")
        if len(norms) < 2:
            return
        if not case.curve.is_gradient_zero:
            alive = max(norms, key=lambda point: point.value)
            if case.is_poor:
                place = case.run.log_place(alive.index)
                yield Evidence(f"the gradient norm is {alive.value:.3g} at step {alive.step}", -6.0, place)
            return
        text = f"the gradient norm is 0 (below {ZERO_GRADIENT:g}) in all {len(norms)} logged steps"
        yield Evidence(text, 8.0, case.run.log_place(norms[0].index))
        validations = case.curve.points("validation_loss")
        if len(validations) >= 2 and max(p.value for p in validations) - min(p.value for p in validations) < 1e-4:
            value, place = validations[0].value, case.run.log_place(validations[-1].index)
            yield Evidence(f"the validation loss stays at {value:.4f} from step {validations[0].step} on", 2.0, place)
        for peer in case.peers:
            if peer.same_bridge:
                yield Evidence(
                    f"{peer.name}, with the same bridge, learned: its code is not at fault in general", -0.5, peer.folder
                )
                break

    def fix(self, case: Case) -> str:
        return "find where the message leaves the graph: `detach`, `no_grad`, a zero gain or mask between bridge and receiver"

    def command(self, case: Case) -> str:
        return case.train_again(training__steps=20, training__log_every=1)


@register
class SameView(Hypothesis):
    """The receiver sees what the sender sees, so nothing is communicated."""

    name = "same_view"
    title = "Sender and receiver see the same: the message is not needed"
    mechanism = (
        "The receiver's own prompt holds the context, so it can answer without the message, and the bridge has no reason to learn "
        "one. A good score then says nothing about communication: another row's message gives the same score."
    )

    def evidence(self, case: Case) -> Iterator[Evidence]:
        task = case.worst.task if case.worst else None
        shown = case.run.rows_of("train", task).get("sender_words_shown")
        shown_all = isinstance(shown, (int, float)) and shown >= SAME_VIEW
        # where the rows say that the context is not shown, a message that is not needed has another reason
        shown_little = isinstance(shown, (int, float)) and shown < 0.5
        if shown_all:
            text = f"{shown:.0%} of the sender's words stand in the receiver's own prompt"
            yield Evidence(text, 4.0, case.run.rows_place("sender_words_shown"))
        shuffled = case.control("shuffled")
        if case.worst is not None and shuffled is not None:
            ours, theirs = case.worst.value, shuffled.value
            place = shuffled.answered.place(0)
            if shown_all and abs(ours - theirs) <= 0.05:
                yield Evidence(f"with another row's message the score is {theirs:.1%}, with its own {ours:.1%}", 2.0, place)
            elif not shown_little and theirs > shuffled.chance + 0.1 and shuffled.low > shuffled.chance and ours - theirs <= 0.05:
                text = f"with another row's message the score is still {theirs:.1%} (own {ours:.1%}, chance {shuffled.chance:.1%})"
                yield Evidence(text, 3.0, place)
            elif ours - theirs > 0.1 and shown_all:
                yield Evidence(f"with another row's message the score falls from {ours:.1%} to {theirs:.1%}", -5.0, place)
        gap = case.curve.late("shuffled_gap")
        if shown_all and gap is not None and abs(gap) < NO_GAP:
            yield Evidence(f"another row's message costs {gap:.3f} nats at the end of training", 1.0, case.run.log_path)

    def fix(self, case: Case) -> str:
        return "take the context out of the task's receiver_prompt; it belongs to receiver_prompt_aware"

    def command(self, case: Case) -> str:
        return show_row(case)


@register
class MessageIgnored(Hypothesis):
    """Gradients flow, and the message still carries nothing about its row."""

    name = "message_ignored"
    title = "The message carries nothing about its row"
    mechanism = (
        "All rows get nearly the same message, or the receiver learned to answer without it: the loss is the same with another "
        "row's message. It is where the loss of the task alone leaves a bridge that started without any useful message."
    )

    def evidence(self, case: Case) -> Iterator[Evidence]:
        if not (case.is_poor or case.is_deaf):
            return
        gap = case.curve.late("shuffled_gap")
        if gap is not None:
            line = f"another row's message changes the loss by {gap:.3f} nats at the end of training"
            yield Evidence(line, 2.0 if gap < NO_GAP else -2.0, case.run.log_path)
        rank = case.curve.late("effective_rank")
        if rank is not None and rank < 2:
            yield Evidence(
                f"the effective rank of the messages of a batch is {rank:.1f}: they are all alike", 1.5, case.run.log_path
            )
        ratio = case.curve.late("rms_ratio")
        if ratio is not None and not 0.2 < ratio < 5:
            text = f"soft tokens have {ratio:.2f} times the scale of the receiver's embeddings"
            yield Evidence(text, 1.0, case.run.log_path)
        shuffled = case.control("shuffled")
        if case.worst is not None and shuffled is not None:
            text = f"the score is {case.worst.value:.1%} with its own message and {shuffled.value:.1%} with another row's"
            # below chance the two scores are alike whatever the message carries
            weight = (0.5 if case.is_poor else 2.0) if case.is_deaf else -1.0
            yield Evidence(text, weight, shuffled.answered.place(0))

    def fix(self, case: Case) -> str:
        return "teach the message first (training.first_stage.objective=note or text), add training.terms.diversity, or use Muon"

    def command(self, case: Case) -> str:
        return case.train_again(training__first_stage__objective="text", training__first_stage__share=0.5)


@register
class TooShort(Hypothesis):
    """It was still learning when it ended."""

    name = "too_short"
    title = "Training was too short"
    mechanism = "Loss and validation were still getting better when the steps were over, and few rows had been seen."

    def evidence(self, case: Case) -> Iterator[Evidence]:
        if not case.is_poor or not case.run.summary or case.curve.is_gradient_zero:
            return
        steps, batch = case.setting("training.steps"), case.setting("training.batch_size")
        rows = case.run.summary.get("train_rows")
        if isinstance(steps, int) and isinstance(batch, int) and isinstance(rows, int):
            epochs = steps * batch / rows
            place = case.run.config_place("training.steps")
            if epochs < 1:
                yield Evidence(f"{steps} steps of {batch} rows saw {epochs:.0%} of the {rows:,} train rows", 1.0, place)
            elif steps >= 1000:
                yield Evidence(f"{steps} steps saw all {rows:,} train rows {epochs:.1f} times", -1.0, place)
            if steps < 200:
                yield Evidence(f"{steps} steps are few: bridges of the embedded pair need 200 to 1,000", 1.0, place)
        losses = case.curve.losses
        if len(losses) >= 4:
            middle, last = losses[len(losses) // 2], losses[-1]
            if last.value < 0.95 * middle.value:
                text = f"the loss was still falling: {middle.value:.3f} at step {middle.step}, {last.value:.3f} at step {last.step}"
                yield Evidence(text, 1.0, case.run.log_place(last.index))
            else:
                yield Evidence(f"the loss had stopped falling ({last.value:.3f})", -0.5, case.run.log_place(last.index))
        if case.run.summary.get("best_step") == steps:
            yield Evidence("the last validation was the best one", 0.5, case.run.summary_path)

    def fix(self, case: Case) -> str:
        return "train longer: raise training.steps, and keep training.warmup_steps well below it"

    def command(self, case: Case) -> str:
        return case.train_again(training__steps=4 * int(case.setting("training.steps") or 500))


@register
class Overfitted(Hypothesis):
    """Train rows are known by heart."""

    name = "overfitted"
    title = "It knows the train rows by heart"
    mechanism = (
        "The loss on train rows goes on falling while that on validation rows rises: what is learned are rows, not the task."
    )

    def evidence(self, case: Case) -> Iterator[Evidence]:
        if not case.is_poor:
            return
        validations, losses = case.curve.points("validation_loss"), case.curve.losses
        if len(validations) < 3 or len(losses) < 3:
            return
        least, last = min(validations, key=lambda point: point.value), validations[-1]
        if last.value > 1.2 * least.value and losses[-1].value < 0.5 * last.value:
            text = (
                f"validation loss rose from {least.value:.3f} (step {least.step}) to {last.value:.3f} (step {last.step}), "
                f"train loss is {losses[-1].value:.3f}"
            )
            yield Evidence(text, 3.0, case.run.log_place(last.index))

    def fix(self, case: Case) -> str:
        return "use more train rows (data.train_rows), a smaller bridge, or more training.weight_decay"

    def command(self, case: Case) -> str:
        return case.train_again(training__weight_decay=0.1)


@register
class UnlikeItsPeers(Hypothesis):
    """A run that worked differs in few settings."""

    name = "unlike_its_peers"
    title = "It differs in few settings from a run that worked"
    mechanism = "The same task was learned with other settings; among those that differ is the one that matters."

    def evidence(self, case: Case) -> Iterator[Evidence]:
        if not case.is_poor:
            return
        for peer in case.peers:
            if not (peer.same_task and peer.works):
                continue
            listed = ", ".join(f"{key} {ours} here, {theirs} there" for key, (ours, theirs) in list(peer.differences.items())[:5])
            count = len(peer.differences)
            if count == 0:
                text = f"{peer.name} reached {peer.score:.1%} with the same settings but for the seed"
                yield Evidence(text, 1.5, peer.folder)
            else:
                text = f"{peer.name} reached {peer.score:.1%}; {count} settings differ: {listed}"
                yield Evidence(text, 2.0 if count <= 3 else 1.0, peer.folder)
            return

    def fix(self, case: Case) -> str:
        return "take over the settings of the run that worked, one at a time"

    def command(self, case: Case) -> str:
        for peer in case.peers:
            if peer.same_task and peer.works and peer.differences:
                key, (_, theirs) = next(iter(peer.differences.items()))
                return case.train_again(**{key.replace(".", "__"): theirs})
        return case.train_again(seed=int(case.setting("seed") or 0) + 1)


@register
class LearnedNothing(Hypothesis):
    """The last resort: nothing better is known."""

    name = "no_better_than_chance"
    title = "The result is no better than chance, and the run's files do not say why"
    mechanism = "The run ended well and its answers say nothing about the rows."

    def evidence(self, case: Case) -> Iterator[Evidence]:
        if not case.is_poor:
            return
        if case.worst is not None:
            outputs = case.worst
            interval = f"{outputs.low:.1%} to {outputs.high:.1%}"
            text = f"{outputs.task}: {outputs.metric} is {outputs.value:.1%} (95 %: {interval}), chance {outputs.chance:.1%}"
            yield Evidence(text, 2.0, case.run.results_path if case.run.results else outputs.answered.place(0))
        elif case.validation is not None:
            yield Evidence(f"validation is {case.validation:.1%}, the commonest label", 2.0, case.run.summary_path)

    def fix(self, case: Case) -> str:
        return "compare it with a run that worked (--compare), then look at prompts and targets of a few rows"

    def command(self, case: Case) -> str:
        return show_row(case)
