"""Loopback ports: chosen, checked to be free, and checked to be answered by us."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable
from pathlib import Path

from dafh.errors import Misconfigured, Reason

HOST = "127.0.0.1"
#: Below the range from which Linux takes the ports of outgoing connections (32768 on): nobody else
#: is given a port of this range between the choice and its use.
FREE_RANGE = range(20_000, 32_000)
#: 127.0.0.1 in ``/proc/net/tcp`` and, mapped, in ``/proc/net/tcp6``.
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}
#: State LISTEN there.
LISTEN = "0A"


def address(port: int) -> str:
    """Return ``host:port`` on loopback."""
    return f"{HOST}:{port}"


def port_of(host_and_port: str) -> int:
    """Return the port of ``host:port``."""
    return int(host_and_port.rpartition(":")[2])


def is_free(port: int) -> bool:
    """Say whether nothing listens on a loopback port."""
    with socket.socket() as probe:
        # Old connections that linger do not count; another listener does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port(taken: Iterable[int] = ()) -> int:
    """Return a free port that is not among those `taken`.

    Raises
    ------
    Misconfigured
        None was found.
    """
    refused = set(taken)
    # Not a secret: only two stacks that start at once should not choose the same.
    for port in random.SystemRandom().sample(FREE_RANGE, 200):
        if port not in refused and is_free(port):
            return port
    raise Misconfigured(Reason.PORT_IN_USE, "No free port was found on 127.0.0.1.")


def require_free(port: int, part: str, option: str) -> None:
    """Refuse a port that is in use.

    Raises
    ------
    Misconfigured
        Something listens there, or this user may not.
    """
    if not is_free(port):
        raise Misconfigured(
            Reason.PORT_IN_USE,
            f"Port {port} on {HOST}, wanted for {part}, is in use.",
            remedy=f"Stop what uses it, or choose another with {option} (0 takes any free one).",
            subject=option,
        )


def listens(port: int, pids: Iterable[int]) -> bool:
    """Say whether the processes `pids`, and nobody else, listen on a loopback port.

    gRPC servers can share a port with SO_REUSEPORT; an answer alone does not say whose it is.
    """
    listeners = _listeners(port)
    return bool(listeners) and listeners <= {inode for pid in pids for inode in _sockets(pid)}


def _listeners(port: int) -> set[str]:
    inodes = set()
    for table in ("tcp", "tcp6"):
        path = Path("/proc/net") / table
        lines = path.read_text().splitlines()[1:] if path.exists() else []
        for line in lines:
            fields = line.split()
            # sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
            host, _, number = fields[1].partition(":")
            if fields[3] == LISTEN and host in LOOPBACK and int(number, 16) == port:
                inodes.add(fields[9])
    return inodes


def _sockets(pid: int) -> set[str]:
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            target = str(descriptor.readlink())
        except OSError:
            # Closed while we looked.
            continue
        if target.startswith("socket:["):
            inodes.add(target[len("socket:[") : -1])
    return inodes
