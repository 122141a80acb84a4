"""Images go to Triton over mutual TLS, or do not leave this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trustme

from dafh.client import Client
from dafh.errors import DafhError, Misconfigured, Reason
from dafh.imaging.phantom import phantoms
from dafh.security.settings import is_local
from dafh.stack import Stack
from dafh_gateway.server import Gateway
from tests.chaos.triton import Triton
from tests.gateway.conftest import beside

NAME = "triton.example"
IMAGE = next(iter(phantoms(1, 72))).data


@pytest.mark.parametrize(
    ("target", "local"),
    [
        ("127.0.0.1:8001", True),
        ("localhost:8001", True),
        ("ipv4:127.0.0.1:1,127.0.0.2:2", True),
        ("dns:///localhost:8001", True),
        ("[::1]:8001", True),
        ("ipv4:127.0.0.1:1,10.0.0.2:2", False),
        ("dns:///triton:8001", False),
        ("dns://8.8.8.8/localhost.example:8001", False),
        ("10.0.0.4:8001", False),
        ("triton", False),
    ],
)
def test_a_target_is_local_or_not(target: str, local: bool) -> None:
    assert is_local(target) is local


def issue(folder: Path, ca: trustme.CA, name: str) -> dict[str, str]:
    leaf = ca.issue_cert(NAME if name == "server" else f"{name}.example")
    paths = {}
    for kind, content in (
        ("key", leaf.private_key_pem.bytes()),
        ("certificate", leaf.cert_chain_pems[0].bytes()),
    ):
        path = folder / f"{name}-{kind}.pem"
        path.write_bytes(content)
        path.chmod(0o600)
        paths[kind] = str(path)
    return paths


@pytest.mark.stack
def test_plaintext_beyond_this_machine_is_refused(stack: Stack) -> None:
    with pytest.raises(Misconfigured) as caught:
        Gateway(beside(stack, triton_address="dns:///triton.example:8001"))
    assert caught.value.reason is Reason.INSECURE_ADDRESS


@pytest.mark.stack
def test_images_go_over_mutual_tls(stack: Stack, tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    server, ours = issue(tmp_path, ca, "server"), issue(tmp_path, ca, "gateway")
    other = issue(tmp_path, trustme.CA(), "stranger")
    (tmp_path / "triton").mkdir()
    triton = Triton(tmp_path / "triton")
    try:
        triton.spawn(
            "--grpc-use-ssl=1", f"--grpc-server-cert={server['certificate']}",
            f"--grpc-server-key={server['key']}", f"--grpc-root-cert={tmp_path / 'ca.pem'}",
            "--grpc-use-ssl-mutual=1",
        )  # fmt: skip

        def encode(who: dict[str, str]) -> Any:  # noqa: ANN401 - a message
            settings = beside(
                stack, triton_address=triton.address, triton_ca=tmp_path / "ca.pem",
                triton_certificate=who["certificate"], triton_key=who["key"],
                triton_server_name=NAME, audit=False,
            )  # fmt: skip
            gateway = Gateway(settings)
            try:
                with Client(f"127.0.0.1:{gateway.port}", timeout=30) as client:
                    return client.encode(dicom=IMAGE)
            finally:
                gateway.stop()

        triton.await_(lambda: encode(ours))
        assert encode(ours).hashes
        with pytest.raises(DafhError) as caught:
            encode(other)
        assert caught.value.reason is Reason.ENCODER_UNAVAILABLE
    finally:
        triton.kill()
