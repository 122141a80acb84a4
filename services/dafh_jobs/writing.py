"""Files that appear whole or not at all, and that their owner alone may read."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dafh.errors import Misconfigured, Reason


@contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """Yield a stream whose content is the file when the block ends well.

    Raises
    ------
    Misconfigured
        The disk is full, or the folder cannot be written.
    """
    draft = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        draft.touch(0o600, exist_ok=False)
        with draft.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        raise Misconfigured(
            Reason.DISK_FULL if full else Reason.SETTING_INVALID,
            f"{path.name} cannot be written ({error.strerror}).",
            remedy="Make room, or name another folder; then run the same command again.",
            subject="out",
        ) from None
