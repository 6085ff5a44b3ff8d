"""What the Hub's client says while it does not answer: one line, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from logging import Filter, LogRecord, getLogger


@contextmanager
def silence_told_once() -> Iterator[None]:
    """Of the two lines that the client logs for each of its tries, keeps one in all."""
    client, once = getLogger("huggingface_hub.utils._http"), _Once()
    client.addFilter(once)
    try:
        yield
    finally:
        client.removeFilter(once)


class _Once(Filter):
    told = False

    def filter(self, record: LogRecord) -> bool:
        if self.told:
            return False
        self.told = True
        record.msg = "the Hub does not answer, trying again for half a minute; without network set HF_HUB_OFFLINE=1"
        record.args = ()
        return True
