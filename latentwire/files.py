"""Files are written whole or not at all: a temporary file beside the target, fsync, then ``os.replace``."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from latentwire.errors import ArtefactError, LatentWireError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that becomes ``path`` when the block ends well, and vanishes when it does not."""
    import tempfile  # takes as long to load as all else here, and a status writes nothing

    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise LatentWireError(f"cannot write {str(path)!r}: {error.strerror or error}; nothing was changed") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Raises ``LatentWireError`` where nothing can be written into the folder, or where it cannot be made. Makes nothing."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise LatentWireError(f"cannot write into {str(folder)!r}: {str(there)!r} is a file; name another folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise LatentWireError(f"cannot write into {str(folder)!r}: permission denied on {str(there)!r}; name another folder")


def remove(path: Path) -> None:
    """Removes a file, or a folder with all that is in it, if there is one."""
    import shutil

    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """JSON with a stable layout, so that git shows small differences."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, *, what: str = "file", mend: str = "delete it and run again") -> Any:
    """Parsed JSON. Raises ``ArtefactError`` where the file is missing, unreadable, cut or not JSON; ``mend``: what helps then."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtefactError(f"{what} {str(path)!r} does not exist") from None
    except OSError as error:
        raise ArtefactError(f"{what} {str(path)!r} cannot be read ({error.strerror})") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise ArtefactError(f"{what} {str(path)!r} is cut or corrupt ({error}); {mend}") from None


def digest(*parts: str | bytes) -> str:
    """SHA-256 over the parts, each with its length, as 64 hexadecimal characters."""
    import hashlib

    state = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    import hashlib

    state = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            state.update(block)
    return state.hexdigest()


def create_exclusively(path: Path, text: str, *, temporary_folder: Path) -> bool:
    """Creates ``path`` with all of its content at once. Returns False, changing nothing, where it exists already.

    Of many processes, on one or several machines, one gets True. The temporary file must be on the same file system and lies in
    a folder of its own, so that a killed process leaves nothing beside the target. A hard link is what NFS, too, makes exclusively.
    """
    temporary = temporary_folder / f"{path.name}.{os.urandom(8).hex()}.tmp"
    try:
        temporary_folder.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("x", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            made = _link(temporary, path, text)
        finally:
            temporary.unlink(missing_ok=True)
        if made:
            _sync_folder(path.parent)
        return made
    except OSError as error:
        raise LatentWireError(f"cannot write {str(path)!r}: {error.strerror or error}; nothing was changed") from error


def _link(temporary: Path, path: Path, text: str) -> bool:
    try:
        os.link(temporary, path)
    except FileExistsError:
        # a repeated NFS request can fail although its first copy made the link
        return temporary.stat().st_nlink == 2
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        return _create_without_links(path, text)
    return True


def _create_without_links(path: Path, text: str) -> bool:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return False
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself durable; Windows cannot open folders and does not need it."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
