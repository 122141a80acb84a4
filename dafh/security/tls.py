"""Server certificates, replaced without a restart; and the client's side of mutual TLS."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import grpc

from dafh.errors import Misconfigured, Reason
from dafh.security.keys import read_secret
from dafh.security.watched import Watched


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of one side of TLS."""

    #: Ours, with what stands between it and its CA.
    certificate: Path
    #: Its private key; its owner alone may read it.
    key: Path
    #: Who may have signed the other side's certificate; ``None`` where it need not have one.
    ca: Path | None = None


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Return what a gRPC server proves itself with; the files are looked at for every new client.

    With a CA every client must have a certificate that it has signed.

    Raises
    ------
    Misconfigured
        A file is missing, unsafe, or not what it should be.
    """
    watched = Watched(_all(files), lambda: _configuration(files))

    def fetch() -> grpc.ServerCertificateConfiguration:
        configuration, changed = watched.get()
        # gRPC goes on with what it has where it gets none, which its type does not say.
        return configuration if changed else cast("grpc.ServerCertificateConfiguration", None)

    return grpc.dynamic_ssl_server_credentials(
        watched.get()[0], fetch, require_client_authentication=files.ca is not None
    )


def client_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """Return what a gRPC client proves itself with.

    Raises
    ------
    Misconfigured
        As in `server_credentials`.
    """
    key, certificate, ca = _read(files)
    return grpc.ssl_channel_credentials(ca, key, certificate)


def _all(files: TlsFiles) -> tuple[Path, ...]:
    return tuple(file for file in (files.certificate, files.key, files.ca) if file is not None)


def _configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    key, certificate, ca = _read(files)
    return grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=ca)


def _read(files: TlsFiles) -> tuple[bytes, bytes, bytes | None]:
    key = read_secret(files.key)
    try:
        # gRPC would take any bytes and say later, to its own log, that they are none.
        # Without a password it would ask for one on the terminal.
        context = ssl.create_default_context(cafile=files.ca)
        context.load_cert_chain(files.certificate, files.key, password="")
        certificate = files.certificate.read_bytes()
        ca = files.ca.read_bytes() if files.ca else None
    except OSError as error:
        why = "are not a certificate, its key and a CA in PEM"
        if not isinstance(error, ssl.SSLError):
            why = f"cannot be read ({error.strerror})"
        raise Misconfigured(
            Reason.SETTING_INVALID,
            f"The files for TLS {why}.",
            remedy="Mount the certificate, the key and the CA that were made for this service.",
            subject="tls_certificate",
        ) from None
    return key.encode(), certificate, ca
