"""Several gateway processes that share one port: each takes connections of its own (SO_REUSEPORT).

Python computes on one core at a time, so that a machine of several cores wants several processes.
The first one holds the port, serves nothing, and ends with its siblings or they with it.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack

from dafh.errors import Misconfigured, Reason
from dafh_gateway.settings import GatewaySettings

#: Seconds between looks at whether all live.
LOOK_S = 0.2
#: Seconds that they have to end by themselves: the drain, and the grace of calls in hand.
END_S = 20.0


def serve_with_siblings(settings: GatewaySettings) -> int:
    """Run the processes until SIGTERM or SIGINT, or until one of them ends; return an exit status.

    The signals must be blocked.

    Raises
    ------
    Misconfigured
        The port is taken, or only one process can have the HTTP port.
    """
    if settings.http_listen and not settings.http_listen.endswith(":0"):
        raise Misconfigured(
            Reason.SETTING_INVALID,
            "Several processes cannot share the HTTP port.",
            remedy="Run one process per container and let replicas share the load, or leave "
            "DAFH_HTTP_LISTEN empty.",
            subject="http_listen",
        )
    with ExitStack() as held:
        port = held.enter_context(_hold(settings.listen))
        host = settings.listen.rpartition(":")[0]
        # They read the same environment; only the port may have been chosen here.
        command = [
            "/usr/bin/env", f"DAFH_LISTEN={host}:{port.getsockname()[1]}", sys.executable, "-P",
            "-m", "dafh_gateway", "--sibling",
        ]  # fmt: skip
        siblings = [subprocess.Popen(command) for _ in range(settings.processes)]
        try:
            ended = _until_one_ends(siblings)
        finally:
            _end(siblings)
        return ended


def _hold(listen: str) -> socket.socket:
    """Bind the port without listening, so that it is ours before the first sibling serves."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    held = socket.socket(family)
    try:
        # Without the option first: a stranger's port, shared or not, is taken.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((host, int(port)))
    except OSError:
        held.close()
        raise Misconfigured(
            Reason.PORT_IN_USE,
            f"The gateway cannot listen on {listen}: the port is taken.",
            remedy="Stop what holds it, or set DAFH_LISTEN.",
        ) from None
    return held


def _until_one_ends(siblings: list[subprocess.Popen[bytes]]) -> int:
    """Return 0 when asked to stop, or how the first one ended that nobody asked to."""
    while True:
        if signal.sigtimedwait({signal.SIGTERM, signal.SIGINT}, LOOK_S) is not None:
            return 0
        for one in siblings:
            status = one.poll()
            if status is not None:
                # Whoever started us starts all anew: a service at half strength helps nobody.
                return status or 1


def _end(siblings: list[subprocess.Popen[bytes]]) -> None:
    for one in siblings:
        one.terminate()
    end = time.monotonic() + END_S
    for one in siblings:
        try:
            one.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            one.kill()
            one.wait()
