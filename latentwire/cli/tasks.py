"""``latentwire tasks``: which tasks there are, and what both models get of one row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from latentwire.cli.console import JSON, emit_json

if TYPE_CHECKING:
    from latentwire.data.readers import TaskRows
    from latentwire.data.task import Example, Task
    from latentwire.models.chat import Prompter


class _Listing(TyperGroup):
    """``latentwire tasks`` alone, or with an option, is ``latentwire tasks list``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        listing = not args or (args[0].startswith("-") and args[0] != "--help")
        return list(super().parse_args(ctx, ["list", *args] if listing else args))


app = typer.Typer(help="List the tasks (also without a command), or show the exact prompts of a row.", cls=_Listing)
NAME = typer.Argument(help="Task name, or the path of your own YAML file.", show_default=False)
ROW = typer.Option("0", "--row", help="Which row: its number, counted from 0, or its id.")
SPLIT = typer.Option("test", "--split", help="train, validation or test.")
DATA_DIR = typer.Option(None, "--data_dir", help="Folder with <set>/<split>.jsonl[.gz]; default: the Hub.")
SENDER = typer.Option("nano-llama", "--sender", help="Whose tokenizer and template the sender's prompt gets.")
RECEIVER = typer.Option("nano-mistral", "--receiver", help="Whose tokenizer and template the receiver's prompts get.")
SENDER_SEES = typer.Option("context", "--sender_sees", help="context, or all: also the question.")
TARGET = typer.Option("answer", "--target", help="answer, or solution: the worked text that ends in it.")
PROMPT_STYLE = typer.Option("auto", "--prompt_style", help="plain, chat, or auto: chat where the tokenizer has a template.")


@app.command("list")
def list_tasks(as_json: bool = JSON) -> None:
    """One line per shipped task."""
    from latentwire.data.task import load_task, task_names

    configs = [load_task(name).config for name in task_names()]
    if as_json:
        keys = ("name", "summary", "kind", "metrics", "sees", "source", "limits", "licence")
        emit_json([{key: value for key, value in config.model_dump().items() if key in keys} for config in configs])
        return
    name_width, kind_width = (max(len(getattr(config, key)) for config in configs) for key in ("name", "kind"))
    for config in configs:
        print(f"{config.name:<{name_width}}  {config.kind:<{kind_width}}  {config.summary} [{', '.join(config.metrics)}]")


@app.command()
def show(
    name: str = NAME,
    row: str = ROW,
    split: str = SPLIT,
    data_dir: str | None = DATA_DIR,
    sender: str = SENDER,
    receiver: str = RECEIVER,
    sender_sees: str = SENDER_SEES,
    target: str = TARGET,
    prompt_style: str = PROMPT_STYLE,
    as_json: bool = JSON,
) -> None:
    """The exact prompts both models get of one row, with options, answer, token counts and what was cut."""
    from latentwire.config import PromptSettings
    from latentwire.data.budget import fit_rows
    from latentwire.data.readers import read_one
    from latentwire.data.task import load_task
    from latentwire.models.chat import Prompter
    from latentwire.models.source import resolve
    from latentwire.schema import validated

    given = {"variant": {"sender_sees": sender_sees, "target": target}, "prompt_style": prompt_style}
    settings = validated(PromptSettings, given, where="flags")
    task = load_task(name, settings.variant)
    one = read_one(task, row, split=split, data_dir=data_dir)
    ends = [Prompter(resolve(model), settings.prompt_style) for model in (sender, receiver)]
    content = _shown(task, fit_rows(task, one, sender=ends[0], receiver=ends[1]), *ends)
    emit_json(content) if as_json else _print_row(content)


def _shown(task: Task, rows: TaskRows, sender: Prompter, receiver: Prompter) -> dict[str, Any]:
    """All that is known of the one row in ``rows``."""
    from latentwire.prompts import Prompt

    example: Example = rows.examples[0]
    prompts = {
        "receiver": example.receiver_prompt,
        "receiver, context-aware": example.receiver_prompt_aware,
        "receiver, shown the options": example.receiver_prompt_options,
    }
    given = [_prompt("sender", sender, Prompt(example.sender_prompt, ""))]
    given += [_prompt(reader, receiver, prompt) for reader, prompt in prompts.items() if prompt is not None]
    targets = example.options or example.answers
    return {
        "task": task.name,
        "split": rows.split,
        "id": example.id,
        "sender_sees": example.sender_sees,
        "receiver_sees": example.receiver_sees,
        "prompts": given,
        "options": dict(zip(example.options, example.option_texts, strict=True)),
        "answer": example.answer,
        "answers": list(example.answers),
        "target_tokens": {text: receiver.count_answer(example.receiver_prompt, text) for text in targets},
        "max_new_tokens": None if example.options else task.config.max_new_tokens,
        "cuts": [{"end": cut.end, "tokens": cut.tokens, "kept": cut.kept} for cut in rows.cuts],
        "note": rows.note,
    }


def _prompt(reader: str, prompter: Prompter, prompt: Any) -> dict[str, Any]:
    """A prompt as the model's tokenizer gives it back, special tokens included; the message stands between the two parts."""
    before, after = (prompter.tokenizer.decode(ids) for ids in prompter.prefix_ids(prompt))
    tokens = prompter.count([prompt])[0]
    return {"for": reader, "model": prompter.name, "style": prompter.style, "tokens": tokens, "before": before, "after": after}


def _print_row(content: dict[str, Any]) -> None:
    print(f"{content['task']}, {content['split']}, row {content['id']}")
    print(f"the sender sees {content['sender_sees']}, the receiver {content['receiver_sees']}")
    for prompt in content["prompts"]:
        print(f"\n--- {prompt['for']}: {prompt['model']}, {prompt['style'].partition(':')[0]}, {prompt['tokens']} tokens")
        print(prompt["before"] + ("" if prompt["for"] == "sender" else "⟨message⟩") + prompt["after"])
    print()
    for letter, text in content["options"].items():
        tokens = content["target_tokens"][letter]
        shown = letter if letter == text else f"{letter}. {text}"
        print(f"{'→' if letter == content['answer'] else ' '} {shown} ({tokens} token{'s' if tokens != 1 else ''})")
    if not content["options"]:
        for answer in content["answers"]:
            print(f"→ {answer} ({content['target_tokens'][answer]} of at most {content['max_new_tokens']} tokens)")
    cuts = [f"{cut['kept']} of the context's {cut['tokens']} tokens left for the {cut['end']}" for cut in content["cuts"]]
    print(f"cut: {'; '.join(cuts) or 'nothing'}")
    if content["note"]:
        print(f"split: {content['note']}")
