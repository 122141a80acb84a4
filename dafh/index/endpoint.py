"""Where Milvus serves, and how the two recognise each other.

Beyond this machine it is mTLS always: codes, UIDs and pseudonyms of patients cross this line.
"""

from __future__ import annotations

import base64
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import grpc

from dafh.errors import Misconfigured, Reason
from dafh.index.case import digest
from dafh.security.keys import read_secret
from dafh.settings import MilvusSettings, Tenancy

_FORM = "The Milvus URI must be http://host:port on this machine, or https://host:port."


@dataclass(frozen=True, slots=True)
class Tls:
    """The three files of mutual TLS, PEM."""

    #: Who may have signed the server's certificate.
    ca: Path
    #: Ours, with what stands between it and the server's CA.
    certificate: Path
    #: The certificate's private key; its owner alone may read it.
    key: Path
    #: Name in the server's certificate, where it is not the host of the URI.
    server_name: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One Milvus server, and one database in it."""

    #: ``http://host:port`` on loopback, or ``https://host:port``.
    uri: str
    #: "" is the server's default.
    database: str = ""
    tls: Tls | None = None
    #: File that holds ``user:password`` or a token; its owner alone may read it.
    credentials: Path | None = None

    @property
    def address(self) -> str:
        """``host:port``.

        Raises
        ------
        Misconfigured
            The URI has another form, or would send plaintext beyond this machine.
        """
        parts = urlsplit(self.uri)
        try:
            port = parts.port
        except ValueError:
            port = None
        strange = parts.username or parts.password or parts.path.strip("/") or parts.query
        if parts.scheme not in {"http", "https"} or not parts.hostname or not port or strange:
            raise Misconfigured(Reason.SETTING_INVALID, _FORM, subject="milvus_uri")
        if parts.scheme == "http" and not _is_loopback(parts.hostname):
            raise Misconfigured(
                Reason.INSECURE_ADDRESS,
                f"Refusing to speak plaintext with Milvus on {parts.hostname}.",
                remedy="Use https:// with DAFH_MILVUS_CA, DAFH_MILVUS_CERTIFICATE and "
                "DAFH_MILVUS_KEY, or Milvus on a loopback address.",
                subject="milvus_uri",
            )
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return f"{host}:{port}"

    @property
    def local_port(self) -> int | None:
        """The port where it listens on this machine, in plaintext; ``None`` elsewhere."""
        parts = urlsplit(self.uri)
        return parts.port if parts.scheme == "http" else None

    def channel(self, options: tuple[tuple[str, int | str], ...]) -> grpc.Channel:
        """Open a channel; it connects when it is used first.

        Raises
        ------
        Misconfigured
            The URI is refused, or a file is missing, unsafe or not what it should be.
        """
        if urlsplit(self.uri).scheme != "https":
            return grpc.insecure_channel(self.address, options)
        if self.tls is None:
            raise Misconfigured(
                Reason.SETTING_INVALID,
                "A Milvus URI with https:// needs a CA, a certificate and its key.",
                remedy="Set DAFH_MILVUS_CA, DAFH_MILVUS_CERTIFICATE and DAFH_MILVUS_KEY.",
                subject="milvus_ca",
            )
        if self.tls.server_name:
            options += (("grpc.ssl_target_name_override", self.tls.server_name),)
        return grpc.secure_channel(self.address, _credentials(self.tls), options)

    def authorization(self) -> str:
        """Return the value of the ``authorization`` header, "" without credentials.

        Raises
        ------
        Misconfigured
            The file is missing, unsafe or empty.
        """
        if self.credentials is None:
            return ""
        secret = read_secret(self.credentials)
        if not secret:
            raise Misconfigured(
                Reason.KEY_UNSAFE,
                f"The credentials file {self.credentials} is empty.",
                remedy="Write `user:password` or a token into it.",
            )
        return base64.b64encode(secret.encode()).decode()


def endpoint(settings: MilvusSettings, tenant: str) -> Endpoint:
    """Return the endpoint that settings describe for a tenant.

    Raises
    ------
    Misconfigured
        Some of the three files of mutual TLS are named and some are not, or a database is named
        where each tenant has one.
    """
    database = settings.milvus_database
    if settings.milvus_tenancy is Tenancy.DATABASE:
        if database:
            raise Misconfigured(
                Reason.SETTING_INVALID,
                "DAFH_MILVUS_DATABASE is set, but each tenant has a database of its own.",
                remedy="Unset it, or choose another DAFH_MILVUS_TENANCY.",
                subject="milvus_database",
            )
        database = tenant_database(tenant)
    return Endpoint(
        uri=settings.milvus_uri,
        database=database,
        tls=_tls(settings),
        credentials=settings.milvus_credentials,
    )


def tenant_database(tenant: str) -> str:
    """Return the name of a tenant's database: Milvus takes fewer characters than tenants have."""
    return f"dafh_{digest(tenant)[:32]}"


def _tls(settings: MilvusSettings) -> Tls | None:
    match settings.milvus_ca, settings.milvus_certificate, settings.milvus_key:
        case None, None, None:
            return None
        case Path() as ca, Path() as certificate, Path() as key:
            return Tls(ca, certificate, key, settings.milvus_server_name)
        case _:
            raise Misconfigured(
                Reason.SETTING_INVALID,
                "Mutual TLS with Milvus needs a CA, a certificate and its key; one is not set.",
                remedy="Set DAFH_MILVUS_CA, DAFH_MILVUS_CERTIFICATE and DAFH_MILVUS_KEY, or none "
                "of them for Milvus on this machine.",
                subject="milvus_ca",
            )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    key = read_secret(tls.key)
    try:
        # gRPC would take any bytes and say later, to its own log, that they are none.
        # Without a password it would ask for one on the terminal.
        ssl.create_default_context(cafile=tls.ca).load_cert_chain(
            tls.certificate, tls.key, password=""
        )
        ca, certificate = tls.ca.read_bytes(), tls.certificate.read_bytes()
    except OSError as error:
        why = "are not a CA, a certificate and its key in PEM"
        if not isinstance(error, ssl.SSLError):
            why = f"cannot be read ({error.strerror})"
        raise Misconfigured(
            Reason.SETTING_INVALID,
            f"The files for mutual TLS with Milvus {why}.",
            remedy="Mount the CA, the certificate and the key that were made for this service.",
            subject="milvus_ca",
        ) from None
    return grpc.ssl_channel_credentials(ca, key.encode(), certificate)
