"""Files below a path of this machine or an address of an object store, in order of their names."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from dafh_jobs.sources import remote
from dafh_jobs.sources.entry import File, unlisted
from dafh_jobs.sources.remote import is_address


def walk(word: str) -> Iterator[File]:
    """Yield the files below a path or address, or the one that it names.

    A folder that cannot be listed is a file that cannot be read, so that it is reported. Links are
    followed to files, not to folders: these may lead in circles.
    """
    yield from remote.walk(word) if is_address(word) else _walk(word)


def exists(word: str) -> bool:
    """Say whether there is anything at a path or address.

    Raises
    ------
    OSError
        Nobody can tell: it cannot be reached, or we are not allowed to look.
    """
    return remote.exists(word) if is_address(word) else Path(word).exists()


def file_at(word: str) -> File:
    """Return the file at a path or address; that there is none shows when it is read."""
    if is_address(word):
        return remote.file_at(word)
    try:
        stamp = _stamp(Path(word).stat())
    except OSError:
        stamp = ""
    return File(word, stamp, partial(_open, word))


def beside(name: str, *parts: str) -> str:
    """Return the path or address of what lies in the folder of a file."""
    if is_address(name):
        # A path would take two of the three slashes of an address away.
        return "/".join((name.rpartition("/")[0], *parts))
    return str(PurePosixPath(name).parent.joinpath(*parts))


def _walk(root: str) -> Iterator[File]:
    if not Path(root).is_dir():
        yield file_at(root)
        return
    # A stack, not recursion: folders are nested as deep as people like.
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            below, names = _listed(folder)
        except OSError as error:
            yield unlisted(folder, error.strerror or "unknown reason")
            continue
        folders += (str(Path(folder, name)) for name in sorted(below, reverse=True))
        for name in sorted(names):
            file = _regular(str(Path(folder, name)))
            if file is not None:
                yield file


def _listed(folder: str) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of all else in a folder.

    Only these: with all that the system tells of each, large folders took ten times the memory.
    """
    below: list[str] = []
    names: list[str] = []
    with os.scandir(folder) as found:
        for entry in found:
            (below if entry.is_dir(follow_symlinks=False) else names).append(entry.name)
    return below, names


def _regular(path: str) -> File | None:
    """Return a file, or a link to one; ``None`` for what is neither."""
    try:
        status = Path(path).stat()
    except OSError:
        # A link to nothing, or gone meanwhile: reading it says so.
        return File(path, "", partial(_open, path))
    return (
        File(path, _stamp(status), partial(_open, path)) if stat.S_ISREG(status.st_mode) else None
    )


def _open(path: str) -> BinaryIO:
    return Path(path).open("rb")


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_size} {status.st_mtime_ns}"
