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
from tests.gateway.conftest import beside
from tests.security.triton import TlsTriton

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


@pytest.mark.stack
def test_plaintext_beyond_this_machine_is_refused(stack: Stack) -> None:
    with pytest.raises(Misconfigured) as caught:
        Gateway(beside(stack, triton_address="dns:///triton.example:8001"))
    assert caught.value.reason is Reason.INSECURE_ADDRESS


@pytest.mark.stack
def test_images_go_over_mutual_tls(stack: Stack, tmp_path: Path) -> None:
    with TlsTriton(tmp_path / "triton") as triton:

        def encode(settings: dict[str, str]) -> Any:  # noqa: ANN401 - a message
            gateway = Gateway(beside(stack, **settings, audit=False))
            try:
                with Client(f"127.0.0.1:{gateway.port}", timeout=30) as client:
                    return client.encode(dicom=IMAGE)
            finally:
                gateway.stop()

        assert encode(triton.settings("gateway")).hashes
        with pytest.raises(DafhError) as caught:
            encode(triton.settings("stranger", trustme.CA()))
        assert caught.value.reason is Reason.ENCODER_UNAVAILABLE
