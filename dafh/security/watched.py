"""Files that are mounted and replaced while a program runs: read again when they have changed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from dafh.errors import Misconfigured

Content = TypeVar("Content")

#: What tells one state of a file from another: a mounted Secret is replaced by a new file.
_State = tuple[int, int, int]


class Watched(Generic[Content]):
    """The content of files, as they are now.

    A change that cannot be read is not taken over: what was read before holds, until it can be.

    Parameters
    ----------
    files
        Files that are read together.
    read
        Reads them.

    Raises
    ------
    Misconfigured
        They cannot be read to begin with.
    """

    def __init__(self, files: tuple[Path, ...], read: Callable[[], Content]) -> None:
        self._files = files
        self._read = read
        self._lock = threading.Lock()
        self._states = self._look()
        self._content = read()

    def get(self) -> tuple[Content, bool]:
        """Return the content, and whether it has changed since it was asked for last."""
        with self._lock:
            states = self._look()
            if states == self._states:
                return self._content, False
            try:
                content = self._read()
            except Misconfigured:
                # Half written: the next look finds the rest.
                return self._content, False
            self._states, self._content = states, content
            return content, True

    def _look(self) -> list[_State | None]:
        return [_state(file) for file in self._files]


def _state(file: Path) -> _State | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
