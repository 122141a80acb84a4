"""A file is whole, or it is not there; who waits for it is told why."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from dafh.errors import Misconfigured, Reason
from dafh.security.keys import create_key, load_key
from dafh.stack import NOTE, Process, Stack, read_stack, write_stack
from dafh.writing import FULL, OPEN, PRIVATE, drafted, write_atomically, written

DATA = b"new" * 10_000


def failing(number: int) -> Callable[[int], None]:
    def sync(_: int) -> None:
        raise OSError(number, os.strerror(number))

    return sync


def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"old")
    monkeypatch.setattr("os.fsync", failing(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "file", DATA)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    def fail() -> None:
        with drafted(tmp_path / "file") as stream:
            stream.write(DATA)
            raise ZeroDivisionError

    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError):
        fail()
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_has_its_name_when_its_content_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[bytes, bool]] = []
    real = os.fsync

    def sync(descriptor: int) -> None:
        real(descriptor)
        data = Path(f"/proc/self/fd/{descriptor}").read_bytes()
        synced.append((data, (tmp_path / "file").exists()))

    monkeypatch.setattr("os.fsync", sync)
    write_atomically(tmp_path / "file", DATA)
    assert synced == [(DATA, False)]
    assert (tmp_path / "file").read_bytes() == DATA


def test_a_note_of_a_stack_is_whole_or_the_former_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Process(pid=1, started=2, address="127.0.0.1:3")
    note = Stack(
        triton=one, milvus=one, gateway=one,
        patient_key_file=tmp_path, model_version=2, bits=64,
    )  # fmt: skip
    write_stack(tmp_path, note)
    monkeypatch.setattr("os.fsync", failing(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        write_stack(tmp_path, note.model_copy(update={"bits": 16}))
    assert read_stack(tmp_path) == note
    assert [path.name for path in tmp_path.iterdir()] == [NOTE]


@pytest.mark.parametrize(("mode", "folder"), [(PRIVATE, 0o700), (OPEN, 0o755)])
def test_a_file_is_for_those_that_it_is_said_to_be_for(
    tmp_path: Path, mode: int, folder: int
) -> None:
    before = os.umask(0o022)
    try:
        with written(tmp_path / "runs" / "file", mode) as stream:
            stream.write(DATA)
    finally:
        os.umask(before)
    file = tmp_path / "runs" / "file"
    assert stat.S_IMODE(file.stat().st_mode) == mode & ~0o022
    assert stat.S_IMODE(file.parent.stat().st_mode) == folder


@pytest.mark.parametrize("number", sorted(FULL))
def test_a_full_disk_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr("os.fsync", failing(number))
    with pytest.raises(Misconfigured) as caught, written(tmp_path / "file"):
        pass
    assert caught.value.reason is Reason.DISK_FULL
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_none_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(Misconfigured) as caught, written(tmp_path / "runs" / "file"):
        pass
    assert caught.value.reason is Reason.SETTING_INVALID


def test_a_key_is_made_once(tmp_path: Path) -> None:
    create_key(tmp_path / "keys" / "key")
    first = load_key(tmp_path / "keys" / "key")
    create_key(tmp_path / "keys" / "key")
    assert load_key(tmp_path / "keys" / "key") == first
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["key"]
