"""Files at addresses of object stores, through fsspec and the library that it has for each."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import urlsplit

import fsspec

from dafh.errors import InvalidInput, Misconfigured, Reason
from dafh_jobs.sources.entry import File, unlisted
from dafh_jobs.sources.store_call import LISTING_S, Answer, SilentError, ask

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

#: Protocols without TLS: they may reach this machine only.
PLAINTEXT = frozenset({"http", "ftp", "webhdfs", "smb"})
LOOPBACK = frozenset({"127.0.0.1", "localhost"})
HTTP = frozenset({"http", "https"})
#: Statuses by which HTTP says that nothing is there.
_ABSENT = frozenset({404, 410})
_SECRETS = "Give it to the store's own configuration: arguments are seen by everybody."
#: What of an object's description changes with its content, in the words of the stores.
_STAMPS = ("size", "ETag", "etag", "LastModified", "mtime", "md5Hash", "created")
#: Bytes that are asked for at least, and at most.
_CHUNK, _PIECE = 2**16, 2**20


def is_address(word: str) -> bool:
    """Say whether a source is named by an address, such as ``s3://bucket/folder``."""
    return "://" in word


def check_address(word: str) -> None:
    """Refuse an address that would send data in the clear, or that holds a password.

    Raises
    ------
    InvalidInput, Misconfigured
        Or no library for such addresses is installed.
    """
    try:
        parts = urlsplit(word)
    except ValueError:
        raise _refused("is none", "It has the form scheme://place/path.") from None
    # fsspec reads one address through another, such as simplecache::http://…, and [::1] as that.
    if "::" in word or word.count("://") > 1:
        raise _refused("is a chain of several", "Name one; this machine is 127.0.0.1.")
    if parts.password or (parts.username and parts.scheme in HTTP):
        raise _refused("holds a password or token", _SECRETS)
    if set(parts.scheme.split("+")) & PLAINTEXT and parts.hostname not in LOOPBACK:
        raise Misconfigured(
            Reason.INSECURE_ADDRESS,
            "Refusing to read images from another machine without TLS.",
            remedy="Use https:// or an object store.",
            subject="source",
        )
    try:
        fsspec.get_filesystem_class(parts.scheme)
    except (ImportError, ValueError):
        raise _unread(parts.scheme) from None


def check_argument(word: str) -> None:
    """Refuse an address as an argument, which everybody on the machine sees.

    Raises
    ------
    InvalidInput, Misconfigured
        As `check_address`, or its query may be a token.
    """
    check_address(word)
    if urlsplit(word).query:
        raise _refused(
            "holds a query, which may be a token", f"{_SECRETS} Or list it in a manifest."
        )


def _refused(why: str, remedy: str) -> InvalidInput:
    return InvalidInput(
        Reason.ARGUMENT_INVALID,
        f"The address of a source {why}.",
        remedy=remedy,
        subject="source",
    )


def filesystem(word: str) -> tuple[AbstractFileSystem, str]:
    """Return the store of an address, and the path in it.

    Raises
    ------
    InvalidInput, Misconfigured
        As `check_address`, or the library does not take this one as it is set up.
    OSError
        The library does not reach the store.
    """
    check_address(word)

    def find() -> tuple[AbstractFileSystem, str] | None:
        try:
            found: tuple[AbstractFileSystem, str] = fsspec.core.url_to_fs(word)
        except ValueError:
            return None
        return found

    found = ask(find)
    if found is None:
        raise _unread(urlsplit(word).scheme)
    return found


def _unread(scheme: str) -> Misconfigured:
    return Misconfigured(
        Reason.NOT_INSTALLED,
        f"Addresses with {scheme}:// cannot be read here.",
        remedy="Install the fsspec library for them (s3fs, gcsfs, adlfs) and set it up, or name a "
        "path.",
        subject="source",
    )


def exists(word: str) -> bool:
    """Say whether there is anything at an address.

    Raises
    ------
    OSError
        The store does not say.
    """
    store, path = filesystem(word)

    def look() -> bool:
        try:
            # Not `exists`, which takes every error for a no.
            store.info(path)
        except FileNotFoundError as error:
            if not _is_absence(error, word):
                raise
            return False
        return True

    return ask(look)


def _is_absence(error: FileNotFoundError, word: str) -> bool:
    """Say whether a store was reached, and has nothing there.

    That of fsspec for HTTP says that a file is not found, whatever went wrong.
    """
    cause = error.__cause__
    if urlsplit(word).scheme not in HTTP or cause is None:
        return True
    return isinstance(cause, FileNotFoundError) or getattr(cause, "status", 0) in _ABSENT


def file_at(word: str) -> File:
    """Return the file at an address; that there is none shows when it is read."""
    try:
        store, path = filesystem(word)
        stamp = _stamp(ask(lambda: store.info(path)))
    except OSError:
        stamp = ""
    return File(word, stamp, partial(_open, word))


def walk(word: str) -> Iterator[File]:
    """Yield the files below an address, or the one that it names."""
    try:
        store, root = filesystem(word)
        alone = not ask(lambda: store.isdir(root))
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
            listed = ask(partial(store.ls, folder, detail=True), LISTING_S)
            found = {one["name"]: one for one in listed}
        except OSError as error:
            yield unlisted(f"{scheme}://{folder}", str(error))
            continue
        below = {path for path, facts in found.items() if facts["type"] == "directory"}
        # Some stores list a folder in itself.
        folders += sorted(below - {folder, folder + "/"}, reverse=True)
        for path in sorted(found):
            if path not in below:
                # HTTP's names are addresses already.
                name = path if is_address(path) else f"{scheme}://{path}"
                yield File(name, _stamp(found[path]), partial(_opened, store, path))


def _open(word: str) -> BinaryIO:
    return _opened(*filesystem(word))


def _opened(store: AbstractFileSystem, path: str) -> BinaryIO:
    stream = cast("BinaryIO", ask(partial(store.open, path, "rb")))
    return cast("BinaryIO", io.BufferedReader(_Stream(stream), _CHUNK))


class _Stream(io.RawIOBase):
    """An object's bytes, all errors of which are `OSError`."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._silent = False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._stream.seekable()

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._ask(partial(self._stream.seek, offset, whence))

    def tell(self) -> int:
        return self._stream.tell()

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # of any buffer
        # In pieces: a large file takes longer than an answer may.
        data = self._ask(partial(self._stream.read, min(len(buffer), _PIECE)))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()

    def _ask(self, question: Callable[[], Answer]) -> Answer:
        # A question that nobody waits for any more may move the place of the next one.
        if self._silent:
            raise SilentError("a store did not answer")
        try:
            return ask(question)
        except SilentError:
            self._silent = True
            raise


def _stamp(facts: dict[str, object]) -> str:
    known = [str(facts[name]) for name in _STAMPS if facts.get(name) is not None]
    # A size alone says little.
    return " ".join(known) if len(known) > 1 else ""
