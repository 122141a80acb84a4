"""Settings of the gateway."""

from __future__ import annotations

import ipaddress

from dafh.errors import Misconfigured, Reason
from dafh.settings import (
    DecodeSettings,
    MilvusSettings,
    ModelSettings,
    PatientKeySettings,
    TritonSettings,
)


class GatewaySettings(
    DecodeSettings, ModelSettings, TritonSettings, MilvusSettings, PatientKeySettings
):
    """What the gateway needs to start."""

    #: ``host:port`` to serve gRPC on; port 0 takes a free one.
    listen: str = "127.0.0.1:50051"
    #: Threads that handle calls.
    threads: int = 8
    #: Calls in hand, waiting ones included; more are refused.
    max_calls: int = 64
    #: Largest message, bytes: above every limit of a handler, so that the handler refuses.
    max_message: int = 64 * 1024 * 1024
    #: Seconds a call may take when the client sets no deadline.
    default_deadline: float = 30.0
    #: Seconds that an open stream may wait for its next image before it is ended.
    idle_stream: float = 60.0
    #: Seconds between looks at Triton and Milvus.
    watch_interval: float = 1.0
    log_level: str = "INFO"

    def require_loopback(self) -> None:
        """Refuse to serve plaintext beyond this machine.

        Raises
        ------
        Misconfigured
            `listen` is not a loopback address.
        """
        host = self.listen.rpartition(":")[0].strip("[]")
        try:
            loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise Misconfigured(
                Reason.INSECURE_ADDRESS,
                f"Refusing to listen on {self.listen} without TLS and authentication.",
                remedy="Set DAFH_LISTEN to a loopback address.",
                subject="listen",
            )
