"""TLS and mutual TLS on a real port; certificates replaced under way; what is refused to start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509

from dafh.client import Client, Target, Tls
from dafh.errors import DafhError, Misconfigured, Reason
from dafh.security.accounts import Account, AccountFile, new_token, token_hash
from dafh.security.identity import Role
from dafh.stack import Stack
from dafh_gateway.server import Gateway
from tests.gateway.conftest import beside

pytestmark = pytest.mark.stack
NAME = "gateway.example"
TOKEN = new_token()


@dataclass
class Site:
    """A CA, a gateway's files and its accounts."""

    folder: Path
    ca: trustme.CA

    def issue(self, ca: trustme.CA | None = None) -> trustme.LeafCert:
        """Give the gateway a new certificate, as a mounted Secret would be replaced."""
        leaf = (ca or self.ca).issue_cert(NAME)
        for name, content in (
            ("key.pem", leaf.private_key_pem.bytes()),
            ("certificate.pem", b"".join(blob.bytes() for blob in leaf.cert_chain_pems)),
        ):
            draft = self.folder / f"{name}.part"
            draft.write_bytes(content)
            draft.chmod(0o600)
            draft.replace(self.folder / name)
        return leaf

    def settings(self, **other: Any) -> dict[str, Any]:  # noqa: ANN401 - any setting
        return {
            "tls_certificate": self.folder / "certificate.pem",
            "tls_key": self.folder / "key.pem",
            "accounts": self.folder / "accounts.json",
        } | other

    @property
    def ca_pem(self) -> bytes:
        return self.ca.cert_pem.bytes()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    accounts = (
        Account(subject="app", tenant="default", roles=frozenset({Role.READER}),
                token_sha256=token_hash(TOKEN)),
        Account(subject="viewer", tenant="default", roles=frozenset({Role.READER}),
                certificate="viewer.example"),
    )  # fmt: skip
    file = tmp_path / "accounts.json"
    file.write_text(AccountFile(accounts=accounts).model_dump_json())
    file.chmod(0o600)
    made = Site(tmp_path, trustme.CA())
    made.issue()
    made.ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    return made


Serve = Callable[..., str]


@pytest.fixture
def serve(stack: Stack, site: Site) -> Iterator[Serve]:
    with ExitStack() as running:

        def serve(**settings: Any) -> str:  # noqa: ANN401 - any setting
            gateway = Gateway(beside(stack, **site.settings(**settings)))
            running.callback(gateway.stop)
            return f"127.0.0.1:{gateway.port}"

        yield serve


def client(address: str, tls: Tls | None, token: str | None = TOKEN) -> Client:
    send = None if token is None else (lambda: token)
    return Client(Target(address, tls=tls, token=send, retry=False), timeout=5)


def reason(opened: Client) -> Reason | None:
    with opened:
        try:
            opened.list_models()
        except DafhError as error:
            return error.reason
    return None


def test_a_token_over_tls_lets_in(serve: Serve, site: Site) -> None:
    address, tls = serve(), Tls(ca=site.ca_pem, server_name=NAME)
    assert reason(client(address, tls)) is None
    assert reason(client(address, tls, token="wrong")) is Reason.UNAUTHENTICATED  # noqa: S106 - none of anybody
    assert reason(client(address, tls, token=None)) is Reason.UNAUTHENTICATED


def test_who_does_not_trust_or_encrypt_gets_nothing(serve: Serve, site: Site) -> None:
    address = serve()
    other = Tls(ca=trustme.CA().cert_pem.bytes(), server_name=NAME)
    assert reason(client(address, other)) is Reason.GATEWAY_UNAVAILABLE
    assert reason(client(address, None, token=None)) is Reason.GATEWAY_UNAVAILABLE
    with pytest.raises(ValueError, match="over TLS only"):
        client(address, None)


def test_mutual_tls_wants_a_certificate_of_its_ca(serve: Serve, site: Site) -> None:
    address = serve(tls_client_ca=site.folder / "ca.pem")

    def by(ca: trustme.CA, name: str) -> Tls:
        leaf = ca.issue_cert(name)
        return Tls(
            ca=site.ca_pem, server_name=NAME, key=leaf.private_key_pem.bytes(),
            certificate=leaf.cert_chain_pems[0].bytes(),
        )  # fmt: skip

    assert reason(client(address, by(site.ca, "viewer.example"), token=None)) is None
    unknown = client(address, by(site.ca, "unknown.example"), token=None)
    assert reason(unknown) is Reason.UNAUTHENTICATED
    foreign = client(address, by(trustme.CA(), "viewer.example"), token=None)
    assert reason(foreign) is Reason.GATEWAY_UNAVAILABLE
    nobody = client(address, Tls(ca=site.ca_pem, server_name=NAME))
    assert reason(nobody) is Reason.GATEWAY_UNAVAILABLE


def test_a_certificate_is_replaced_without_a_restart(serve: Serve, site: Site) -> None:
    address = serve()
    assert reason(client(address, Tls(ca=site.ca_pem, server_name=NAME))) is None
    new = trustme.CA()
    site.issue(new)
    assert reason(client(address, Tls(ca=new.cert_pem.bytes(), server_name=NAME))) is None
    old = client(address, Tls(ca=site.ca_pem, server_name=NAME))
    assert reason(old) is Reason.GATEWAY_UNAVAILABLE
    # What is half written is not taken over.
    (site.folder / "certificate.pem").write_text("half")
    assert reason(client(address, Tls(ca=new.cert_pem.bytes(), server_name=NAME))) is None


@pytest.mark.parametrize("left_out", [("tls_certificate", "tls_key"), ("accounts",), ("tls_key",)])
def test_it_does_not_listen_beyond_loopback_without_both(
    stack: Stack, site: Site, left_out: tuple[str, ...]
) -> None:
    settings = site.settings(listen="0.0.0.0:0")
    for name in left_out:
        del settings[name]
    with pytest.raises(Misconfigured) as caught:
        Gateway(beside(stack, **settings))
    assert caught.value.reason in {Reason.INSECURE_ADDRESS, Reason.SETTING_INVALID}


def test_it_listens_beyond_loopback_with_both(stack: Stack, site: Site) -> None:
    settings = beside(stack, **site.settings(listen="10.1.2.3:1"))
    settings.require_safety()


def test_a_key_that_others_can_read_is_refused(stack: Stack, site: Site) -> None:
    (site.folder / "key.pem").chmod(0o644)
    with pytest.raises(Misconfigured) as caught:
        Gateway(beside(stack, **site.settings()))
    assert caught.value.reason is Reason.KEY_UNSAFE


def test_a_certificate_of_another_key_is_refused(stack: Stack, site: Site) -> None:
    other = site.ca.issue_cert(NAME)
    (site.folder / "key.pem").write_bytes(other.private_key_pem.bytes())
    (site.folder / "key.pem").chmod(0o600)
    with pytest.raises(Misconfigured) as caught:
        Gateway(beside(stack, **site.settings()))
    assert caught.value.reason is Reason.SETTING_INVALID


def test_certificates_are_what_they_say(site: Site) -> None:
    """The test's own certificates name the gateway: else nothing above would prove anything."""
    chain = x509.load_pem_x509_certificates((site.folder / "certificate.pem").read_bytes())
    names = chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [NAME]
