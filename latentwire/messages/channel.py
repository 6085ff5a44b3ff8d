"""The channel of a bridge: what its messages carry beside the soft tokens, how they are packed, and what they weigh.

A message is packed soft tokens and, behind them in the hole of the receiver's prompt, verbatim text as ordinary tokens of the
receiver. Its size is the length of the packed bytes plus that of the text in UTF-8.

Shapes: B rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from latentwire.messages.precision import WireFormat, bytes_per_token, pack, straight_through, unpack, wire_format
from latentwire.messages.settings import MessageSettings
from latentwire.messages.spans import find_spans, joined
from latentwire.messages.surprise import within_budget, word_surprises
from latentwire.models.receiver import Receiver
from latentwire.models.soft_tokens import SoftTokens


@dataclass(frozen=True)
class Delivery:
    """A batch of messages on their way: ``packed`` and the texts of ``soft.verbatim`` cross, ``soft`` is what the receiver reads.

    ``message_tokens`` and ``message_bytes`` are those of each row, soft tokens and verbatim text together.
    """

    soft: SoftTokens
    packed: tuple[bytes, ...]
    form: WireFormat
    message_tokens: tuple[int, ...]

    @property
    def verbatim(self) -> tuple[str, ...]:
        """The text of each row, empty where there is none."""
        return self.soft.verbatim or ("",) * len(self.packed)

    @property
    def message_bytes(self) -> tuple[int, ...]:
        return tuple(len(part) + len(text.encode()) for part, text in zip(self.packed, self.verbatim, strict=True))


class Channel:
    """From the soft tokens of a bridge to what ``receiver`` reads."""

    def __init__(self, settings: MessageSettings, receiver: Receiver) -> None:
        self.settings, self.receiver = settings, receiver
        self.form = wire_format(settings.precision, receiver.dtype)
        #: verbatim texts of what a training has read: the receiver's surprise costs a pass
        self._known: dict[str, str] = {}

    def verbatim(self, texts: Sequence[str]) -> tuple[str, ...]:
        """What rides along of each of the sender's texts; nothing at all where verbatim text is off."""
        settings = self.settings
        if settings.verbatim == "off":
            return ()
        if settings.verbatim == "rules":
            return tuple(joined(find_spans(text)) for text in texts)
        surprises = word_surprises(self.receiver, texts)
        return tuple(
            joined(within_budget(text, words, settings.verbatim_bytes)) for text, words in zip(texts, surprises, strict=True)
        )

    def taught(self, soft: SoftTokens, texts: Sequence[str]) -> SoftTokens:
        """The messages of a training step: with verbatim text, rounded as they will be when sent; gradients pass the rounding."""
        if self.settings.precision != "auto":
            soft = straight_through(soft, self.form)
        return replace(soft, verbatim=self._kept(texts))

    def _kept(self, texts: Sequence[str]) -> tuple[str, ...]:
        if self.settings.verbatim == "off":
            return ()
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        self._known.update(zip(new, self.verbatim(new), strict=True))
        return tuple(self._known[text] for text in texts)

    def written(self, soft: SoftTokens, texts: Sequence[str]) -> SoftTokens:
        """The messages with the verbatim text of what the sender read."""
        return replace(soft, verbatim=self.verbatim(texts))

    def deliver(self, soft: SoftTokens) -> Delivery:
        """Packs the messages, unpacks them at the receiver's and weighs them.

        Raises:
            ModelError: the channel's format cannot say a value.
        """
        packed = pack(soft, self.form)
        arrived = unpack(packed, self.form, soft.vectors.shape[-1], device=self.receiver.device, finite=False)
        counts = [len(content) // bytes_per_token(self.form, soft.vectors.shape[-1]) for content in packed]
        if soft.verbatim:
            read = self.receiver.prompter.count_texts(soft.verbatim)
            counts = [own + text for own, text in zip(counts, read, strict=True)]
        return Delivery(replace(soft, vectors=arrived.vectors, mask=arrived.mask), tuple(packed), self.form, tuple(counts))
