"""Files at addresses of object stores, through fsspec and the library that it has for each."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import urlsplit

import fsspec

from dafh.errors import InvalidInput, Misconfigured, Reason
from dafh_jobs.sources.entry import File, UnreadableError, unlisted

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

#: Protocols without TLS: they may reach this machine only.
PLAINTEXT = frozenset({"http", "ftp", "webhdfs", "smb"})
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
#: What of an object's description changes with its content, in the words of the stores.
_STAMPS = ("size", "ETag", "etag", "LastModified", "mtime", "md5Hash", "created")
#: Bytes that are asked for at least.
_CHUNK = 2**16


def is_address(word: str) -> bool:
    """Say whether a source is named by an address, such as ``s3://bucket/folder``."""
    return "://" in word


def check_address(word: str) -> None:
    """Refuse an address that would send data in the clear, or that holds a password.

    Raises
    ------
    InvalidInput, Misconfigured
    """
    parts = urlsplit(word)
    if parts.password:
        raise InvalidInput(
            Reason.ARGUMENT_INVALID,
            "The address of a source holds a password.",
            remedy="Give it to the store's own configuration: arguments are seen by everybody.",
            subject="source",
        )
    if set(parts.scheme.split("+")) & PLAINTEXT and parts.hostname not in LOOPBACK:
        raise Misconfigured(
            Reason.INSECURE_ADDRESS,
            "Refusing to read images from another machine without TLS.",
            remedy="Use https:// or an object store.",
            subject="source",
        )


def filesystem(word: str) -> tuple[AbstractFileSystem, str]:
    """Return the store of an address, and the path in it.

    Raises
    ------
    Misconfigured
        No library for such addresses is installed, or it does not take this one.
    """
    check_address(word)
    try:
        found: tuple[AbstractFileSystem, str] = fsspec.core.url_to_fs(word)
    except (ImportError, ValueError):
        raise Misconfigured(
            Reason.NOT_INSTALLED,
            f"Addresses with {urlsplit(word).scheme}:// cannot be read here.",
            remedy="Install the fsspec library for them (s3fs, gcsfs, adlfs), or name a path.",
            subject="source",
        ) from None
    return found


@contextmanager
def asking() -> Iterator[None]:
    """Let whatever a store's library raises inside the block be an `OSError` without an address.

    Each has errors of its own, and their texts name what was asked for.
    """
    try:
        yield
    except OSError as error:
        raise UnreadableError(error.strerror or type(error).__name__) from None
    except Exception as error:  # noqa: BLE001 - the libraries' errors have no ancestor in common
        raise UnreadableError(type(error).__name__) from None


def exists(word: str) -> bool:
    """Say whether there is anything at an address.

    Raises
    ------
    OSError
        The store does not say.
    """
    store, path = filesystem(word)
    with asking():
        try:
            # Not `exists`, which takes every error for a no.
            store.info(path)
        except FileNotFoundError:
            return False
    return True


def file_at(word: str) -> File:
    """Return the file at an address; that there is none shows when it is read."""
    store, path = filesystem(word)
    try:
        with asking():
            facts = store.info(path)
    except OSError:
        facts = {}
    return File(word, _stamp(facts), partial(_open, store, path))


def walk(word: str) -> Iterator[File]:
    """Yield the files below an address, or the one that it names."""
    store, root = filesystem(word)
    try:
        with asking():
            alone = not store.isdir(root)
    except OSError as error:
        yield unlisted(word, str(error))
        return
    if alone:
        yield file_at(word)
        return
    scheme = urlsplit(word).scheme
    # Not the store's own `walk`, which passes in silence over a folder that it cannot list.
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with asking():
                found = {one["name"]: one for one in store.ls(folder, detail=True)}
        except OSError as error:
            yield unlisted(f"{scheme}://{folder}", str(error))
            continue
        below = {path for path, facts in found.items() if facts["type"] == "directory"}
        # Some stores list a folder in itself.
        folders += sorted(below - {folder, folder + "/"}, reverse=True)
        for path in sorted(found):
            if path not in below:
                yield File(f"{scheme}://{path}", _stamp(found[path]), partial(_open, store, path))


def _open(store: AbstractFileSystem, path: str) -> BinaryIO:
    with asking():
        stream = cast("BinaryIO", store.open(path, "rb"))
    return cast("BinaryIO", io.BufferedReader(_Stream(stream), _CHUNK))


class _Stream(io.RawIOBase):
    """An object's bytes, all errors of which are `OSError`."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._stream.seekable()

    def seek(self, offset: int, whence: int = 0, /) -> int:
        with asking():
            return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # of any buffer
        with asking():
            data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def _stamp(facts: dict[str, object]) -> str:
    known = [str(facts[name]) for name in _STAMPS if facts.get(name) is not None]
    # A size alone says little.
    return " ".join(known) if len(known) > 1 else ""
