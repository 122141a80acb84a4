"""Where a dump lies: a folder, or a place in an object store."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dafh.errors import Reason, Unavailable
from dafh.index.manifest import Folder, Store, unreadable
from dafh_jobs.sources.remote import filesystem, is_address
from dafh_jobs.sources.store_call import LISTING_S, Answer, ask

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


class Bucket:
    """A `Store` in an object store: an object appears whole or not at all by itself.

    Parameters
    ----------
    address
        ``s3://bucket/folder`` or what else fsspec knows. Who may read it is the store's affair:
        the files hold UIDs and pseudonyms of patients.
    """

    def __init__(self, address: str) -> None:
        try:
            found: tuple[AbstractFileSystem, str] = filesystem(address)
        except OSError as error:
            raise _away(error) from None
        self._store, self._root = found

    def names(self) -> list[str]:
        """Return the names of the files."""

        def listed() -> list[dict[str, str]]:
            self._store.invalidate_cache()
            try:
                found: list[dict[str, str]] = self._store.ls(self._root, detail=True)
            except FileNotFoundError:
                return []
            return found

        files = (one["name"] for one in _answer(listed) if one["type"] == "file")
        names = (name.rpartition("/")[2] for name in files)
        return sorted(name for name in names if not name.startswith("."))

    def read(self, name: str) -> bytes:
        """Return a file."""

        def content() -> bytes | None:
            try:
                found: bytes = self._store.cat_file(f"{self._root}/{name}")
            except FileNotFoundError:
                return None
            return found

        read = _answer(content)
        if read is None:
            raise unreadable(f"{name} is missing")
        return read

    def write(self, name: str, content: bytes) -> None:
        """Write a file at once, over a former one."""

        def write() -> None:
            self._store.makedirs(self._root, exist_ok=True)
            self._store.pipe_file(f"{self._root}/{name}", content)

        _answer(write)

    def remove(self, name: str) -> None:
        """Remove a file; that it is gone already is no fault."""

        def remove() -> None:
            with suppress(FileNotFoundError):
                self._store.rm_file(f"{self._root}/{name}")

        _answer(remove)


def _answer(question: Callable[[], Answer]) -> Answer:
    """Return what a store answers; say in our words, and without an address, what is wrong."""
    try:
        # As long as for a list: a whole file may be on its way.
        return ask(question, LISTING_S)
    except OSError as error:
        raise _away(error) from None


def _away(error: OSError) -> Unavailable:
    return Unavailable(
        Reason.SOURCE_UNREADABLE,
        f"The object store does not do what is asked ({error}).",
        remedy="Look at its address and its own configuration; then run the same command "
        "again: it goes on where it was.",
        subject="out",
    )


def store_at(place: str) -> Store:
    """Return the store at a path or an address."""
    return Bucket(place) if is_address(place) else Folder(Path(place))
