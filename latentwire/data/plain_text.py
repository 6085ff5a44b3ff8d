"""Running text from files, for pretraining models and bridges."""

from __future__ import annotations

from pathlib import Path
from random import Random

from latentwire.errors import DataError

#: the last part of every file never enters training; held-out loss is measured there
HELD_OUT_TEXT_SHARE = 0.02


class PlainText:
    """Excerpts of a text file, or of all ``*.txt`` files below a folder, there without evaluation files (``*_valid``, ``*_test``).

    Raises:
        DataError: there is no text.
    """

    def __init__(self, location: Path) -> None:
        found = [location] if location.is_file() else sorted(location.rglob("*.txt")) if location.is_dir() else []
        paths = found if location.is_file() else [path for path in found if not path.stem.endswith(("_valid", "_test"))]
        self.texts = [text for path in paths if (text := path.read_text(encoding="utf-8", errors="replace").strip())]
        if not self.texts:
            raise DataError(f"no plain text: {str(location)!r} holds no non-empty *.txt file; give a folder that holds some")
        self.sizes = [len(text) for text in self.texts]

    def excerpt(self, rng: Random, characters: int, *, held_out: bool = False) -> str:
        """About ``characters`` of running text, from behind a blank."""
        text = rng.choices(self.texts, weights=self.sizes)[0]
        border = int(len(text) * (1 - HELD_OUT_TEXT_SHARE))
        first, last = (border, len(text)) if held_out else (0, border)
        start = rng.randrange(first, max(first + 1, last - characters))
        words = text[start : min(start + characters, last)].split(" ", 1)
        return words[-1]
