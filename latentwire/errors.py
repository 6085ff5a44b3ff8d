"""One exception tree. A message is one line: what was given, what is allowed, what to type next."""

from __future__ import annotations

from collections.abc import Iterable

#: names that a suggestion lists at most
MOST_LISTED = 40


class LatentWireError(Exception):
    """Base of every error a user can cause or meet. ``exit_code`` is what the command line returns."""

    exit_code = 1


class UsageError(LatentWireError):
    """The request cannot be understood: unknown names, wrong types, missing arguments."""

    exit_code = 2


class MissingPackageError(UsageError):
    """A package that only some features need is not installed."""

    def __init__(self, what: str, package: str, extra: str, otherwise: str = "") -> None:
        super().__init__(f"{what} needs {package}; in LatentWire's checkout, pip install -e '.[{extra}]'{otherwise}")


class ConfigError(UsageError):
    """A configuration file or override does not fit its schema."""


class UnknownNameError(UsageError):
    """A name that is not registered; the message suggests the nearest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        super().__init__(f"unknown {kind} {name!r}; {suggestion(name, known)}")


class DataError(LatentWireError):
    """Rows, fields, files or labels that are missing or do not fit."""


class ModelError(LatentWireError):
    """A language model that cannot be loaded or used as asked."""


class MismatchError(LatentWireError):
    """An artefact used with other models, or another config, than it was made for."""


class ArtefactError(LatentWireError):
    """A checkpoint, cache or result file that is cut, corrupt or missing."""


class NonFiniteLossError(LatentWireError):
    """A training whose loss or gradient is no finite number; its weights are those of the step before."""


class CheckFailedError(LatentWireError):
    """The work was done, but a check found that its result cannot be believed."""

    exit_code = 3


class StaleClaimError(LatentWireError):
    """A claim on an experiment that somebody else has taken over; its work must stop and records nothing."""


class StoppedEarlyError(LatentWireError):
    """Work that stopped before its end and can be resumed."""

    exit_code = 75


def suggestion(name: str, known: Iterable[str]) -> str:
    """``did you mean …?`` with the nearest names, else the whole list."""
    from difflib import get_close_matches  # only where a name was wrong

    names = sorted(known)
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    listed = ", ".join(names[:MOST_LISTED]) + (f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else "")
    if near:
        return f"did you mean {' or '.join(near)}? Known: {listed}"
    return f"known: {listed or 'none'}"
