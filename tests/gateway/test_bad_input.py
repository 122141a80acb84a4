"""Bad input through the real gateway: a typed status, a server that lives on, nothing indexed."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import cast

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComprehensiveSRStorage, ExplicitVRLittleEndian, generate_uid

from dafh.client import Client
from dafh.deadline import Deadline
from dafh.errors import DafhError, InvalidInput, Reason
from dafh.imaging.phantom import phantoms
from dafh.index.milvus import MilvusIndex
from dafh.stack import Stack
from dafh.v1 import archive_service_pb2, retrieval_service_pb2, retrieval_service_pb2_grpc

pytestmark = pytest.mark.stack


def report_without_pixels() -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ComprehensiveSRStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    report = Dataset()
    report.file_meta = meta
    report.SOPClassUID = ComprehensiveSRStorage
    report.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    report.StudyInstanceUID = generate_uid()
    report.SeriesInstanceUID = generate_uid()
    report.Modality = "SR"
    out = io.BytesIO()
    report.save_as(out, enforce_file_format=True)
    return out.getvalue()


def whole() -> bytes:
    return next(iter(phantoms(1, 77))).data


BAD: dict[str, tuple[Callable[[], bytes], set[Reason]]] = {
    "empty bytes": (lambda: b"", {Reason.EMPTY_INPUT}),
    "a text file": (lambda: b"Dear colleague, thank you.\n" * 9, {Reason.NOT_AN_IMAGE}),
    "a report": (report_without_pixels, {Reason.NO_PIXELS}),
    "a truncated file": (
        lambda: whole()[: len(whole()) * 2 // 3],
        {Reason.DICOM_MALFORMED, Reason.PIXELS_UNDECODABLE},
    ),
    # Too large for one message; by upload and in a stream it is only no image.
    "20 MB of zeros": (lambda: bytes(20_000_000), {Reason.TOO_LARGE, Reason.NOT_AN_IMAGE}),
    "a program": (lambda: b"MZ" + bytes(126) + b"DICM" + bytes(300), {Reason.EXECUTABLE_PREAMBLE}),
}  # fmt: skip


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.gateway.address) as opened:
        yield opened


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_its_reason_and_the_server_lives_on(
    name: str, client: Client, archive: MilvusIndex
) -> None:
    make, reasons = BAD[name]
    data = make()
    before = archive.count(Deadline.after(10))
    calls: list[Callable[[], object]] = [
        lambda: client.retrieve(dicom=data),
        lambda: client.encode(dicom=data),
    ]
    for call in calls:
        with pytest.raises(InvalidInput) as caught:
            call()
        assert caught.value.reason in reasons
    (result,) = client.index([archive_service_pb2.IndexCasesRequest(dicom=data, request_id="x")])
    assert result.WhichOneof("result") == "error"
    assert result.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    info = error_details_pb2.ErrorInfo()
    assert result.error.details[0].Unpack(info)
    assert info.reason in reasons
    assert archive.count(Deadline.after(10)) == before
    assert client.encode(dicom=whole()).hashes


def test_a_status_carries_error_info_and_the_field(stack: Stack) -> None:
    with grpc.insecure_channel(stack.gateway.address) as channel:
        stub = retrieval_service_pb2_grpc.RetrievalServiceStub(channel)
        request = retrieval_service_pb2.RetrieveRequest(top_k=-3)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Retrieve(request, timeout=10)
    status = rpc_status.from_call(cast("grpc.Call", caught.value))
    assert status is not None
    assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(bad)
    assert (info.reason, info.domain) == ("ARGUMENT_INVALID", "dafh")
    assert bad.field_violations[0].field == "top_k"


@pytest.mark.parametrize(
    "name", ["", "cases/1", "archives/default/cases/ZZ", "archives/Default/cases/" + "0" * 32]
)
def test_a_malformed_name_is_refused(name: str, client: Client) -> None:
    with pytest.raises(InvalidInput):
        client.get_case(name)


def test_an_unknown_case_archive_and_model_are_not_found(
    client: Client, archive: MilvusIndex
) -> None:
    zeros = "0" * 32
    reasons = []
    for call in (
        lambda: client.get_case(f"archives/default/cases/{zeros}"),
        lambda: client.get_case(f"archives/other/cases/{zeros}"),
        lambda: client.get_model("models/12"),
    ):
        with pytest.raises(DafhError) as caught:
            call()
        reasons.append(caught.value.reason)
    assert reasons == [Reason.CASE_NOT_FOUND, Reason.ARCHIVE_NOT_FOUND, Reason.MODEL_NOT_FOUND]
