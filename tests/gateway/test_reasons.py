"""Every reason that a caller can be given is given by a real gateway, with its code and details."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from dafh.client import Client, errors
from dafh.deadline import Deadline
from dafh.encoding import triton
from dafh.encoding.port import Encoded
from dafh.errors import DafhError, FailedPrecondition, Internal, InvalidInput, Overloaded, Reason
from dafh.imaging.phantom import phantoms
from dafh.index.archives import Archives
from dafh.index.case import DEFAULT_TENANT
from dafh.index.connection import Connection
from dafh.security.accounts import Account, AccountFile, new_token, token_hash
from dafh.security.keys import create_key
from dafh.stack import Stack
from dafh.v1 import archive_service_pb2, retrieval_service_pb2
from dafh_gateway import messages
from dafh_gateway.backend import Backend
from dafh_gateway.statuses import CODES, REASONS
from tests.gateway.conftest import StartGateway
from tests.gateway.filled import PREFERRED, fill
from tests.gateway.test_bad_input import report_without_pixels
from tests.imaging.instances import write_instance

pytestmark = pytest.mark.stack
IMAGE = next(iter(phantoms(1, 93))).data
NOBODY = new_token()


@dataclass
class World:
    """What a provocation may use."""

    client: Client
    start: StartGateway
    stack: Stack
    folder: Path
    patch: pytest.MonkeyPatch


def encode(data: bytes, **settings: Any) -> Callable[[World], object]:  # noqa: ANN401 - any setting
    def provoke(world: World) -> object:
        client = world.start(**settings) if settings else world.client
        return client.encode(dicom=data)

    return provoke


def failing(error: DafhError, method: str = "encoder") -> Callable[[World], object]:
    """Have what the gateway stands on fail so; no harmless way leads there on real servers."""

    def provoke(world: World) -> object:
        client = world.start()

        def fail(*_arguments: object, **_named: object) -> object:
            raise error

        world.patch.setattr(Backend, method, fail)
        return client.retrieve(dicom=IMAGE) if method != "encoder" else client.encode(dicom=IMAGE)

    return provoke


def defect(world: World) -> object:
    client = world.start()

    def fail(*_arguments: object) -> object:
        raise ZeroDivisionError("PHANTOM^NAME")

    # Not on the backend: the watch asks it too, in a thread where no caller is told.
    world.patch.setattr(messages, "encode_message", fail)
    return client.encode(dicom=IMAGE)


def nonsense_from_triton(world: World) -> object:
    client = world.start()

    def infer(_server: object, _version: int, images: Any, names: list[str], _: Deadline) -> object:  # noqa: ANN401 - an array
        return {name: np.full((len(images), 3), np.nan, np.float32) for name in names}

    world.patch.setattr(triton.TritonServer, "infer", infer)
    return client.encode(dicom=IMAGE)


def accounted(world: World, token: str) -> object:
    file = world.folder / "accounts.json"
    account = Account(subject="x", tenant="a", roles=frozenset(), token_sha256=token_hash(NOBODY))
    file.write_text(AccountFile(accounts=(account,)).model_dump_json())
    file.chmod(0o600)
    client = world.start(accounts=file)
    request = retrieval_service_pb2.EncodeRequest(dicom=IMAGE)
    metadata = (("authorization", f"Bearer {token}"),)
    return client.retrieval.Encode(request, metadata=metadata, timeout=30)


def other_patient_key(world: World) -> object:
    fill(world.client, "default", 1)
    create_key(world.folder / "other.key")
    client = world.start(patient_key_file=world.folder / "other.key")
    return client.retrieve(dicom=IMAGE)


def not_empty(world: World) -> None:
    world.client.create_archive("reasons")
    fill(world.client, "reasons", 1)
    world.client.delete_archive("archives/reasons")


def exists(world: World) -> object:
    world.client.create_archive("reasons")
    return world.client.create_archive("reasons", bits=16)


def changed(world: World) -> None:
    world.client.create_archive("reasons")
    world.client.delete_archive("archives/reasons", etag="0" * 16)


def no_coding(world: World) -> object:
    world.client.create_archive("reasons")
    return world.client.switch_archive("archives/reasons", 7)


def short_code(world: World) -> object:
    world.client.create_archive("reasons")
    code = retrieval_service_pb2.CodeQuery(code=bytes(2), bits=16, model_version=PREFERRED)
    return world.client.retrieve(archive="archives/reasons", code=code)


def incomplete(world: World) -> object:
    """A coding that lacks a case, of a model that only the catalogue knows."""
    world.client.create_archive("reasons")
    fill(world.client, "reasons", 1)
    soon = Deadline.after(60)
    connection = Connection(world.stack.milvus_uri, soon)
    try:
        archives = Archives(connection, DEFAULT_TENANT)
        live = archives.get("reasons", soon).live
        archives.add_coding(replace(live, model_hash="ab" * 32, model_version=7), soon)
    finally:
        connection.close()
    client = world.start()
    world.patch.setattr(Backend, "encoder_of", lambda *_: None)
    return client.switch_archive("archives/reasons", 7)


def one_call_at_a_time(world: World) -> object:
    client = world.start(max_streams=1, max_streams_per_tenant=1, idle_stream=5.0)
    held = client.archives.IndexCases(iter(_slowly()), timeout=30)
    next(held)
    try:
        return list(client.index([archive_service_pb2.IndexCasesRequest(dicom=IMAGE)]))
    finally:
        held.cancel()


def _slowly() -> Any:  # noqa: ANN401 - a generator of messages
    yield archive_service_pb2.IndexCasesRequest(parent="archives/default", dicom=IMAGE)
    time.sleep(5)


def in_a_hurry(world: World) -> object:
    request = retrieval_service_pb2.EncodeRequest(dicom=IMAGE)
    return world.client.retrieval.Encode(request, timeout=1e-3)


def burned_in(world: World) -> object:
    data = write_instance(BurnedInAnnotation="YES")
    return world.start(refuse_burned_in=True).encode(dicom=data)


NO_ARCHIVE = "archives/never-made"
PROVOKE: dict[Reason, Callable[[World], object]] = {
    Reason.EMPTY_INPUT: encode(b""),
    Reason.TOO_LARGE: encode(bytes(17 << 20)),
    Reason.EXECUTABLE_PREAMBLE: encode(b"MZ" + IMAGE[2:]),
    Reason.NOT_AN_IMAGE: encode(b"Dear colleague, thank you."),
    Reason.DICOM_MALFORMED: encode(IMAGE[:400] + b"\xff" * 300),
    Reason.NO_PIXELS: encode(report_without_pixels()),
    Reason.LIMIT_EXCEEDED: encode(write_instance(Rows=60_000, Columns=60_000)),
    Reason.TRANSFER_SYNTAX_UNSUPPORTED: encode(
        IMAGE.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.9.9\0")
    ),
    Reason.PHOTOMETRIC_UNSUPPORTED: encode(write_instance(PhotometricInterpretation="CMYK")),
    Reason.PIXELS_UNDECODABLE: encode(write_instance(PixelData=b"1234")),
    Reason.DECODER_CRASHED: failing(InvalidInput(Reason.DECODER_CRASHED, "It ended.")),
    Reason.DECODE_TIMEOUT: encode(IMAGE, limits={"seconds": 1e-4}),
    Reason.BURNED_IN_ANNOTATION: burned_in,
    Reason.FRAME_OUT_OF_RANGE: lambda world: (
        fill(world.client, "default", 1),
        world.client.retrieve(dicom=IMAGE, frame=9),
    ),
    Reason.UID_INVALID: encode(write_instance(without=("SOPInstanceUID",))),
    Reason.ARGUMENT_INVALID: lambda world: world.client.retrieve(dicom=IMAGE, top_k=-1),
    Reason.UNAUTHENTICATED: lambda world: accounted(world, "wrong"),
    Reason.PERMISSION_DENIED: lambda world: accounted(world, NOBODY),
    Reason.ARCHIVE_NOT_FOUND: lambda world: world.client.get_archive(NO_ARCHIVE),
    Reason.ARCHIVE_EXISTS: exists,
    Reason.ARCHIVE_NOT_EMPTY: not_empty,
    Reason.ARCHIVE_CHANGED: changed,
    Reason.CODING_NOT_FOUND: no_coding,
    Reason.CODING_INCOMPLETE: incomplete,
    Reason.CASE_NOT_FOUND: lambda world: (
        world.client.create_archive("reasons"),
        world.client.get_case(f"archives/reasons/cases/{'0' * 32}"),
    ),
    Reason.MODEL_NOT_FOUND: lambda world: world.client.get_model("models/77"),
    Reason.MODEL_NOT_LOADED: lambda world: world.client.encode(dicom=IMAGE, model_version=7),
    Reason.PATIENT_KEY_MISMATCH: other_patient_key,
    Reason.CODE_LENGTH_MISMATCH: short_code,
    Reason.ENCODER_UNAVAILABLE: encode(IMAGE, triton_address="127.0.0.1:1"),
    Reason.INDEX_UNAVAILABLE: lambda world: world.start(
        milvus_uri="http://127.0.0.1:1"
    ).get_archive("archives/default"),
    Reason.INDEX_INCAPABLE: failing(
        FailedPrecondition(Reason.INDEX_INCAPABLE, "It cannot."), "archive"
    ),
    Reason.OVERLOADED: one_call_at_a_time,
    Reason.DEADLINE_EXCEEDED: in_a_hurry,
    Reason.ENCODER_WRONG: nonsense_from_triton,
    Reason.INDEX_WRONG: failing(Internal(Reason.INDEX_WRONG, "It contradicts itself."), "archive"),
    Reason.INTERNAL: defect,
}


def test_every_reason_is_provoked() -> None:
    assert set(PROVOKE) == set(REASONS)


@pytest.fixture
def world(
    client: Client,
    start: StartGateway,
    stack: Stack,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    client.delete_archive("archives/reasons", force=True, allow_missing=True)
    return World(client, start, stack, tmp_path, monkeypatch)


@pytest.mark.parametrize("reason", PROVOKE)
def test_a_reason_is_given(reason: Reason, world: World) -> None:
    statuses: list[status_pb2.Status] = []
    catch_statuses(world.patch, statuses)
    with pytest.raises((DafhError, grpc.RpcError)) as caught:
        PROVOKE[reason](world)
    if isinstance(caught.value, grpc.RpcError):
        statuses.append(status_of_call(caught.value))
    if not statuses[-1].details:
        # A deadline may pass on the way, where nobody is left to say why.
        assert reason is Reason.DEADLINE_EXCEEDED
        return
    assert caught.type is not Overloaded or reason is Reason.OVERLOADED
    require_details(statuses[-1], reason)


def catch_statuses(patch: pytest.MonkeyPatch, statuses: list[status_pb2.Status]) -> None:
    """Keep the statuses that the client turns into errors."""
    read = errors._status

    def keep(call: Any) -> status_pb2.Status:  # noqa: ANN401 - either kind of call
        statuses.append(read(call))
        require_pushback(call, statuses[-1])
        return statuses[-1]

    patch.setattr(errors, "_status", keep)


def status_of_call(error: Any) -> status_pb2.Status:  # noqa: ANN401 - a call
    return rpc_status.from_call(error) or status_pb2.Status(code=error.code().value[0])


def require_details(status: status_pb2.Status, reason: Reason) -> None:
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == (reason, "dafh")
    kinds = [kind for kind, row in CODES.items() if row.code.value[0] == status.code]
    retried = any(detail.Unpack(retry) for detail in status.details)
    assert retried == any(kind.waiting_helps for kind in kinds)
    assert "PHANTOM^" not in str(status)


def require_pushback(call: Any, status: status_pb2.Status) -> None:  # noqa: ANN401 - either kind of call
    """gRPC's own retries are told to wait as long as whoever reads the status."""
    retry = error_details_pb2.RetryInfo()
    retried = any(detail.Unpack(retry) for detail in status.details)
    told = dict(call.trailing_metadata() or ()).get("grpc-retry-pushback-ms")
    assert told == (str(retry.retry_delay.ToMilliseconds()) if retried else None)


def test_a_reason_of_ours_alone_tells_a_caller_nothing(world: World) -> None:
    world.patch.setattr(
        Backend, "encoder", _raise(FailedPrecondition(Reason.KEY_UNSAFE, "/etc/secret is open"))
    )
    with pytest.raises(Internal) as caught:
        world.start().encode(dicom=IMAGE)
    assert "secret" not in str(caught.value)


def _raise(error: DafhError) -> Callable[..., Encoded]:
    def fail(*_arguments: object) -> Encoded:
        raise error

    return fail
