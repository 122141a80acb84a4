"""Settings of whoever lets callers in."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

import grpc

from dafh.errors import Misconfigured, Reason
from dafh.security.accounts import Accounts
from dafh.security.identity import Anybody, Authenticator, Credentials, Identity
from dafh.security.tls import TlsFiles, client_credentials
from dafh.settings import Settings


class SecuritySettings(Settings):
    """Who is let in, and how the two recognise each other."""

    #: PEM files: our certificate and its key. Both, or plaintext on loopback.
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    #: Who may have signed the certificate that every client must then have.
    tls_client_ca: Path | None = None
    #: File of callers (`dafh token` makes entries), mode 0600.
    accounts: Path | None = None
    #: Where the keys of the identity provider are: ``https://`` or a file.
    jwks: str = ""
    #: What its tokens must name as issuer and as audience.
    jwt_issuer: str = ""
    jwt_audience: str = ""
    #: Claims that tell the caller's tenant and roles.
    jwt_tenant_claim: str = "tenant"
    jwt_roles_claim: str = "roles"

    @property
    def tls(self) -> TlsFiles | None:
        """Our side of TLS.

        Raises
        ------
        Misconfigured
            Only some of its files are named.
        """
        if self.tls_certificate is None and self.tls_key is None and self.tls_client_ca is None:
            return None
        if self.tls_certificate is None or self.tls_key is None:
            raise Misconfigured(
                Reason.SETTING_INVALID,
                "TLS needs a certificate and its key.",
                remedy="Set DAFH_TLS_CERTIFICATE and DAFH_TLS_KEY.",
                subject="tls_certificate",
            )
        return TlsFiles(self.tls_certificate, self.tls_key, self.tls_client_ca)

    @property
    def asks(self) -> bool:
        """Whether callers must prove who they are."""
        return self.accounts is not None or bool(self.jwks)

    def authenticator(self) -> Authenticator:
        """Return what tells callers.

        Raises
        ------
        Misconfigured
            A file cannot be read, or a provider is named without what its tokens must say.
        """
        ways: list[Authenticator] = []
        if self.accounts is not None:
            ways.append(Accounts(self.accounts))
        if self.jwks:
            if not (self.jwt_issuer and self.jwt_audience):
                raise Misconfigured(
                    Reason.SETTING_INVALID,
                    "Tokens of an identity provider are checked for issuer and audience.",
                    remedy="Set DAFH_JWT_ISSUER and DAFH_JWT_AUDIENCE.",
                    subject="jwks",
                )
            # Its libraries come with the gateway only; jobs read their part of these settings too.
            from dafh.security.jwt import Issuer, JwtAuthenticator

            ways.append(
                JwtAuthenticator(
                    Issuer(
                        self.jwks,
                        self.jwt_issuer,
                        self.jwt_audience,
                        self.jwt_tenant_claim,
                        self.jwt_roles_claim,
                    )
                )
            )
        return OneOf(ways) if ways else Anybody()


class TritonTlsSettings(Settings):
    """How Triton and we recognise each other: PEM files, all three, or plaintext on loopback."""

    #: Who has signed Triton's certificate.
    triton_ca: Path | None = None
    #: Ours, and its key.
    triton_certificate: Path | None = None
    triton_key: Path | None = None
    #: Name in Triton's certificate, where it is not the host of the address.
    triton_server_name: str = ""

    def triton_credentials(self, address: str) -> grpc.ChannelCredentials | None:
        """Return what we prove ourselves with to Triton; ``None`` for plaintext.

        Raises
        ------
        Misconfigured
            Images would leave this machine in plaintext, or only some of the files are named.
        """
        match self.triton_ca, self.triton_certificate, self.triton_key:
            case Path() as ca, Path() as certificate, Path() as key:
                return client_credentials(TlsFiles(certificate, key, ca))
            case None, None, None if is_local(address):
                return None
        raise Misconfigured(
            Reason.INSECURE_ADDRESS,
            f"Refusing to send images to Triton at {address} without mutual TLS.",
            remedy="Set DAFH_TRITON_CA, DAFH_TRITON_CERTIFICATE and DAFH_TRITON_KEY, or use Triton "
            "on a loopback address.",
            subject="triton_address",
        )


def is_local(target: str) -> bool:
    """Say whether a gRPC target, such as ``dns:///host:port``, is on this machine alone."""
    addresses = re.sub(r"^(dns:(//[^/]*/)?|ipv4:|ipv6:)", "", target).split(",")
    return all(is_loopback(one.rpartition(":")[0]) for one in addresses)


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine, reached without leaving it."""
    name = host.strip("[]")
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class OneOf:
    """Tells callers in one of several ways.

    Parameters
    ----------
    ways
        Tried in order.
    """

    def __init__(self, ways: list[Authenticator]) -> None:
        self._ways = ways

    def identify(self, credentials: Credentials) -> Identity | None:
        """Return who brings these credentials."""
        for way in self._ways:
            identity = way.identify(credentials)
            if identity is not None:
                return identity
        return None
