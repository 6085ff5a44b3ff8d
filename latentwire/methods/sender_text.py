"""The sender reads context and question as text and answers itself: what the receiver could at best be told."""

from __future__ import annotations

from latentwire.data.task import Example
from latentwire.methods.receiver_text import ReceiverText
from latentwire.models.receiver import Receiver


class SenderText(ReceiverText):
    """The sender reads context and question as text, zero-shot; no receiver."""

    name = "sender_text"
    sender_sees = "context + question"
    receiver_sees = "nothing"
    writes = True

    @property
    def reader(self) -> Receiver:
        return self.writer

    def message_size(self, example: Example) -> tuple[int, int]:
        return 0, 0
