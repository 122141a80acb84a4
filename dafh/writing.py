"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dafh.errors import Misconfigured, Reason

#: What the system calls a disk, a quota or a largest file that leaves no room.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
#: Modes of a file: its owner alone may read it, or whoever the umask lets.
PRIVATE, OPEN = 0o600, 0o666


@contextmanager
def drafted(
    path: Path, mode: int = OPEN, place: Callable[[Path, Path], None] = os.replace
) -> Iterator[BinaryIO]:
    """Yield a stream whose content is the file when the block ends well; else nothing changes.

    So it is too where the machine loses power. Of several programs that write the same file at
    once, the last one's stands.

    Parameters
    ----------
    mode
        Of the file, less the umask.
    place
        Gives what was written, a file beside it, its name.

    Raises
    ------
    OSError
        It cannot be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        place(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file as `drafted` does.

    Raises
    ------
    OSError
        It cannot be written.
    """
    with drafted(path) as stream:
        stream.write(data)


@contextmanager
def written(path: Path, mode: int = PRIVATE) -> Iterator[BinaryIO]:
    """Do as `drafted` for somebody who waits for a sentence; make the folder where it is missing.

    Raises
    ------
    Misconfigured
        The disk is full, or the folder cannot be written.
    """
    try:
        # Whoever may read may enter.
        path.parent.mkdir(mode=mode | (mode & 0o444) >> 2, parents=True, exist_ok=True)
        with drafted(path, mode) as stream:
            yield stream
    except OSError as error:
        raise Misconfigured(
            Reason.DISK_FULL if error.errno in FULL else Reason.SETTING_INVALID,
            f"{path.name} cannot be written ({error.strerror}).",
            remedy="Make room, or name another folder; then run the same command again.",
            subject="out",
        ) from None
