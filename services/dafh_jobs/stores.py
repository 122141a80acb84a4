"""Where a dump lies: a folder, or a place in an object store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dafh.errors import Reason, Unavailable
from dafh.index.manifest import Folder, Store, unreadable
from dafh_jobs.sources.asking import LISTING_S, ask
from dafh_jobs.sources.remote import filesystem, is_address

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


#: Seconds in which a file of a dump, tens of megabytes, is there or here.
MOVING_S = 600.0


class Bucket:
    """A `Store` in an object store: an object appears whole or not at all by itself.

    Parameters
    ----------
    address
        ``s3://bucket/folder`` or what else fsspec knows. Who may read it is the store's affair:
        the files hold UIDs and pseudonyms of patients.
    """

    def __init__(self, address: str) -> None:
        found: tuple[AbstractFileSystem, str] = filesystem(address)
        self._store, self._root = found

    def names(self) -> list[str]:
        """Return the names of the files."""

        def list_all() -> list[dict[str, str]]:
            self._store.invalidate_cache()
            with suppress(FileNotFoundError):
                return list(self._store.ls(self._root, detail=True))
            return []

        with _reaching():
            listed = ask(list_all, LISTING_S)
        names = (one["name"].rpartition("/")[2] for one in listed if one["type"] == "file")
        return sorted(name for name in names if not name.startswith("."))

    def read(self, name: str) -> bytes:
        """Return a file."""

        def fetch() -> bytes | None:
            with suppress(FileNotFoundError):
                return bytes(self._store.cat_file(f"{self._root}/{name}"))
            return None

        with _reaching():
            content = ask(fetch, MOVING_S)
        if content is None:
            raise unreadable(f"{name} is missing")
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file at once, over a former one."""

        def put() -> None:
            self._store.makedirs(self._root, exist_ok=True)
            self._store.pipe_file(f"{self._root}/{name}", content)

        with _reaching():
            ask(put, MOVING_S)

    def remove(self, name: str) -> None:
        """Remove a file; that it is gone already is no fault."""

        def drop() -> None:
            with suppress(FileNotFoundError):
                self._store.rm_file(f"{self._root}/{name}")

        with _reaching():
            ask(drop)


@contextmanager
def _reaching() -> Iterator[None]:
    """Say in our words, and without an address, what a store's library raises inside the block."""
    try:
        yield
    except OSError as error:
        raise Unavailable(
            Reason.SOURCE_UNREADABLE,
            f"The object store does not do what is asked ({error}).",
            remedy="Look at its address and its own configuration; then run the same command "
            "again: it goes on where it was.",
            subject="out",
        ) from None


def store_at(place: str) -> Store:
    """Return the store at a path or an address."""
    return Bucket(place) if is_address(place) else Folder(Path(place))
