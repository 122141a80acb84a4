"""Where a dump lies: a folder, or a place in an object store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dafh.errors import Misconfigured, Reason
from dafh.index.manifest import Folder, Store, unreadable
from dafh_jobs.sources.remote import filesystem, is_address

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
        found: tuple[AbstractFileSystem, str] = filesystem(address)
        self._store, self._root = found

    def names(self) -> list[str]:
        """Return the names of the files."""
        self._store.invalidate_cache()
        try:
            listed = self._store.ls(self._root, detail=True)
        except FileNotFoundError:
            return []
        names = (one["name"].rpartition("/")[2] for one in listed if one["type"] == "file")
        return sorted(name for name in names if not name.startswith("."))

    def read(self, name: str) -> bytes:
        """Return a file."""
        try:
            content: bytes = self._store.cat_file(f"{self._root}/{name}")
        except FileNotFoundError:
            raise unreadable(f"{name} is missing") from None
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file at once, over a former one."""
        try:
            self._store.makedirs(self._root, exist_ok=True)
            self._store.pipe_file(f"{self._root}/{name}", content)
        except OSError as error:
            raise Misconfigured(
                Reason.SETTING_INVALID,
                f"{name} cannot be written ({error.strerror or type(error).__name__}).",
                remedy="Look at the store's own configuration; then start the dump again.",
                subject="out",
            ) from None

    def remove(self, name: str) -> None:
        """Remove a file."""
        self._store.rm_file(f"{self._root}/{name}")


def store_at(place: str) -> Store:
    """Return the store at a path or an address."""
    return Bucket(place) if is_address(place) else Folder(Path(place))
