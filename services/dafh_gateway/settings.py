"""Settings of the gateway."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from dafh.errors import Misconfigured, Reason
from dafh.imaging.limits import MEBIBYTE
from dafh.security.settings import SecuritySettings, TritonTlsSettings, is_loopback
from dafh.settings import (
    DecodeSettings,
    MilvusSettings,
    ModelSettings,
    PatientKeySettings,
    TritonSettings,
    processors,
)
from dafh.telemetry.settings import TelemetrySettings


class LoadSettings(DecodeSettings):
    """How much is taken at once; more is refused with RESOURCE_EXHAUSTED."""

    #: Calls in hand, and how many of them one tenant may have.
    max_calls: int = Field(default=64, ge=1)
    max_calls_per_tenant: int = Field(default=48, ge=1)
    #: Open streams of `IndexCases`, and those of one tenant.
    max_streams: int = Field(default=16, ge=1)
    max_streams_per_tenant: int = Field(default=8, ge=1)
    #: Queries that each process works on at once; further ones wait in line. With one more than
    #: processors none of these idles while an answer goes from process to process; still more only
    #: make each slower where Triton and Milvus compute on the same ones.
    max_queries: int = Field(default_factory=lambda: processors() + 1, ge=1)
    #: Calls to Triton and to Milvus at once.
    max_inferences: int = Field(default=16, ge=1)
    max_searches: int = Field(default=16, ge=1)
    #: Queries that may wait in line in a burst; fewer than one tenant's calls, so that the line and
    #: not the door says who is refused.
    max_waiting: int = Field(default=40, ge=1)
    #: Seconds for which a line is a burst: one that has stood for longer, never empty, is a flood
    #: until it pauses for a tenth of that, and kept at two calls for each place
    #: (`dafh_gateway.line`).
    patience: float = Field(default=1.0, gt=0)
    #: Bytes that messages and uploads in hand may take together.
    memory_budget: int = Field(default=1024 * MEBIBYTE, ge=64 * MEBIBYTE)
    #: Seconds that a call waits for its share of them.
    memory_patience: float = Field(default=10.0, gt=0)
    #: Largest message, bytes: above every limit of a handler, so that the handler refuses.
    max_message: int = 64 * MEBIBYTE
    #: Largest image, bytes, of `IndexCases`, of all of a `BatchRetrieve`, and of an upload; of one
    #: `Retrieve` or `Encode` it is ``DAFH_LIMITS__REQUEST_BYTES``.
    max_indexed_bytes: int = 60 * MEBIBYTE
    max_batch_bytes: int = 60 * MEBIBYTE
    max_upload_bytes: int = 256 * MEBIBYTE
    #: Seconds a call may take when the client sets no deadline.
    default_deadline: float = Field(default=30.0, gt=0)
    #: Seconds that an open stream may wait for its next image before it is ended.
    idle_stream: float = Field(default=60.0, gt=0)


class GatewaySettings(
    LoadSettings,
    SecuritySettings,
    TelemetrySettings,
    ModelSettings,
    TritonSettings,
    TritonTlsSettings,
    MilvusSettings,
    PatientKeySettings,
):
    """What the gateway needs to start."""

    #: ``host:port`` to serve gRPC on; port 0 takes a free one.
    listen: str = "127.0.0.1:50051"
    #: Files with the keys of page tokens (64 hexadecimal digits, mode 0600), the newest first; the
    #: same in all replicas. Without one, a key made from the patient key.
    page_key_files: tuple[Path, ...] = ()
    #: WADO-RS address of a frame, with {study}, {series}, {instance} and {frame}.
    retrieve_uri: str = ""
    #: Processes that share the port, each with its own decoders; 1 for one, in this process.
    processes: int = Field(default=1, ge=1, le=256)
    #: Seconds after which a connection is ended, its calls finished, so that clients find replicas
    #: that came later; 0 for never.
    connection_age: float = Field(default=0.0, ge=0)
    #: Seconds between looks at Triton and Milvus.
    watch_interval: float = Field(default=0.5, gt=0)
    #: Seconds between saying that it stops and refusing new calls: as a balancer needs to look.
    drain_seconds: float = Field(default=0.0, ge=0)
    #: ``host:port`` of probes and metrics over HTTP, "" for none; it has no patient data and asks
    #: nobody. Several processes have the ports after it on loopback, and answer there as one.
    http_listen: str = ""

    def require_safety(self) -> None:
        """Refuse to serve beyond this machine in plaintext, or whoever comes.

        Raises
        ------
        Misconfigured
            `listen` is not a loopback address, and TLS or authentication is missing.
        """
        if self.tls is not None and self.asks:
            return
        if not is_loopback(self.listen.rpartition(":")[0]):
            raise Misconfigured(
                Reason.INSECURE_ADDRESS,
                f"Refusing to listen on {self.listen} without TLS and authentication.",
                remedy="Set DAFH_TLS_CERTIFICATE and DAFH_TLS_KEY, and DAFH_ACCOUNTS or DAFH_JWKS; "
                "or DAFH_LISTEN to a loopback address.",
                subject="listen",
            )
