"""Writing below the data directory: a full or unwritable disk becomes one clear sentence."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dafh.errors import Misconfigured, Reason
from dafh.writing import FULL

UNWRITABLE = {
    errno.EACCES,
    errno.EEXIST,
    errno.ELOOP,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Translate what the operating system says when `folder` cannot be written.

    Raises
    ------
    Misconfigured
        The disk is full, or the folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise disk_full(folder) from None
        if error.errno in UNWRITABLE:
            raise Misconfigured(
                Reason.SETTING_INVALID,
                f"{folder} cannot be written ({error.strerror}).",
                remedy="Choose a folder of your own.",
            ) from None
        raise


def make_private(folder: Path) -> None:
    """Make a folder that only its owner can enter; a new or empty one is made so.

    Raises
    ------
    Misconfigured
        It is in use and open to others: changing that might break what uses it.
    """
    with writing(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not folder.stat().st_mode & 0o077:
            return
        if any(folder.iterdir()):
            raise Misconfigured(
                Reason.KEY_UNSAFE,
                f"{folder} is open to other users of this machine.",
                remedy="Run `chmod 700` on it, or choose another data directory with --data-dir.",
            )
        folder.chmod(0o700)


def require_space(folder: Path, minimum_mib: int) -> None:
    """Refuse a disk that is nearly full.

    Raises
    ------
    Misconfigured
        Fewer than `minimum_mib` MiB are free where `folder` lies.
    """
    free = shutil.disk_usage(folder).free >> 20
    if free < minimum_mib:
        raise Misconfigured(
            Reason.DISK_FULL,
            f"Only {free} MiB are free where {folder} lies; the stack needs {minimum_mib}.",
            remedy="Make room, or choose a data directory on another disk with --data-dir.",
        )


def disk_full(folder: Path) -> Misconfigured:
    """Return the error that says that the disk under `folder` is full."""
    return Misconfigured(
        Reason.DISK_FULL,
        f"The disk that holds {folder} is full.",
        remedy="Make room, or choose a folder on another disk.",
    )
