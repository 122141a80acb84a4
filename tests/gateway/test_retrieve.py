"""Queries through the real gateway, Triton and Milvus."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO

from dafh.client import Client, question
from dafh.errors import InvalidInput, Reason
from dafh.imaging.changed_copies import Change, changed_copy
from dafh.imaging.phantom import Phantom, phantoms
from dafh.stack import Stack
from dafh.v1 import archive_service_pb2, image_pb2
from tests.imaging.instances import write_instance

pytestmark = pytest.mark.stack
COUNT = 40


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.gateway.address, timeout=60) as opened:
        yield opened


@pytest.fixture(scope="module")
def indexed(client: Client) -> dict[str, Phantom]:
    """Case name -> phantom."""
    made = list(phantoms(COUNT, 5))
    results = client.index(
        archive_service_pb2.IndexCasesRequest(dicom=one.data, label=one.label) for one in made
    )
    cases = [result.indexed.cases[0] for result in results]
    return {case.name: one for case, one in zip(cases, made, strict=True)}


def patient(phantom: Phantom) -> str:
    return str(dcmread(DicomBytesIO(phantom.data), stop_before_pixels=True).PatientID)


def test_an_indexed_image_finds_itself_first_when_asked_to(
    client: Client, indexed: dict[str, Phantom]
) -> None:
    for name, phantom in list(indexed.items())[:10]:
        answer = client.retrieve(dicom=phantom.data, include_same_patient=True)
        assert answer.hits[0].case.name == name
        assert answer.hits[0].distance == 0


def test_the_sources_patient_never_answers_unasked(
    client: Client, indexed: dict[str, Phantom]
) -> None:
    for phantom in indexed.values():
        for query in (phantom.data, changed_copy(phantom.data, Change.JPEG)):
            answer = client.retrieve(dicom=query, top_k=COUNT)
            known = [indexed[hit.case.name] for hit in answer.hits if hit.case.name in indexed]
            assert known
            assert patient(phantom) not in {patient(one) for one in known}


def test_hits_are_ordered_by_distance_then_score(
    client: Client, indexed: dict[str, Phantom]
) -> None:
    phantom = next(iter(indexed.values()))
    hits = client.retrieve(dicom=phantom.data, top_k=20, include_same_patient=True).hits
    order = [(hit.distance, hit.score, hit.case.name) for hit in hits]
    assert order == sorted(order)
    assert all(0 <= hit.score <= 1 for hit in hits)


def test_a_labelled_hit_has_a_probability(client: Client, indexed: dict[str, Phantom]) -> None:
    phantom = next(iter(indexed.values()))
    for hit in client.retrieve(dicom=phantom.data, include_same_patient=True).hits:
        assert bool(hit.case.label) == hit.HasField("probability")


def test_more_like_this_is_the_same_question_without_the_picture(
    client: Client, indexed: dict[str, Phantom]
) -> None:
    name, phantom = next(iter(indexed.items()))
    by_case = client.retrieve(case=name, top_k=5)
    by_image = client.retrieve(dicom=phantom.data, top_k=5)
    assert [hit.distance for hit in by_case.hits] == [hit.distance for hit in by_image.hits]
    assert not by_case.query.HasField("predicted_class")


def test_indexing_again_changes_nothing(client: Client, indexed: dict[str, Phantom]) -> None:
    name, phantom = next(iter(indexed.items()))
    before = client.get_case(name)
    (result,) = client.index(
        [archive_service_pb2.IndexCasesRequest(dicom=phantom.data, label=phantom.label)]
    )
    (case,) = result.indexed.cases
    assert case.name == name
    assert case.outcome == archive_service_pb2.IndexedCase.OUTCOME_UNCHANGED
    assert client.get_case(name) == before


def test_one_bad_item_does_not_end_the_stream(client: Client, indexed: dict[str, Phantom]) -> None:
    good = next(iter(indexed.values())).data
    results = list(
        client.index(
            archive_service_pb2.IndexCasesRequest(dicom=data, request_id=str(number))
            for number, data in enumerate([good, b"nonsense", good])
        )
    )
    assert [result.request_id for result in results] == ["0", "1", "2"]
    assert [result.WhichOneof("result") for result in results] == ["indexed", "error", "indexed"]


def test_encode_gives_the_code_that_retrieve_searches_with(
    client: Client, indexed: dict[str, Phantom]
) -> None:
    phantom = next(iter(indexed.values()))
    encoded = client.encode(dicom=phantom.data)
    answer = client.retrieve(dicom=phantom.data)
    codes = {one.bits: one.code for one in encoded.hashes}
    assert sorted(codes) == [16, 32, 48, 64]
    assert codes[answer.query.bits] == answer.query.code
    assert sum(one.probability for one in encoded.classes) == pytest.approx(1)
    assert encoded.classes[0].label == answer.query.predicted_class.label


def test_get_model_describes_what_is_served(client: Client) -> None:
    model = client.get_model("models/1")
    assert list(model.bits) == [16, 32, 48, 64]
    assert len(model.hash) == 64
    assert len(model.classes) == 21


def test_no_answer_names_the_patient(client: Client, indexed: dict[str, Phantom]) -> None:
    phantom = next(iter(indexed.values()))
    answer = client.retrieve(dicom=phantom.data, include_same_patient=True)
    assert patient(phantom) not in str(answer)
    assert "PHANTOM^" not in str(answer)


def test_a_deadline_that_has_passed_is_said_so(stack: Stack, indexed: dict[str, Phantom]) -> None:
    with Client(stack.gateway.address, timeout=0.001) as hasty:
        phantom = next(iter(indexed.values()))
        with pytest.raises(Exception) as caught:  # noqa: PT011 - its reason is looked at below
            hasty.retrieve(dicom=phantom.data)
    assert getattr(caught.value, "reason", None) == Reason.DEADLINE_EXCEEDED


def test_the_patient_is_in_no_log_and_in_no_index(
    client: Client, stack: Stack, indexed: dict[str, Phantom]
) -> None:
    phantom = next(iter(indexed.values()))
    client.retrieve(dicom=phantom.data)
    header = dcmread(DicomBytesIO(phantom.data), stop_before_pixels=True)
    identity = [str(header.PatientName).encode(), str(header.PatientID).encode()]
    data_dir = stack.patient_key_file.parent.parent
    written = [file for file in data_dir.rglob("*") if file.is_file() and not file.is_symlink()]
    assert any(file.suffix == ".log" for file in written)
    assert any("milvus" in file.parts for file in written)
    for file in written:
        content = file.read_bytes()
        assert not any(name in content for name in identity), file


def test_every_frame_of_an_object_becomes_a_case(client: Client) -> None:
    every = image_pb2.FrameChoice(rule=image_pb2.FrameChoice.RULE_ALL)
    pixels = np.random.default_rng(3).integers(0, 256, (5, 32, 32), dtype=np.uint8)
    data = write_instance(
        pixels[0], NumberOfFrames=5, PixelData=pixels.tobytes(), SOPInstanceUID="2.25.77"
    )
    (result,) = client.index([archive_service_pb2.IndexCasesRequest(dicom=data, frame=every)])
    assert [case.frame for case in result.indexed.cases] == [1, 2, 3, 4, 5]
    for case in result.indexed.cases:
        assert client.get_case(case.name).frame == case.frame
    request = question({}, dicom=data)
    request.query.frame.CopyFrom(every)
    with pytest.raises(InvalidInput):
        client.ask(request)
