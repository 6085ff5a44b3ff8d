"""What a check found, and what follows from all of them: will it work?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

Status = Literal["pass", "warn", "fail", "skip"]
Verdict = Literal["yes", "risky", "no"]


@dataclass(frozen=True)
class Check:
    """One check of one task.

    ``text`` says what was found with its numbers; ``row`` is the id of a row that shows it, ``mend`` what to type or change.
    ``numbers`` are the same figures for programs.
    """

    name: str
    status: Status
    text: str
    row: str | None = None
    mend: str = ""
    numbers: dict[str, float | int | str | None] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def verdict_of(checks: Sequence[Check]) -> Verdict:
    """``no`` where a check failed, ``risky`` where one warns, else ``yes``; what was skipped decides nothing."""
    found = {check.status for check in checks}
    return "no" if "fail" in found else "risky" if "warn" in found else "yes"


def allowing(checks: Sequence[Check], allowed: Sequence[str]) -> list[Check]:
    """The checks with failures of the ``allowed`` names as warnings."""
    return [
        replace(check, status="warn", text=f"{check.text} (allowed)") if check.status == "fail" and check.name in allowed else check
        for check in checks
    ]
