"""The bridge: sender states become soft tokens, the receiver answers from them without having seen the context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from latentwire.bridges.base import Bridge
from latentwire.config import ARTEFACT_FOLDER
from latentwire.data.task import Example
from latentwire.errors import UsageError
from latentwire.messages.channel import Channel
from latentwire.messages.settings import MessageSettings
from latentwire.methods.ahead import MessagesAhead
from latentwire.methods.base import AS_THE_TASK_SAYS, SOFT_CONTROLS, Control, FitData, Method, Parts, Prediction
from latentwire.models.batching import alike, parts
from latentwire.models.sender import Sender
from latentwire.models.soft_tokens import SoftTokens
from latentwire.training.packing_run import learn_packing
from latentwire.training.run import train_run
from latentwire.training.trainer import Hooks


class BridgeMethod(Method):
    """A trained bridge: the receiver sees the question and soft tokens made of the sender's hidden states."""

    name = "bridge"
    sender_sees = AS_THE_TASK_SAYS
    controls: tuple[str, ...] = SOFT_CONTROLS
    fits = True
    seeded = True

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.bridge, self.sender = parts.bridge, parts.sender
        self.controls = controls_of(self.message)
        self._ahead: MessagesAhead | None = None

    @property
    def message(self) -> MessageSettings:
        """How its messages cross."""
        return self.parts.message or (self.bridge.message if self.bridge else MessageSettings())

    @property
    def label(self) -> str:
        return f"{self.name}:{self.bridge.config.name if self.bridge else self.parts.bridge_name}{self.message.suffix}"

    def fit(self, data: FitData) -> dict[str, Any]:
        """Trains the bridge of the config on the task; a finished or killed training in the folder is taken up again."""
        # one question about each message: the other methods, which it is held against, see no more rows
        training = data.config.training.model_copy(update={"questions_per_message": 1})
        changed = {"task": (data.task.name,), "seed": data.seed, "output_dir": str(data.folder), "training": training}
        config = data.config.model_copy(update=changed)
        hooks = Hooks(should_stop=data.should_stop)
        if config.needs_own_packing:
            learn_packing(config, device=data.device, hooks=hooks, say=data.say)
        pair = (self.sender, self.parts.receiver)
        summary = train_run(config, resume=True, device=data.device, say=data.say, pair=pair, hooks=hooks)
        self.bridge = Bridge.from_pretrained(data.folder / ARTEFACT_FOLDER).to(self.parts.receiver.device)
        kept = ("seconds", "steps", "trainable_params", "best_step", "validation", "train_rows", "validation_rows")
        return {key: summary[key] for key in kept}

    def expect(self, examples: Sequence[Example], *, control: Control | None = None) -> None:
        """Where sender and receiver have a device each, the sender goes ahead."""
        if self.bridge is not None and self.sender.device != self.parts.receiver.device:
            self._ahead = self._ahead or MessagesAhead(self._messages)
            self._ahead.begin(sent_texts(examples, control))

    def _messages(self, texts: Sequence[str]) -> SoftTokens:
        assert self.bridge is not None
        return soft_tokens_of(self.sender, self.bridge, texts)

    @torch.no_grad()
    def predict(self, examples: Sequence[Example], *, max_new_tokens: int, control: Control | None = None) -> list[Prediction]:
        if self.bridge is None:
            raise UsageError(f"method {self.name!r} needs a trained bridge; train one with `latentwire train` or run `make demo`")
        channel = Channel(self.message, self.parts.receiver)
        make = self._ahead.take if self._ahead is not None else self._messages
        return send_and_answer(make, channel, self, examples, max_new_tokens=max_new_tokens, control=control)


def controls_of(message: MessageSettings) -> tuple[str, ...]:
    """The controls that make sense for such messages."""
    return SOFT_CONTROLS if message.verbatim == "off" else (*SOFT_CONTROLS, "verbatim_only")


def soft_tokens_of(sender: Sender, bridge: Bridge, texts: Sequence[str]) -> SoftTokens:
    """The soft tokens of the texts, those alike in length read together."""
    encoded, skip = sender.prompter.context_ids(texts)
    lengths = [len(ids) for ids in encoded]
    groups = [[group[row] for row in part] for group in alike(lengths) for part in parts([lengths[row] for row in group])]
    if len(groups) == 1:
        return bridge(sender.read_ids(encoded, skip))  # type: ignore[no-any-return]
    made = [bridge(sender.read_ids([encoded[row] for row in group], skip)) for group in groups]
    return SoftTokens.gathered(made, groups)


def sent_texts(examples: Sequence[Example], control: Control | None) -> list[str]:
    """What the sender reads of each example."""
    if control is not None and control.replace_texts is not None:
        return control.replace_texts(examples)
    return [example.sender_prompt for example in examples]


def send_and_answer(
    messages: Callable[[Sequence[str]], SoftTokens],
    channel: Channel,
    method: Method,
    examples: Sequence[Example],
    *,
    max_new_tokens: int,
    control: Control | None,
) -> list[Prediction]:
    """The whole path from contexts to answers, with the control applied where the message is made by ``messages``.

    Another row's message brings that row's verbatim text; zeros and noise bring none.
    """
    receiver = method.parts.receiver
    texts = sent_texts(examples, control)
    soft = channel.written(messages(texts), texts)
    if control is not None and control.replace_vectors is not None:
        soft = control.replace_vectors(soft, [example.id for example in examples])
    sent = channel.deliver(soft)
    prompts = [example.receiver_prompt for example in examples]
    found = method.answers(examples, prompts, lambda asked: receiver.prefix(asked, sent.soft), max_new_tokens=max_new_tokens)
    sizes = zip(sent.message_tokens, sent.message_bytes, strict=True)
    return [answer.sent(*size) for answer, size in zip(found, sizes, strict=True)]
