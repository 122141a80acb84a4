"""The gRPC server: services, health, and a watch over what they stand on."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from dafh.errors import Misconfigured, Reason
from dafh.security.keys import load_key
from dafh.security.tls import server_credentials
from dafh.telemetry.audit import Audit
from dafh.telemetry.metrics import Metrics
from dafh.telemetry.traces import Traces, otlp
from dafh.v1 import archive_service_pb2, model_service_pb2, retrieval_service_pb2
from dafh_gateway.archive_service import ArchiveService
from dafh_gateway.asking import Asking
from dafh_gateway.backend import PARTS, Backend
from dafh_gateway.door import Door
from dafh_gateway.http import HttpPort
from dafh_gateway.model_service import ModelService
from dafh_gateway.observer import Observer
from dafh_gateway.pages import PageTokens
from dafh_gateway.retrieval_service import RetrievalService
from dafh_gateway.settings import GatewaySettings

#: Health service names: the process itself, and what needs Triton and Milvus to answer.
PROCESS = ""
DESCRIPTORS = (
    retrieval_service_pb2.DESCRIPTOR.services_by_name["RetrievalService"],
    archive_service_pb2.DESCRIPTOR.services_by_name["ArchiveService"],
    model_service_pb2.DESCRIPTOR.services_by_name["ModelService"],
)
SERVICES = tuple(descriptor.full_name for descriptor in DESCRIPTORS)
#: Seconds that calls in hand get to finish when the server stops.
GRACE = 10.0
#: Seconds within which Triton and Milvus each must answer the watch.
WATCH_SECONDS = 1.0
#: Bytes of a stream that a client may send ahead.
LOOKAHEAD = 1 << 20
#: Threads beyond those that calls in hand hold: they refuse what is too much.
SPARE_THREADS = 8

_log = logging.getLogger(__name__)


class Gateway:
    """A gateway that serves from construction until `stop`.

    Parameters
    ----------
    settings
        Where to listen, and where Triton and Milvus are.

    Raises
    ------
    Misconfigured
        The address is taken, or reaches beyond this machine without TLS and authentication; a key
        or certificate cannot be read; the decoder processes cannot be started.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        settings.require_safety()
        self._settings = settings
        self._authenticator = settings.authenticator()
        self._server = grpc.server(
            ThreadPoolExecutor(
                settings.max_calls + settings.max_streams + SPARE_THREADS,
                thread_name_prefix="call",
            ),
            options=[
                ("grpc.max_receive_message_length", settings.max_message),
                ("grpc.max_send_message_length", settings.max_message),
                # Two gateways must not share a port by accident.
                ("grpc.so_reuseport", int(settings.processes > 1)),
                *connection_ages(settings.connection_age),
                # What a client sends ahead is held before a handler asks for it, outside of every
                # budget of ours. Left to itself, gRPC lets a fast sender have tens of megabytes a
                # stream (docs/decisions/0016-memory-of-messages.md).
                ("grpc.http2.bdp_probe", 0),
                ("grpc.http2.lookahead_bytes", LOOKAHEAD),
            ],
        )
        try:
            #: The port that is served.
            self.port = self._open(settings)
        except RuntimeError:
            raise Misconfigured(
                Reason.PORT_IN_USE,
                f"The gateway cannot listen on {settings.listen}: the port is taken.",
                remedy="Stop what holds it, or set DAFH_LISTEN.",
            ) from None
        # The port comes first: what fails behind it leaves no process and no connection.
        exporter = otlp(settings.otlp_endpoint) if settings.otlp_endpoint else None
        #: What is seen of calls.
        self.observer = Observer(
            Metrics(),
            Traces("dafh-gateway", exporter),
            Audit(settings.audit_dir) if settings.audit else None,
        )
        self._backend = Backend(settings, self.observer.traces.headers)
        self._health = health.HealthServicer()
        self._retrieval = self._register()
        self._stopped = threading.Event()
        #: What does not work; to begin with nobody has looked.
        self._down = ["not yet looked at"]
        self._watch = threading.Thread(target=self._watch_or_say_so, name="watch", daemon=True)
        #: Probes and metrics over HTTP, where they are wanted.
        self.http = self._open_http(settings.http_listen)
        self._server.start()
        self._watch.start()

    def _open_http(self, listen: str) -> HttpPort | None:
        if not listen:
            return None
        return HttpPort(
            listen,
            down=self.down,
            alive=lambda: self._watch.is_alive(),
            metrics=self.observer.metrics.text,
        )

    def down(self) -> list[str]:
        """Return why calls should go elsewhere; nothing where they need not."""
        return ["draining"] if self._stopped.is_set() else self._down

    def _open(self, settings: GatewaySettings) -> int:
        if settings.tls is None:
            return self._server.add_insecure_port(settings.listen)
        return self._server.add_secure_port(settings.listen, server_credentials(settings.tls))

    def _register(self) -> RetrievalService:
        settings, backend = self._settings, self._backend
        pages = PageTokens(page_keys(settings))
        asking = Asking(backend, pages, settings, self.observer)
        door = Door(self._authenticator, settings, self.observer)
        stages = (asking.queries, asking.decoding, asking.inference, asking.searching)
        self.observer.watch(stages, door.memory)
        retrieval = RetrievalService(backend, asking, door.memory, settings)
        services = (
            retrieval,
            ArchiveService(backend, asking, pages, settings),
            ModelService(backend, pages),
        )
        self._server.add_generic_rpc_handlers(
            [
                door.handlers(descriptor, service)
                for descriptor, service in zip(DESCRIPTORS, services, strict=True)
            ]
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._health.set(PROCESS, health_pb2.HealthCheckResponse.SERVING)
        self._set_services(serving=False)
        return retrieval

    def _set_services(self, *, serving: bool) -> None:
        states = health_pb2.HealthCheckResponse
        for service in SERVICES:
            self._health.set(service, states.SERVING if serving else states.NOT_SERVING)

    def _watch_or_say_so(self) -> None:
        """Keep watch; whatever ends it, nobody is left to believe the last word."""
        try:
            self._keep_watch()
        finally:
            self._down = ["watch"]
            self._set_services(serving=False)

    def _keep_watch(self) -> None:
        """Set the services' health by what Triton and Milvus say; log each change."""
        before: list[str] | None = None
        while not self._stopped.wait(0 if before is None else self._settings.watch_interval):
            down = self._backend.down(WATCH_SECONDS)
            if down != before:
                _log.log(logging.WARNING if down else logging.INFO, "watch", extra={"down": down})
            self._set_services(serving=not down)
            for part in PARTS:
                self.observer.metrics.up.labels(part).set(part not in down)
            self._down = before = down

    def stop(self) -> None:
        """Say so, refuse new calls, finish those in hand, let go of connections."""
        self._stopped.set()
        self._health.enter_graceful_shutdown()
        # Whoever balances looks away before calls are refused.
        time.sleep(self._settings.drain_seconds)
        self._server.stop(GRACE).wait()
        self._watch.join()
        if self.http is not None:
            self.http.close()
        self._retrieval.close()
        self._backend.close()
        self.observer.close()


def connection_ages(seconds: float) -> tuple[tuple[str, int], ...]:
    """Return the options that end a connection after some seconds, its calls finished."""
    if not seconds:
        return ()
    return (
        ("grpc.max_connection_age_ms", round(1000 * seconds)),
        ("grpc.max_connection_age_grace_ms", round(1000 * GRACE)),
    )


def page_keys(settings: GatewaySettings) -> list[bytes]:
    """Return the keys of page tokens, the newest first.

    Raises
    ------
    Misconfigured
        One cannot be read.
    """
    files = settings.page_key_files or (settings.patient_key_file,)
    return [load_key(file) for file in files]
