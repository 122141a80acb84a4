"""The HTTP port for probes and Prometheus: nothing of a patient or a caller, so it asks nobody."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from dafh.errors import Misconfigured, Reason
from dafh.telemetry.metrics import CONTENT_TYPE

#: Seconds that a client has to send its request.
PATIENCE_S = 5.0

#: What a path answers: status, type, body.
Answer = tuple[HTTPStatus, str, bytes]


class HttpPort:
    """Serves ``/livez``, ``/readyz`` and ``/metrics`` from construction until `close`.

    Parameters
    ----------
    listen
        ``host:port``; port 0 takes a free one.
    down
        Returns what does not work, and so why calls should go elsewhere.
    alive
        Says whether the process should be left to run.
    metrics
        Returns what Prometheus reads.

    Raises
    ------
    Misconfigured
        The address is taken.
    """

    def __init__(
        self,
        listen: str,
        *,
        down: Callable[[], list[str]],
        alive: Callable[[], bool],
        metrics: Callable[[], bytes],
    ) -> None:
        def livez() -> Answer:
            return _told(HTTPStatus.OK if alive() else HTTPStatus.SERVICE_UNAVAILABLE, {})

        def readyz() -> Answer:
            parts = down()
            status = HTTPStatus.SERVICE_UNAVAILABLE if parts else HTTPStatus.OK
            return _told(status, {"down": parts})

        answers = {
            "/livez": livez,
            "/readyz": readyz,
            "/metrics": lambda: (HTTPStatus.OK, CONTENT_TYPE, metrics()),
        }

        class Handler(_Handler):
            paths = answers

        host, _, port = listen.rpartition(":")
        try:
            self._server = ThreadingHTTPServer((host.strip("[]"), int(port)), Handler)
        except (OSError, ValueError):
            raise Misconfigured(
                Reason.PORT_IN_USE,
                f"The gateway cannot listen on {listen} for probes.",
                remedy="Stop what holds it, or set DAFH_HTTP_LISTEN.",
            ) from None
        #: The port that is served.
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Serve no longer."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    timeout = PATIENCE_S
    paths: dict[str, Callable[[], Answer]]

    def do_GET(self) -> None:
        answer = self.paths.get(self.path.partition("?")[0])
        status, kind, body = answer() if answer else _told(HTTPStatus.NOT_FOUND, {})
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        """Return what is told of the server: nothing that helps to attack it."""
        return "dafh"

    def log_message(self, *_arguments: object) -> None:
        """Write nothing: probes come every second."""


def _told(status: HTTPStatus, facts: dict[str, object]) -> Answer:
    body = json.dumps({"status": status.phrase, **facts}).encode() + b"\n"
    return status, "application/json", body
