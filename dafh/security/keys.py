"""Secret keys in files: made once, owner-readable only, never shown."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from dafh.errors import Misconfigured, Reason
from dafh.writing import PRIVATE, drafted

KEY_BYTES = 32


def create_key(path: Path) -> None:
    """Write a new random key to `path`, mode 0600; leave a key that is already there alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A hard link fails where a key exists: two first starts agree on one key.
    with suppress(FileExistsError), drafted(path, PRIVATE, place=os.link) as stream:
        stream.write(f"{secrets.token_hex(KEY_BYTES)}\n".encode())


def load_key(path: Path) -> bytes:
    """Read a key.

    Raises
    ------
    Misconfigured
        There is none, others can read it, or it is not 32 bytes in hexadecimal.
    """
    text = read_secret(path, "`dafh up` makes one; elsewhere mount the Secret that holds it.")
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise Misconfigured(
            Reason.KEY_UNSAFE, f"The key file {path} does not hold 64 hexadecimal digits."
        )
    return key


def read_secret(path: Path, remedy: str = "Mount the Secret that holds it.") -> str:
    """Read what only its owner may read, without the white space around it.

    Parameters
    ----------
    remedy
        What to do where there is no such file.

    Raises
    ------
    Misconfigured
        There is none, it is no text, or others can read it.
    """
    try:
        state = path.stat()
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise Misconfigured(
            Reason.KEY_UNSAFE, f"The key file {path} cannot be read ({why}).", remedy=remedy
        ) from None
    if is_exposed(state.st_mode, owner=state.st_uid, user=os.geteuid()):
        raise Misconfigured(
            Reason.KEY_UNSAFE,
            f"The key file {path} is readable by others (mode {state.st_mode & 0o777:04o}).",
            remedy=f"Run `chmod 600 {path}`; mount a Secret with fsGroup and defaultMode 0440.",
        )
    return text


def is_exposed(mode: int, *, owner: int, user: int) -> bool:
    """Say whether others than `user`, who has just read a file, can read or write it.

    Kubernetes mounts a Secret as a file of root's that a pod's group may read (fsGroup, mode
    0440): for a program that is not root there is no narrower way.

    Parameters
    ----------
    mode
        Of the file, as `os.stat` tells it.
    owner, user
        User ids of the file and of this process.

    Examples
    --------
    >>> is_exposed(0o440, owner=0, user=10001), is_exposed(0o440, owner=10001, user=10001)
    (False, True)
    """
    mounted = owner == 0 != user
    return bool(mode & (0o037 if mounted else 0o077))
