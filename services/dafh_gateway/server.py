"""The gRPC server: services, health, and a watch over Triton and Milvus."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from dafh.errors import Misconfigured, Reason
from dafh.v1 import (
    archive_service_pb2_grpc,
    model_service_pb2_grpc,
    retrieval_service_pb2_grpc,
)
from dafh_gateway.backend import Backend
from dafh_gateway.handlers import ArchiveService, ModelService, RetrievalService
from dafh_gateway.settings import GatewaySettings

#: Health service names: the process itself, and what needs Triton and Milvus to answer.
PROCESS = ""
SERVICES = ("dafh.v1.RetrievalService", "dafh.v1.ArchiveService", "dafh.v1.ModelService")
#: Seconds that calls in hand get to finish when the server stops.
GRACE = 10.0
#: Seconds within which Triton and Milvus each must answer the watch.
WATCH_SECONDS = 2.0

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
        The address is not loopback, or taken; the patient key cannot be read; the decoder
        processes cannot be started.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        settings.require_loopback()
        self._settings = settings
        self._server = grpc.server(
            ThreadPoolExecutor(settings.threads, thread_name_prefix="call"),
            maximum_concurrent_rpcs=settings.max_calls,
            options=[
                ("grpc.max_receive_message_length", settings.max_message),
                ("grpc.max_send_message_length", settings.max_message),
                # Two gateways must not share a port by accident.
                ("grpc.so_reuseport", 0),
            ],
        )
        try:
            #: The port that is served.
            self.port = self._server.add_insecure_port(settings.listen)
        except RuntimeError:
            raise Misconfigured(
                Reason.PORT_IN_USE,
                f"The gateway cannot listen on {settings.listen}: the port is taken.",
                remedy="Stop what holds it, or set DAFH_LISTEN.",
            ) from None
        # The port comes first: what fails behind it leaves no process and no connection.
        self._backend = Backend(settings)
        self._health = health.HealthServicer()
        self._register()
        self._server.start()
        self._stopped = threading.Event()
        self._watch = threading.Thread(target=self._watch_or_say_so, name="watch", daemon=True)
        self._watch.start()

    def _register(self) -> None:
        seconds = self._settings.default_deadline
        retrieval_service_pb2_grpc.add_RetrievalServiceServicer_to_server(
            RetrievalService(self._backend, seconds), self._server
        )
        archive_service_pb2_grpc.add_ArchiveServiceServicer_to_server(
            ArchiveService(self._backend, seconds, self._settings.idle_stream), self._server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            ModelService(self._backend, seconds), self._server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._health.set(PROCESS, health_pb2.HealthCheckResponse.SERVING)
        self._set_services(serving=False)

    def _set_services(self, *, serving: bool) -> None:
        states = health_pb2.HealthCheckResponse
        for service in SERVICES:
            self._health.set(service, states.SERVING if serving else states.NOT_SERVING)

    def _watch_or_say_so(self) -> None:
        """Keep watch; whatever ends it, nobody is left to believe the last word."""
        try:
            self._keep_watch()
        finally:
            self._set_services(serving=False)

    def _keep_watch(self) -> None:
        """Set the services' health by what Triton and Milvus say; log each change."""
        before: list[str] | None = None
        while not self._stopped.wait(0 if before is None else self._settings.watch_interval):
            down = self._backend.down(WATCH_SECONDS)
            if down != before:
                _log.log(logging.WARNING if down else logging.INFO, "watch", extra={"down": down})
            self._set_services(serving=not down)
            before = down

    def stop(self) -> None:
        """Refuse new calls, finish those in hand, let go of connections."""
        self._stopped.set()
        self._health.enter_graceful_shutdown()
        self._server.stop(GRACE).wait()
        self._watch.join()
        self._backend.close()
