from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from dafh.security.keys import create_key
from dafh.v1 import archive_service_pb2, archive_service_pb2_grpc
from dafh_gateway.server import Gateway
from dafh_gateway.settings import GatewaySettings


@pytest.fixture
def lonely(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway without Triton and Milvus."""
    create_key(tmp_path / "patient.key")
    settings = GatewaySettings(
        listen="127.0.0.1:0",
        triton_address="127.0.0.1:1",
        milvus_uri="http://127.0.0.1:1",
        patient_key_file=tmp_path / "patient.key",
        idle_stream=0.5,
    )
    gateway = Gateway(settings)
    yield gateway
    gateway.stop()


def test_a_stream_that_sends_nothing_is_ended(lonely: Gateway) -> None:
    never = threading.Event()

    def silence() -> Iterator[archive_service_pb2.IndexCasesRequest]:
        never.wait(30)
        yield archive_service_pb2.IndexCasesRequest()

    with grpc.insecure_channel(f"127.0.0.1:{lonely.port}") as channel:
        stub = archive_service_pb2_grpc.ArchiveServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.IndexCases(silence(), timeout=20))
        never.set()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
