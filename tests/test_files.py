from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from latentwire.errors import ArtefactError, LatentWireError
from latentwire.files import check_writable, digest, file_digest, read_json, replacing, write_json, write_text


class StoppedError(Exception):
    pass


def test_new_content_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "folder" / "file.txt"
    with replacing(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [StoppedError, KeyboardInterrupt])
def test_interrupted_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")

    def write() -> None:
        with replacing(target) as temporary:
            temporary.write_text("half of the n")
            raise error

    with pytest.raises(error):
        write()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_full_disk_is_one_line_and_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")

    def write() -> None:
        with replacing(target):
            raise OSError(28, os.strerror(28))

    with pytest.raises(LatentWireError, match=r"^cannot write '.*file.txt': No space left on device; nothing was changed$"):
        write()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("below", ["result.json", "run/result.json"])
def test_folder_that_cannot_be_made_is_one_line(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("a file where a folder should be")
    with pytest.raises(LatentWireError, match=r"^cannot write '.*result.json': .*; nothing was changed$"):
        write_text(tmp_path / "file" / below, "x")


def test_other_users_may_read_what_was_written(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        write_text(tmp_path / "file.txt", "x")
    finally:
        os.umask(old)
    assert (tmp_path / "file.txt").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_json_does_not_know_are_refused(tmp_path: Path, number: float) -> None:
    target = tmp_path / "results.json"
    write_json(target, {"value": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(target, {"value": number})
    assert json.loads(target.read_text()) == {"value": 1}
    assert list(tmp_path.iterdir()) == [target]


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    value = {"name": "Zürich", "rows": [1, 2.5, None, True]}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "Zürich" in (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("content", [b'{"a": 1', b"", b"\xff\xfe\x00"])
def test_cut_json_is_reported_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ArtefactError, match=r"^checkpoint '.*a.json' is cut or corrupt .*; delete it and run again$"):
        read_json(tmp_path / "a.json", what="checkpoint")


def test_missing_json_is_reported_by_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"^checkpoint '.*a.json' does not exist$"):
        read_json(tmp_path / "a.json", what="checkpoint")


def test_digest_tells_parts_apart() -> None:
    assert digest("ab", "c") != digest("a", "bc") != digest("abc")
    assert digest("ab") == digest(b"ab")


def test_file_digest_is_sha256_as_other_tools_give_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_folder_in_place_of_a_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="cannot be read"):
        read_json(tmp_path, what="ceiling file")


def test_a_folder_that_cannot_be_written_into_is_named_and_none_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LatentWireError, match="is a file"):
        check_writable(tmp_path / "file" / "below")
    check_writable(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(LatentWireError, match="permission denied on"):
        check_writable(tmp_path / "new" / "folder")
