"""Names planted in files that are sent to a gateway are in no answer, no log and no store."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import grpc
import pytest

from dafh.client import Client
from dafh.errors import DafhError
from dafh.imaging.elements import Tag
from dafh.stack import Stack
from dafh.v1 import archive_service_pb2, retrieval_service_pb2, retrieval_service_pb2_grpc
from tests.imaging.canaries import Canaries, element, encapsulated, jpeg, planted, png, said

pytestmark = pytest.mark.stack

CANARIES = Canaries()
WHOLE = planted(CANARIES)
NAME = CANARIES.next()
#: What is sent -> whether it is an image.
FILES: dict[str, tuple[bytes, bool]] = {
    "an image": (WHOLE, True),
    "a file that is cut": (WHOLE[:99_999], False),
    "a name for a UID": (
        planted(CANARIES, {Tag.SOP_INSTANCE_UID: element(Tag.SOP_INSTANCE_UID, "UI", NAME)}),
        False,
    ),
    "a name for a colour model": (
        planted(CANARIES, {Tag.PHOTOMETRIC_INTERPRETATION: element(0x00280004, "CS", NAME)}),
        False,
    ),
    "a name for a syntax": (planted(CANARIES, None, NAME, encapsulated(NAME)), False),
    "a name for pixels": (
        planted(CANARIES, None, b"1.2.840.10008.1.2.4.90", encapsulated(NAME)),
        False,
    ),
    "names alone": (NAME * 9, False),
}
PICTURES = {"a PNG": png(CANARIES), "a JPEG": jpeg(CANARIES)}


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.gateway.address, timeout=60) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _stored_nowhere(stack: Stack) -> Iterator[None]:
    """Look into every file that gateway, Triton and Milvus have written."""
    yield
    data_dir = stack.patient_key_file.parent.parent
    written = [file for file in data_dir.rglob("*") if file.is_file() and not file.is_symlink()]
    assert any(file.suffix == ".log" for file in written)
    for file in written:
        assert b"CNRY" not in file.read_bytes(), file


def answer(call: Callable[..., object], **arguments: object) -> object:
    """Return what a call gives, or the error that it raises; neither may sing."""
    try:
        result = call(**arguments)
    except DafhError as error:
        result, heard = error, said(error)
    else:
        heard = f"{result!r} {result}"
    assert not Canaries.sings(heard)
    return result


@pytest.mark.parametrize("name", FILES)
def test_names_in_a_file_come_back_in_no_answer(name: str, client: Client, stack: Stack) -> None:
    data, good = FILES[name]
    for call in (client.retrieve, client.encode):
        assert isinstance(answer(call, dicom=data), DafhError) is not good
    (result,) = client.index([archive_service_pb2.IndexCasesRequest(dicom=data)])
    assert not Canaries.sings(str(result))
    assert result.WhichOneof("result") == ("indexed" if good else "error")
    if good:
        (case,) = result.indexed.cases
        answer(client.get_case, name=case.name)
        answer(client.retrieve, case=case.name, include_same_patient=True)


@pytest.mark.parametrize("name", PICTURES)
def test_names_in_a_picture_come_back_in_no_answer(name: str, client: Client) -> None:
    data = PICTURES[name]
    for picture, good in ((data, True), (data[:-40], False)):
        for call in (client.retrieve, client.encode):
            assert isinstance(answer(call, picture=picture), DafhError) is not good


def test_names_are_in_no_status_on_the_wire(stack: Stack) -> None:
    """What any program sees: code, details and every byte of the trailing metadata."""
    with grpc.insecure_channel(stack.gateway.address) as channel:
        stub = retrieval_service_pb2_grpc.RetrievalServiceStub(channel)
        for data, good in FILES.values():
            if good:
                continue
            request = retrieval_service_pb2.EncodeRequest(dicom=data)
            with pytest.raises(grpc.RpcError) as caught:
                stub.Encode(request, timeout=60)
            assert not Canaries.sings(f"{caught.value!r} {caught.value.trailing_metadata()}")
