"""Files that appear whole or not at all, and that their owner alone may read."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkstemp
from typing import BinaryIO

from dafh.errors import Misconfigured, Reason


@contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """Yield a stream whose content is the file when the block ends well.

    Of several programs that write the same file at once, the last one's stands.

    Raises
    ------
    Misconfigured
        The disk is full, or the folder cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        raise Misconfigured(
            Reason.DISK_FULL if full else Reason.SETTING_INVALID,
            f"{path.name} cannot be written ({error.strerror}).",
            remedy="Make room, or name another folder; then run the same command again.",
            subject="out",
        ) from None
