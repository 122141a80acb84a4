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
from dafh_gateway.merged import MergedHttp
from dafh_gateway.settings import GatewaySettings

#: Seconds between looks at whether all live.
LOOK_S = 0.2
#: Seconds beyond the drain that they have to end by themselves: twice the grace of calls in hand.
END_S = 20.0


def serve_with_siblings(settings: GatewaySettings) -> int:
    """Run the processes until SIGTERM or SIGINT, or until one of them ends; return an exit status.

    The signals must be blocked.

    Raises
    ------
    Misconfigured
        A port is taken.
    """
    with ExitStack() as held:
        port = held.enter_context(_hold(settings.listen))
        host = settings.listen.rpartition(":")[0]
        listen = f"{host}:{port.getsockname()[1]}"
        ports = _http_ports(settings)
        if ports:
            merged = MergedHttp(settings.http_listen, ports)
            held.callback(merged.close)
        siblings = [
            _start(listen, ports[number] if ports else None) for number in range(settings.processes)
        ]
        try:
            ended = _until_one_ends(siblings)
        finally:
            _end(siblings, settings.drain_seconds + END_S)
        return ended


def _http_ports(settings: GatewaySettings) -> list[int]:
    """Return the HTTP ports of the processes, the next ones after that of all; none without it."""
    port = int(settings.http_listen.rpartition(":")[2] or 0)
    return [port + 1 + number for number in range(settings.processes)] if port else []


def _start(listen: str, http: int | None) -> subprocess.Popen[bytes]:
    # They read the same environment; only ports may have been chosen here.
    ports = [f"DAFH_LISTEN={listen}"]
    if http is not None:
        ports.append(f"DAFH_HTTP_LISTEN=127.0.0.1:{http}")
    return subprocess.Popen(
        ["/usr/bin/env", *ports, sys.executable, "-P", "-m", "dafh_gateway", "--sibling"]
    )


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


def _end(siblings: list[subprocess.Popen[bytes]], seconds: float) -> None:
    for one in siblings:
        one.terminate()
    end = time.monotonic() + seconds
    for one in siblings:
        try:
            one.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            one.kill()
            one.wait()
