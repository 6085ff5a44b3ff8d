"""LatentWire: two frozen language models of different families talk through soft tokens.

Importing this package is light: torch and transformers load on first use of what needs them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# must stand before the first import of torch: operations that Metal lacks then run on the CPU
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

if TYPE_CHECKING:
    from latentwire.telepathy import Message as Message
    from latentwire.telepathy import Telepathy as Telepathy

__version__ = "0.1.0"
__all__ = ["Message", "Telepathy", "__version__"]


def __getattr__(name: str) -> Any:
    if name in ("Message", "Telepathy"):
        from latentwire import telepathy

        return getattr(telepathy, name)
    raise AttributeError(f"module 'latentwire' has no attribute {name!r}")
