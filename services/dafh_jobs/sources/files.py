"""Files below a path of this machine or an address of an object store, in order of their names."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from dafh.errors import InvalidInput, Reason
from dafh_jobs.sources import remote
from dafh_jobs.sources.entry import File, unlisted
from dafh_jobs.sources.remote import is_address


def walk(word: str) -> Iterator[File]:
    """Yield the files below a path or address, or the one that it names.

    A folder that cannot be listed is a file that cannot be read, so that it is reported. Links are
    followed; what is in a folder that several lead to comes once, by its own path if it has one.
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


def is_empty_folder(word: str) -> bool:
    """Say whether a path is that of a folder with nothing in it; a store has no empty folders."""
    if is_address(word):
        return False
    try:
        with os.scandir(word) as found:
            return next(found, None) is None
    except OSError:
        # No folder, or one that cannot be listed: reading it says why.
        return False


def file_at(word: str) -> File:
    """Return the file at a path or address; that there is none shows when it is read."""
    if is_address(word):
        return remote.file_at(word)
    try:
        status = Path(word).stat()
    except (OSError, ValueError):
        # A link to nothing, gone meanwhile, or no name of a file: reading it says so.
        return File(word, "", partial(_open, word))
    return File(word, f"{status.st_size} {status.st_mtime_ns}", partial(_open, word))


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
    # A stack, not recursion: folders are nested as deep as people like. Links wait until the last
    # folder was met, so that none of these comes by the name of a link.
    folders, links = [root], deque[str]()
    met: set[tuple[int, int]] = set()
    while folders or links:
        folder = folders.pop() if folders else links.popleft()
        try:
            status = Path(folder).stat()
            if (status.st_dev, status.st_ino) in met:
                continue
            met.add((status.st_dev, status.st_ino))
            listed = _listed(folder)
        except OSError as error:
            yield unlisted(folder, error.strerror or "unknown reason")
            continue
        folders += (str(Path(folder, name)) for name in sorted(listed.folders, reverse=True))
        links += (str(Path(folder, name)) for name in sorted(listed.links))
        for name in sorted(listed.files):
            yield file_at(str(Path(folder, name)))


class _Listed(NamedTuple):
    """Names of what is in a folder; `links` are those to folders, `files` is all else."""

    folders: list[str]
    links: list[str]
    files: list[str]


def _listed(folder: str) -> _Listed:
    """Return the names of what is in a folder.

    Only these: with all that the system tells of each, large folders took ten times the memory.
    """
    listed = _Listed([], [], [])
    with os.scandir(folder) as found:
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                listed.folders.append(entry.name)
            elif entry.is_symlink() and _is_folder(entry.path):
                listed.links.append(entry.name)
            else:
                listed.files.append(entry.name)
    return listed


def _is_folder(path: str) -> bool:
    try:
        return Path(path).is_dir()
    except OSError:
        # It leads to where we may not look: reading it says so.
        return False


def _open(path: str) -> BinaryIO:
    if "\0" in path:
        raise InvalidInput(Reason.NOT_A_FILE, "No file can have such a name.")
    # A pipe waits for whoever writes to it, and a device may do anything.
    kind = stat.S_IFMT(Path(path).stat().st_mode)
    if kind not in (stat.S_IFREG, stat.S_IFDIR):
        raise InvalidInput(Reason.NOT_A_FILE, "A pipe, a socket or a device is no file.")
    return Path(path).open("rb")
