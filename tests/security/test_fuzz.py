"""Every method is sent what its proto allows and what it does not: none is at fault, or ends."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from dafh.client import Client
from dafh.errors import Reason
from dafh.imaging.phantom import phantoms
from dafh.stack import Stack
from dafh_gateway.server import DESCRIPTORS
from dafh_gateway.statuses import REASONS
from tests.gateway.filled import PREFERRED, fill

pytestmark = pytest.mark.stack
METHODS = [method for one in DESCRIPTORS for method in one.methods]
IMAGE = next(iter(phantoms(1, 76))).data
#: Values of which a fault may hang: limits, signs, and what somebody may have meant.
NUMBERS = (0, 1, -1, 2, 10, 64, 1000, 1001, 2**31 - 1, -(2**31))
WIDE = (*NUMBERS, 2**63 - 1, -(2**63))
TEXTS = (
    "", "archives/fuzzed", "archives/default", "archives/nowhere", "models/1", "models/999999999",
    "archives/fuzzed/cases/" + "0" * 32, "x", "../../etc/passwd", "\0", "é", "A" * 5000,
    'modality = "CT"', 'modality = "CT" AND (', "%s%n{}", "' OR 1 == 1 --", "1.2.3", "0" * 64,
)  # fmt: skip
BLOBS = (b"", b"\0", bytes(8), b"DICM", IMAGE, IMAGE[:1000], b"\x89PNG\r\n\x1a\n", bytes(100_000))
#: What leads further than the first check; each is taken more often than not.
PLAUSIBLE: dict[str, Any] = {
    "archive": "archives/fuzzed", "parent": "archives/fuzzed", "archive_id": "fuzzed-more",
    "page_token": "", "filter": 'modality = "CT"', "paths": "hits.distance", "view": 0,
    "dicom": IMAGE, "bits": 64, "model_version": PREFERRED, "top_k": 5, "page_size": 2,
    "code": bytes(8),
    "max_hits_per_patient": 2, "max_hits_per_series": 2, "max_distance": 40, "etag": "",
    "size_bytes": len(IMAGE), "format": 1, "offset": 0, "number": 1, "rule": 1,
}  # fmt: skip
NAMES = {"Case": "archives/fuzzed/cases/" + "0" * 32, "Archive": "archives/fuzzed"}
#: Codes that say that the service itself is at fault.
FAULTS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS}


def number(pick: random.Random, field: FieldDescriptor) -> Any:  # noqa: ANN401 - what the field holds
    if field.name in PLAUSIBLE and pick.random() < 0.8:
        return PLAUSIBLE[field.name]
    if field.name in ("name", "names", "case") and pick.random() < 0.8:
        return pick.choice(list(NAMES.values()))
    kind = FieldDescriptor
    choose: dict[int, Callable[[], Any]] = {
        kind.CPPTYPE_INT32: lambda: pick.choice(NUMBERS),
        kind.CPPTYPE_INT64: lambda: pick.choice(WIDE),
        kind.CPPTYPE_UINT32: lambda: pick.choice([0, 1, 2**32 - 1]),
        kind.CPPTYPE_BOOL: lambda: pick.random() < 0.5,
        kind.CPPTYPE_FLOAT: lambda: pick.choice([0.0, 1.0, -1.0, 2.0, float("nan"), float("inf")]),
        kind.CPPTYPE_DOUBLE: lambda: pick.choice([0.0, 1.0, float("nan"), float("-inf")]),
        kind.CPPTYPE_ENUM: lambda: pick.choice([0, 1, 2, 3, 77, -1]),
        kind.CPPTYPE_STRING: lambda: pick.choice(TEXTS) if field.type == kind.TYPE_STRING
        else pick.choice(BLOBS),
    }  # fmt: skip
    return choose[field.cpp_type]()


def fuzzed(pick: random.Random, descriptor: Descriptor, depth: int = 0) -> Message:
    """Return a message with some of its fields set to something."""
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if pick.random() < 0.5 or depth > 5:
            continue
        if field.is_repeated:
            for _ in range(pick.choice([0, 1, 2, 5])):
                if field.message_type is not None:
                    part = fuzzed(pick, field.message_type, depth + 1)
                    getattr(message, field.name).append(part)
                else:
                    getattr(message, field.name).append(number(pick, field))
        elif field.message_type is not None:
            part = fuzzed(pick, field.message_type, depth + 1)
            getattr(message, field.name).CopyFrom(part)
        else:
            setattr(message, field.name, number(pick, field))
    return message


def wire(pick: random.Random, method: MethodDescriptor) -> list[bytes]:
    """Return one message, or some of a stream, now and then damaged on the way."""
    count = pick.choice([0, 1, 2, 4]) if method.client_streaming else 1
    made = [fuzzed(pick, method.input_type).SerializeToString() for _ in range(count)]
    if made and pick.random() < 0.1:
        damaged = bytearray(made[0] or b"\0")
        damaged[pick.randrange(len(damaged))] ^= 1 << pick.randrange(8)
        made[0] = bytes(damaged)
    return made


def outcome(channel: grpc.Channel, method: MethodDescriptor, messages: list[bytes]) -> str:
    call: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
        f"/{method.containing_service.full_name}/{method.name}"
    )
    try:
        for _ in call(iter(messages), timeout=60):
            continue
    except grpc.RpcError as error:
        return _judged(error)
    return "OK"


def _judged(error: Any) -> str:  # noqa: ANN401 - an error is a call as well
    status = rpc_status.from_call(error)
    if status is None or not status.details:
        return f"{error.code().name}: {error.details()}"
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.reason in set(REASONS)
    assert error.code() not in FAULTS, f"{error.code().name} {info.reason}"
    return info.reason


@pytest.fixture(scope="module")
def channel(stack: Stack) -> Iterator[grpc.Channel]:
    with Client(stack.gateway.address, timeout=60) as client:
        client.create_archive("fuzzed")
        fill(client, "fuzzed", 4, 75)
    with grpc.insecure_channel(stack.gateway.address) as opened:
        yield opened


def run(channel: grpc.Channel, stack: Stack, method: MethodDescriptor, count: int) -> None:
    pick = random.Random(f"{method.full_name} {count}")  # noqa: S311 - not a secret
    sent = [wire(pick, method) for _ in range(count)]
    with ThreadPoolExecutor(4) as pool:
        outcomes = Counter(pool.map(lambda one: outcome(channel, method, one), sent))
    assert set(outcomes) <= set(REASONS) | {"OK"}, outcomes
    assert Reason.INTERNAL not in outcomes
    with Client(stack.gateway.address, timeout=60) as client:
        assert client.list_models()


@pytest.mark.parametrize("method", METHODS, ids=lambda one: one.name)
def test_no_message_is_the_services_fault(
    channel: grpc.Channel, stack: Stack, method: MethodDescriptor
) -> None:
    run(channel, stack, method, 40)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("method", METHODS, ids=lambda one: one.name)
def test_ten_thousand_messages_are_not_the_services_fault(
    channel: grpc.Channel, stack: Stack, method: MethodDescriptor
) -> None:
    run(channel, stack, method, 10_000 // len(METHODS) + 1)
