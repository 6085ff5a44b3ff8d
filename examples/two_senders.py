"""Two senders, one receiver: a question that needs both contexts.

A word problem is cut behind its first sentence. One sender reads "Nadia has 31 lamps.", the other "Nadia buys 12."; the receiver
gets both messages, one behind the other, and is asked how many lamps there are now. Beside it stands what is right with one message
alone.

    .venv/bin/latentwire train configs/nano.yaml --set task=tinyworld_math1 --set sender.layer=1 --set training.steps=300 \\
        --set training.validate_every=150 --set training.first_stage.share=0.3 --set output_dir=runs/math-pair
    .venv/bin/python examples/two_senders.py runs/math-pair/bridge --rows 200

``--second`` names another bridge to the same receiver for the second sender.
"""

from __future__ import annotations

import argparse

from latentwire import Message, Telepathy
from latentwire.data.readers import read_task
from latentwire.data.task import load_task
from latentwire.evaluation.metrics import final_answer
from latentwire.evaluation.statistics import wilson_interval
from latentwire.methods.base import Prediction

BATCH = 50


def main() -> None:
    """Prints the share of right answers with both messages and with each alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bridge", help="folder of a bridge that was trained on word problems")
    parser.add_argument("--second", help="bridge of the second sender; default: the same")
    parser.add_argument("--rows", type=int, default=1000, help="test rows (default 1000)")
    options = parser.parse_args()
    first = Telepathy.from_pretrained(options.bridge)
    second = Telepathy.from_pretrained(options.second) if options.second else first
    task = load_task("tinyworld_math1")
    rows = read_task(task, "test", max_rows=options.rows).examples
    right = {"both messages": 0, "the first alone": 0, "the second alone": 0}
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        halves = [row.sender_prompt.split(". ", 1) for row in part]
        left, rest = first.send([half[0] + "." for half in halves]), second.send([half[1] for half in halves])
        questions = [str(row.row["question"]) for row in part]
        for name, message in zip(right, (Message.joined([left, rest]), left, rest), strict=True):
            answers = first.ask(message, questions, max_new_tokens=task.config.max_new_tokens)
            predictions = [Prediction(answer, None, None, 0, 0) for answer in answers]
            right[name] += sum(int(final_answer(found, row)) for found, row in zip(predictions, part, strict=True))
    for name, count in right.items():
        low, high = wilson_interval(count, len(rows))
        print(f"{name}: {count / len(rows):.1%} ({100 * low:.1f}–{100 * high:.1f}), n = {len(rows):,}")


if __name__ == "__main__":
    main()
