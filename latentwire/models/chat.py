"""How a model reads prompts: as plain text, or inside the user turn of its tokenizer's chat template.

In chat style the whole prompt, its soft tokens too, stands in the user turn; the generation prompt follows, and the answer
is written as the assistant's. A template is rendered once and split at the places of the user's text and the answer, so
that the begin-of-text token stands where the template puts it and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from latentwire.errors import ModelError, UsageError
from latentwire.files import digest
from latentwire.models.source import ModelSource
from latentwire.models.tokens import continuation_ids, encode_contexts, encode_plain, first_tokens, leading_ids, token_counts
from latentwire.prompts import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: ``auto`` is chat where the tokenizer has a template
PromptStyle = Literal["plain", "chat", "auto"]
#: templates that print a date get this one, so that a prompt is the same every day
_DATE = "26 Jul 2024"
#: a text of n ASCII characters has no more than n tokens, and a few more where a tokenizer puts a space before it
SPARE_TOKENS = 8
_USER, _ANSWER = "latentwireusertext", "latentwireanswertext"


@dataclass(frozen=True)
class Turn:
    """What a template puts before the user's text, behind it up to the answer, and behind the answer.

    ``lead`` is white space that belongs to the answer's first token.
    """

    head: str
    tail: str
    lead: str
    close: str


class Prompter:
    """Turns prompts, contexts and answers into token ids for one model.

    Raises:
        UsageError: style ``chat`` and a tokenizer without template. ModelError: a template that cannot be used.
    """

    def __init__(self, source: ModelSource, style: PromptStyle = "auto") -> None:
        self.source, self.tokenizer = source, source.tokenizer
        self.name = source.name
        self.max_tokens: int = source.config.max_position_embeddings
        has_template = bool(getattr(self.tokenizer, "chat_template", None))
        if style == "chat" and not has_template:
            raise UsageError(f"model {source.name!r} has no chat template; use --prompt_style plain, or auto")
        self.turn = _turn(source) if has_template and style != "plain" else None
        self._leading = leading_ids(self.tokenizer)

    @property
    def style(self) -> str:
        """``plain``, or ``chat`` with a hash of what the template adds: two models with equal style read prompts alike."""
        turn = self.turn
        return "plain" if turn is None else f"chat:{digest(turn.head, turn.tail, turn.lead, turn.close)[:8]}"

    @property
    def end_id(self) -> int:
        """The token that closes an answer: what the template writes there, else the tokenizer's end of text."""
        closing = encode_plain(self.tokenizer, self.turn.close)[:1] if self.turn else []
        special = {*self.tokenizer.all_special_ids, *self.tokenizer.added_tokens_decoder}
        end = closing[0] if closing and closing[0] in special else self.tokenizer.eos_token_id
        if end is None:
            raise ModelError(f"the tokenizer of {self.name!r} has no end-of-text token, which ends every answer; set its eos_token")
        return int(end)

    def prefix_ids(self, prompt: Prompt) -> tuple[list[int], list[int]]:
        """Ids before the message and behind it, all that stands around the prompt included."""
        if self.turn is not None:
            return (
                encode_plain(self.tokenizer, self.turn.head + prompt.before),
                encode_plain(self.tokenizer, prompt.after + self.turn.tail),
            )
        before = encode_plain(self.tokenizer, prompt.before) if prompt.before else []
        after = encode_plain(self.tokenizer, prompt.after) if prompt.after else []
        return [*self._leading, *before], after

    def answer_ids(self, prompt: Prompt, answer: str, *, end: bool = True) -> list[int]:
        """Ids of ``answer`` behind the prompt, closed by the end token unless told otherwise."""
        if self.turn is not None:
            ids = continuation_ids(self.tokenizer, prompt.after + self.turn.tail, self.turn.lead + answer)
        else:
            ids = continuation_ids(self.tokenizer, prompt.after or prompt.before, f" {answer}")
        return [*ids, self.end_id] if end else ids

    def context_ids(self, contexts: Sequence[str]) -> tuple[list[list[int]], int]:
        """Ids of each context as a sender reads it, and how many of them stand before every context.

        Raises:
            DataError: a context is empty or longer than the model can read.
        """
        if self.turn is None:
            return encode_contexts(self.tokenizer, contexts, self.max_tokens, self.name)
        head, space = self.turn.head, ""
        if encode_plain(self.tokenizer, f"{head}x")[: len(before := encode_plain(self.tokenizer, head))] != before:
            # many tokenizers melt a space into the word behind it, so it belongs to the text
            head, space = head.rstrip(), head[len(head.rstrip()) :]
        texts = [space + text for text in contexts]
        return encode_contexts(self.tokenizer, texts, self.max_tokens, self.name, head, self.turn.tail)

    # ------------------------------------------------------------------------------------------------------- counting

    def count(self, prompts: Sequence[Prompt]) -> list[int]:
        """Tokens of each prompt without a message, all that stands around it included."""
        different = list(dict.fromkeys(prompts))
        head, tail = ("", "") if self.turn is None else (self.turn.head, self.turn.tail)
        before = self.count_texts([head + prompt.before for prompt in different])
        after = self.count_texts([prompt.after + tail for prompt in different])
        leading = len(self._leading) if self.turn is None else 0
        counts = {prompt: leading + sum(parts) for prompt, *parts in zip(different, before, after, strict=True)}
        return [counts[prompt] for prompt in prompts]

    def count_texts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of bare texts; an empty one has none."""
        different = [text for text in dict.fromkeys(texts) if text]
        counts = dict(zip(different, token_counts(self.tokenizer, different), strict=True))
        return [counts.get(text, 0) for text in texts]

    def longer(self, prompts: Sequence[Prompt], most: int) -> dict[int, int]:
        """Place and tokens of each prompt that has more than ``most``. A prompt too short for that is not even cut into tokens."""
        around = 0 if self.turn is None else len((self.turn.head + self.turn.tail).encode())
        known_short = most - len(self._leading) - around - SPARE_TOKENS
        open_places = [place for place, prompt in enumerate(prompts) if len(prompt.text) > known_short or not prompt.text.isascii()]
        counts = self.count([prompts[place] for place in open_places])
        return {place: count for place, count in zip(open_places, counts, strict=True) if count > most}

    def count_answer(self, prompt: Prompt, answer: str) -> int:
        """Tokens of an answer behind its prompt, its end token left out."""
        return len(self.answer_ids(prompt, answer, end=False))

    def first(self, text: str, tokens: int) -> str:
        """The beginning of a text up to the border behind its first ``tokens`` tokens."""
        return first_tokens(self.tokenizer, text, tokens)


def style_name(style: str) -> PromptStyle:
    """``plain`` or ``chat`` out of a recorded ``Prompter.style``."""
    return "chat" if style.startswith("chat") else "plain"


def _turn(source: ModelSource) -> Turn:
    """The source's chat template, split at the user's text and the answer."""
    user, assistant = {"role": "user", "content": _USER}, {"role": "assistant", "content": _ANSWER}
    asked = _rendered(source, [user], to_be_answered=True)
    head, found, tail = asked.partition(_USER)
    if not found or _USER in tail:
        raise ModelError(f"the chat template of {source.name!r} does not show the user's text once; use --prompt_style plain")
    answered = _rendered(source, [user, assistant], to_be_answered=False)
    close = answered.rpartition(_ANSWER)[2] if _ANSWER in answered else ""
    lead = answered[len(asked) :].partition(_ANSWER)[0] if answered.startswith(asked) and _ANSWER in answered else ""
    return Turn(head, tail + lead, "", close) if lead.strip() else Turn(head, tail, lead, close)


def _rendered(source: ModelSource, messages: list[dict[str, str]], *, to_be_answered: bool) -> str:
    from jinja2 import TemplateError

    tokenizer: PreTrainedTokenizerBase = source.tokenizer
    try:
        # templates that ask for the time get the same day for ever too; a macro of that name hides what they would call
        template = str(tokenizer.get_chat_template())
        clock = f"{{%- macro strftime_now(format) -%}}{_DATE}{{%- endmacro -%}}" if "strftime_now" in template else ""
        return str(
            tokenizer.apply_chat_template(
                messages, chat_template=clock + template, tokenize=False, add_generation_prompt=to_be_answered,
                enable_thinking=False, date_string=_DATE,
            )
        )  # fmt: skip
    except (TemplateError, ValueError, TypeError, KeyError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"the chat template of {source.name!r} cannot be used ({first_line}); use --prompt_style plain") from error
