"""How a client reaches a gateway: TLS, token, limits, retries."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import grpc

MAX_MESSAGE = 64 * 1024 * 1024

#: Every call may be repeated: what is written is written by primary key. Where a gateway says how
#: long to wait it is that long, else it is the backoff. A stream is repeated until its first answer
#: only, from what it has sent. The throttle keeps clients from making a bad hour worse.
SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": f"dafh.v1.{name}"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.2s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
            },
        }
        for name in ("RetrievalService", "ArchiveService", "ModelService")
    ],
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
}


@dataclass(frozen=True, slots=True)
class Tls:
    """What a client and a gateway recognise each other by, PEM."""

    #: Who may have signed the gateway's certificate; ``None`` for whom the system trusts.
    ca: bytes | None = None
    #: The client's own certificate and its key, for mutual TLS.
    certificate: bytes | None = None
    key: bytes | None = None
    #: Name in the gateway's certificate, where it is not the host of the address.
    server_name: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """A gateway, and how to reach it.

    Parameters
    ----------
    address
        ``host:port``, or any gRPC target such as ``dns:///gateway:50051``.
    tls
        Without it nothing is encrypted, which a gateway takes on loopback only.
    token
        Returns the token to send; asked before every call, so that it may be renewed.
    retry
        Whether failed calls are repeated.
    """

    address: str
    tls: Tls | None = None
    token: Callable[[], str] | None = None
    retry: bool = True

    @property
    def options(self) -> list[tuple[str, int | str]]:
        """Options of the channel."""
        options: list[tuple[str, int | str]] = [
            # Images go to the gateway and to nobody between.
            ("grpc.enable_http_proxy", 0),
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.max_send_message_length", MAX_MESSAGE),
            ("grpc.lb_policy_name", "round_robin"),
            # A connection of its own: of a gateway of several processes each gets some.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1_000),
            ("grpc.enable_retries", int(self.retry)),
            # What is kept of a call to be sent again. By default less than an image has, which
            # would never be.
            ("grpc.per_rpc_retry_buffer_size", MAX_MESSAGE),
            ("grpc.service_config", json.dumps(SERVICE_CONFIG if self.retry else {})),
        ]
        if self.tls is not None and self.tls.server_name:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return options

    @property
    def credentials(self) -> grpc.ChannelCredentials | None:
        """Credentials of the channel; ``None`` for plaintext.

        Raises
        ------
        ValueError
            A token would be sent in plaintext.
        """
        if self.tls is None:
            if self.token is not None:
                raise ValueError("a token is sent over TLS only: give tls as well")
            return None
        channel = grpc.ssl_channel_credentials(self.tls.ca, self.tls.key, self.tls.certificate)
        if self.token is None:
            return channel
        return grpc.composite_channel_credentials(
            channel, grpc.metadata_call_credentials(_Bearer(self.token))
        )


class _Bearer(grpc.AuthMetadataPlugin):
    """Sends the token that the caller gives."""

    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    def __call__(
        self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback
    ) -> None:
        del context
        callback((("authorization", f"Bearer {self._token()}"),), None)
