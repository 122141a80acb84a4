"""Files below a path of this machine or an address of an object store, in order of their names."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import urlsplit

import fsspec

from dafh.errors import InvalidInput, Misconfigured, Reason
from dafh_jobs.sources.entry import File, UnreadableError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

#: Protocols without TLS: they may reach this machine only.
PLAINTEXT = frozenset({"http", "ftp", "webhdfs", "smb"})
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
#: What of an object's description changes with its content, in the words of the stores.
_STAMPS = ("size", "ETag", "etag", "LastModified", "mtime", "md5Hash", "created")


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


def walk(word: str) -> Iterator[File]:
    """Yield the files below a path or address, or the one that it names.

    A folder that cannot be listed is a file that cannot be read, so that it is reported. Links are
    followed to files, not to folders: these may lead in circles.
    """
    if is_address(word):
        yield from _remote(word)
    else:
        yield from _local(word)


def exists(word: str) -> bool:
    """Say whether there is anything at a path or address."""
    if not is_address(word):
        return Path(word).exists()
    store, path = filesystem(word)
    return bool(store.exists(path))


def file_at(word: str) -> File:
    """Return the file at a path or address; that there is none shows when it is read."""
    if is_address(word):
        store, path = filesystem(word)
        try:
            facts = store.info(path)
        except OSError:
            facts = {}
        return File(word, _stamp(facts), partial(_open_remote, store, path))
    try:
        stamp = _stamp_of(Path(word).stat())
    except OSError:
        stamp = ""
    return File(word, stamp, partial(_open_local, word))


def _local(root: str) -> Iterator[File]:
    if not Path(root).is_dir():
        yield file_at(root)
        return
    # A stack, not recursion: folders are nested as deep as people like.
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as found:
                listed = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            yield _unlisted(folder, error.strerror or "unknown reason")
            continue
        below = [entry.path for entry in listed if entry.is_dir(follow_symlinks=False)]
        folders += reversed(below)
        yield from (file for entry in listed if (file := _regular(entry)) is not None)


def _regular(entry: os.DirEntry[str]) -> File | None:
    try:
        status = entry.stat()
    except OSError:
        # A link to nothing, or gone meanwhile: reading it says so.
        return File(entry.path, "", partial(_open_local, entry.path))
    if not stat.S_ISREG(status.st_mode):
        return None
    return File(entry.path, _stamp_of(status), partial(_open_local, entry.path))


def _remote(word: str) -> Iterator[File]:
    store, root = filesystem(word)
    if not store.isdir(root):
        yield file_at(word)
        return
    scheme = urlsplit(word).scheme
    for _, _, found in store.walk(root, detail=True):
        for path, facts in sorted((facts["name"], facts) for facts in found.values()):
            yield File(f"{scheme}://{path}", _stamp(facts), partial(_open_remote, store, path))


def _unlisted(folder: str, why: str) -> File:
    def refuse() -> BinaryIO:
        raise UnreadableError(f"a folder cannot be listed: {why}")

    return File(folder, "", refuse)


def _open_local(path: str) -> BinaryIO:
    return Path(path).open("rb")


def _open_remote(store: AbstractFileSystem, path: str) -> BinaryIO:
    return cast("BinaryIO", store.open(path, "rb"))


def _stamp_of(status: os.stat_result) -> str:
    return f"{status.st_size} {status.st_mtime_ns}"


def _stamp(facts: dict[str, object]) -> str:
    known = [str(facts[name]) for name in _STAMPS if facts.get(name) is not None]
    # A size alone says little.
    return " ".join(known) if len(known) > 1 else ""
