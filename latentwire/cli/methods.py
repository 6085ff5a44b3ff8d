"""``latentwire methods``: one line per method."""

from __future__ import annotations

from latentwire.cli.console import JSON, emit_json


def methods(as_json: bool = JSON) -> None:
    """List the methods: what each is, who sees what, whether it learns."""
    from latentwire.methods import METHODS, method_class

    entries = []
    for name in METHODS:
        method = method_class(name)
        entries.append(
            {
                "name": name,
                "what": (method.__doc__ or "").splitlines()[0],
                "sender_sees": method.sender_sees,
                "receiver_sees": method.receiver_sees,
                "learns": method.fits,
                "seeded": method.seeded,
                "controls": list(method.controls),
                "needs_options": method.needs_options,
            }
        )
    if as_json:
        emit_json(entries)
        return
    for entry in entries:
        marks = [mark for mark, is_set in (("learns", entry["learns"]), ("by seed", entry["seeded"])) if is_set]
        note = f" [{', '.join(marks)}]" if marks else ""
        print(f"{entry['name']:<14} {entry['what']}{note}")
