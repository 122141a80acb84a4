"""The running stack's archive, looked at directly, and gateways of other settings beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from dafh.client import Client
from dafh.deadline import Deadline
from dafh.encoding.triton import TritonEncoder
from dafh.imaging.image import PatientKeyer
from dafh.index.case import DEFAULT_ARCHIVE, DEFAULT_TENANT, Coding
from dafh.index.milvus import MilvusIndex
from dafh.security.keys import load_key
from dafh.stack import Stack
from dafh_gateway.server import Gateway
from dafh_gateway.settings import GatewaySettings

StartGateway = Callable[..., Client]


@pytest.fixture
def archive(stack: Stack) -> Iterator[MilvusIndex]:
    encoder = TritonEncoder(stack.triton.address, stack.model_version)
    model = encoder.model
    encoder.close()
    coding = Coding(
        tenant=DEFAULT_TENANT,
        archive=DEFAULT_ARCHIVE,
        model_hash=model.hash,
        model_version=model.version,
        bits=stack.bits,
        key_id=PatientKeyer(load_key(stack.patient_key_file), DEFAULT_TENANT).key_id,
    )
    index = MilvusIndex.open_or_create(stack.milvus_uri, coding, Deadline.after(10))
    yield index
    index.close()


def beside(stack: Stack, **settings: Any) -> GatewaySettings:  # noqa: ANN401 - any setting's
    """Return the settings of a gateway on the servers of a stack."""
    values: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "triton_address": stack.triton.address,
        "milvus_uri": stack.milvus_uri,
        "patient_key_file": stack.patient_key_file,
        "decode_workers": 1,
    }
    return GatewaySettings(**(values | settings))


@pytest.fixture(scope="module")
def start(stack: Stack) -> Iterator[StartGateway]:
    """Start gateways of other settings on the stack's Triton and Milvus; return clients of them."""
    with ExitStack() as running:

        def start(**settings: Any) -> Client:  # noqa: ANN401 - as above
            gateway = Gateway(beside(stack, **settings))
            running.callback(gateway.stop)
            return running.enter_context(Client(f"127.0.0.1:{gateway.port}", timeout=60))

        yield start


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[Client]:
    """Return a client of the stack's own gateway."""
    with Client(stack.gateway.address, timeout=60) as opened:
        yield opened
