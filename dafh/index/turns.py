"""Writers of a Milvus on this machine take turns, whatever process they are in.

Milvus Lite looks for the former row of a key and stores the new one in two steps: two that store a
new key at once leave two rows of it, which no later call can tell apart.

Who reaches a server on loopback is in its network namespace, and so are the names of abstract Unix
sockets (unix(7)). Whoever is bound to the name has the turn, and the kernel gives it back when they
die. A server elsewhere, with TLS, is no Milvus Lite, and nobody waits.
"""

from __future__ import annotations

import errno
import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dafh.deadline import Deadline

#: Seconds until somebody who waits looks again.
_POLL_S = (0.001, 0.005)


@contextmanager
def turn(port: int, deadline: Deadline, stage: str) -> Iterator[None]:
    """Hold the turn at the server that listens on a port of this machine.

    Parameters
    ----------
    stage
        What is being done, for error messages.

    Raises
    ------
    DeadlineExceeded
        Others had it all the time.
    """
    with socket.socket(socket.AF_UNIX) as name:
        while not _is_bound(name, f"\0dafh-milvus-{port}"):
            time.sleep(min(random.uniform(*_POLL_S), deadline.remaining(stage)))  # noqa: S311 - no secret
        yield


def _is_bound(name: socket.socket, address: str) -> bool:
    try:
        name.bind(address)
    except OSError as taken:
        if taken.errno != errno.EADDRINUSE:
            raise
        return False
    return True
