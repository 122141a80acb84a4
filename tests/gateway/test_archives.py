"""Archives: created, listed, switched, deleted, and the cases in them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO

from dafh.client import Client
from dafh.errors import DafhError, InvalidInput, Reason
from dafh.imaging.phantom import Phantom
from dafh.v1 import archive_pb2, archive_service_pb2, case_pb2
from tests.gateway.filled import PREFERRED, fill

pytestmark = pytest.mark.stack


@pytest.fixture
def archive(client: Client) -> Iterator[archive_pb2.Archive]:
    """Make an archive that is gone afterwards."""
    client.delete_archive("archives/made", force=True, allow_missing=True)
    yield client.create_archive("made", bits=32)
    client.delete_archive("archives/made", force=True, allow_missing=True)


def reason_of(error: pytest.ExceptionInfo[DafhError]) -> Reason:
    return error.value.reason


def test_an_archive_is_as_it_was_created(client: Client, archive: archive_pb2.Archive) -> None:
    assert (archive.name, archive.bits, archive.model_version) == ("archives/made", 32, PREFERRED)
    (coding,) = archive.codings
    assert coding.state == archive_pb2.Coding.STATE_LIVE
    assert (coding.bits, coding.case_count, len(coding.model_hash)) == (32, 0, 64)
    assert archive.HasField("create_time")
    assert client.get_archive("archives/made") == archive
    assert client.create_archive("made", bits=32) == archive
    assert "archives/made" in [one.name for one in client.list_archives()]
    fill(client, "made", 3)
    assert client.get_archive("archives/made").codings[0].case_count == 3
    answer = client.retrieve(archive="archives/made", case=case(client), include_same_patient=True)
    assert len(answer.hits) == 3
    assert answer.query.bits == 32


def case(client: Client) -> str:
    return next(client.list_cases("archives/made")).name


def test_what_contradicts_an_archive_is_refused(
    client: Client, archive: archive_pb2.Archive
) -> None:
    with pytest.raises(DafhError) as caught:
        client.create_archive("made", bits=64)
    assert reason_of(caught) is Reason.ARCHIVE_EXISTS
    with pytest.raises(DafhError) as caught:
        client.delete_archive("archives/made", etag="0" * 16)
    assert reason_of(caught) is Reason.ARCHIVE_CHANGED
    with pytest.raises(DafhError) as caught:
        client.switch_archive("archives/made", 7)
    assert reason_of(caught) is Reason.CODING_NOT_FOUND
    with pytest.raises(DafhError) as caught:
        client.create_archive("another", model_version=9)
    assert reason_of(caught) is Reason.MODEL_NOT_LOADED
    with pytest.raises(DafhError) as caught:
        client.get_archive("archives/nowhere")
    assert reason_of(caught) is Reason.ARCHIVE_NOT_FOUND


@pytest.mark.parametrize("name", ["", "Made", "1st", "made-", "a" * 64, "made/x", "é"])
def test_a_name_that_cannot_be_one_is_refused(client: Client, name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        client.create_archive(name)
    assert caught.value.subject == "archive_id"


@pytest.mark.parametrize("bits", [8, 63, -1, 128])
def test_a_length_that_the_model_does_not_give_is_refused(client: Client, bits: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        client.create_archive("odd", bits=bits)
    assert caught.value.subject == "archive.bits"


def test_an_archive_with_cases_goes_only_by_force(
    client: Client, archive: archive_pb2.Archive
) -> None:
    fill(client, "made", 2)
    with pytest.raises(DafhError) as caught:
        client.delete_archive("archives/made")
    assert reason_of(caught) is Reason.ARCHIVE_NOT_EMPTY
    client.delete_archive("archives/made", force=True)
    with pytest.raises(DafhError) as caught:
        client.get_archive("archives/made")
    assert reason_of(caught) is Reason.ARCHIVE_NOT_FOUND
    with pytest.raises(DafhError) as caught:
        client.delete_archive("archives/made")
    assert reason_of(caught) is Reason.ARCHIVE_NOT_FOUND
    client.delete_archive("archives/made", allow_missing=True)


def test_archives_are_listed_in_pages(client: Client, archive: archive_pb2.Archive) -> None:
    client.create_archive("made-too")
    whole = [one.name for one in client.list_archives()]
    paged, token = [], ""
    while True:
        request = archive_service_pb2.ListArchivesRequest(page_size=1, page_token=token)
        page = client.archives.ListArchives(request, timeout=60)
        paged += [one.name for one in page.archives]
        token = page.next_page_token
        if not token:
            break
    assert paged == whole == sorted(whole)
    client.delete_archive("archives/made-too")


def test_nothing_is_written_where_nobody_said(client: Client) -> None:
    image = archive_service_pb2.IndexCasesRequest(dicom=b"x")
    with pytest.raises(Exception, match="parent is not of the form"):
        list(client.archives.IndexCases(iter([image]), timeout=60))


def test_cases_are_listed_in_order_by_filter_and_in_pages(
    client: Client, archive: archive_pb2.Archive
) -> None:
    filled = fill(client, "made", 30)
    names = [one.name for one in client.list_cases("archives/made")]
    assert names == sorted(filled)
    for size in (1, 7, 30, 31):
        assert [one.name for one in client.list_cases("archives/made", page_size=size)] == names
    some = list(client.list_cases("archives/made", 'modality = "CT"', page_size=2))
    assert {one.modality for one in some} == {"CT"}
    all_of_them = [client.get_case(name) for name in names]
    assert [one.name for one in some] == [one.name for one in all_of_them if one.modality == "CT"]
    request = archive_service_pb2.ListCasesRequest(
        parent="archives/made", view=case_pb2.CASE_VIEW_FULL
    )
    assert client.archives.ListCases(request, timeout=60).cases[0] == client.get_case(names[0])
    request = archive_service_pb2.ListCasesRequest(parent="archives/made")
    request.read_mask.paths.append("frame")
    assert client.archives.ListCases(request, timeout=60).cases[0] == case_pb2.Case(frame=1)


def names_of(client: Client) -> set[str]:
    return {one.name for one in client.list_cases("archives/made")}


def test_cases_are_erased_by_name_study_and_patient(
    client: Client, archive: archive_pb2.Archive
) -> None:
    filled = fill(client, "made", 30)
    by_name = sorted(filled)[:2]
    request = archive_service_pb2.DeleteCasesRequest(parent="archives/made", validate_only=True)
    request.cases.names.extend(by_name)
    assert client.delete_cases(request) == 2
    assert names_of(client) == set(filled)
    request.validate_only = False
    assert client.delete_cases(request) == 2
    assert client.delete_cases(request) == 0
    left = set(filled) - set(by_name)
    assert names_of(client) == left

    study = client.get_case(min(left)).study_instance_uid
    request = archive_service_pb2.DeleteCasesRequest(
        parent="archives/made", study_instance_uid=study
    )
    gone = {name for name in left if client.get_case(name).study_instance_uid == study}
    assert client.delete_cases(request) == len(gone)
    left -= gone
    assert names_of(client) == left

    header = header_of(filled[min(left)])
    request = archive_service_pb2.DeleteCasesRequest(parent="archives/made")
    request.patient.patient_id = str(header.PatientID)
    request.patient.issuer = str(header.get("IssuerOfPatientID", ""))
    gone = {name for name in left if header_of(filled[name]).PatientID == header.PatientID}
    assert client.delete_cases(request) == len(gone)
    assert names_of(client) == left - gone


def header_of(phantom: Phantom) -> Dataset:
    return dcmread(DicomBytesIO(phantom.data), stop_before_pixels=True)


def test_a_selection_that_selects_nothing_is_refused(
    client: Client, archive: archive_pb2.Archive
) -> None:
    other = "archives/default/cases/" + "0" * 32
    for request in (
        archive_service_pb2.DeleteCasesRequest(parent="archives/made"),
        archive_service_pb2.DeleteCasesRequest(
            parent="archives/made", cases=archive_service_pb2.CaseNames()
        ),
        archive_service_pb2.DeleteCasesRequest(
            parent="archives/made", cases=archive_service_pb2.CaseNames(names=[other])
        ),
        archive_service_pb2.DeleteCasesRequest(
            parent="archives/made", patient=archive_service_pb2.Patient(patient_id="  ")
        ),
        archive_service_pb2.DeleteCasesRequest(parent="archives/made", study_instance_uid="x y"),
        archive_service_pb2.DeleteCasesRequest(parent="made"),
    ):
        with pytest.raises(InvalidInput):
            client.delete_cases(request)


def test_models_are_listed(client: Client) -> None:
    models = client.list_models()
    assert {model.version for model in models} == {1, 2}
    for model in models:
        assert model == client.get_model(model.name)
        assert model.preferred == (model.version == PREFERRED)
        assert (model.side, list(model.bits)) == (128, [16, 32, 48, 64])
