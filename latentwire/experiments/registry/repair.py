"""Taking damaged events back from where a whole copy is."""

from __future__ import annotations

from latentwire.experiments.exchange.git import Git, GitError
from latentwire.experiments.registry.events import parse_event
from latentwire.experiments.registry.layout import CORRUPT
from latentwire.experiments.registry.registry import Registry
from latentwire.files import create_exclusively


def restore_corrupt(registry: Registry) -> list[str]:
    """Restores events that were set aside and that git has whole; the damaged copies go. Returns their paths."""
    damaged = sorted(registry.layout.registry.rglob(f"*.json{CORRUPT}"))
    if not damaged:
        return []
    try:
        git = Git(registry.layout.root)
    except GitError:
        return []
    restored = []
    for path in damaged:
        whole = path.with_name(path.name[: -len(CORRUPT)])
        inside = git.relative(whole)
        if inside.startswith("../"):
            continue  # runs/ is a link to somewhere else, of which git has nothing
        content = git.blobs({"": f"HEAD:{inside}"}).get("")
        try:
            event = parse_event(whole.name, content or b"")
        except ValueError:
            continue
        create_exclusively(whole, event.text(), temporary_folder=registry.layout.temporary)
        path.unlink(missing_ok=True)
        restored.append(registry.layout.relative(whole))
    return restored
