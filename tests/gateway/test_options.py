"""Every form of query and every option, through the real gateway."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from dafh.client import Client
from dafh.errors import DafhError, InvalidInput, Reason
from dafh.imaging.phantom import Phantom, phantoms
from dafh.v1 import case_pb2, retrieval_service_pb2
from tests.gateway.conftest import StartGateway
from tests.gateway.filled import PREFERRED, fill
from tests.imaging.canaries import Canaries, png

pytestmark = pytest.mark.stack
ARCHIVE = "archives/options"
QUERY = next(iter(phantoms(1, 97))).data
TEMPLATE = (
    "https://pacs.example/studies/{study}/series/{series}/instances/{instance}/frames/{frame}"
)


@pytest.fixture(scope="module")
def filled(client: Client) -> dict[str, Phantom]:
    client.create_archive("options")
    return fill(client, "options")


def ask(client: Client, **options: Any) -> retrieval_service_pb2.RetrieveResponse:  # noqa: ANN401 - any option
    return client.retrieve(archive=ARCHIVE, **({"dicom": QUERY} | options))


def test_a_filter_chooses_who_may_answer(client: Client, filled: dict[str, Phantom]) -> None:
    everything = ask(client, top_k=40)
    some = ask(client, top_k=40, filter='modality = "CT" OR modality = "MR"')
    assert {hit.case.modality for hit in some.hits} == {"CT", "MR"}
    expected = [hit.case.name for hit in everything.hits if hit.case.modality in {"CT", "MR"}]
    assert [hit.case.name for hit in some.hits] == expected


def test_a_largest_distance_cuts_the_answer(client: Client, filled: dict[str, Phantom]) -> None:
    everything = ask(client, top_k=40).hits
    border = everything[5].distance
    near = ask(client, top_k=40, max_distance=border).hits
    assert list(near) == [hit for hit in everything if hit.distance <= border]


def test_a_cap_per_series_counts(client: Client, filled: dict[str, Phantom]) -> None:
    hits = ask(client, top_k=40, max_hits_per_series=1).hits
    series = [hit.case.series_instance_uid for hit in hits]
    assert len(series) == len(set(series))


def test_a_code_finds_what_its_image_finds(client: Client, filled: dict[str, Phantom]) -> None:
    encoded = client.encode(dicom=QUERY).hashes[-1]
    code = retrieval_service_pb2.CodeQuery(
        code=encoded.code, bits=64, model_version=PREFERRED, hash_output=encoded.hash_output
    )
    by_code = client.retrieve(archive=ARCHIVE, code=code)
    by_image = ask(client, include_same_patient=True)
    assert by_code.hits == by_image.hits
    assert not by_code.query.HasField("predicted_class")
    code.ClearField("hash_output")
    without = client.retrieve(archive=ARCHIVE, code=code)
    assert [hit.score for hit in without.hits] == [hit.distance / 64 for hit in without.hits]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ({"code": bytes(8), "bits": 32, "model_version": PREFERRED}, Reason.CODE_LENGTH_MISMATCH),
        ({"code": bytes(4), "bits": 32, "model_version": PREFERRED}, Reason.CODE_LENGTH_MISMATCH),
        ({"code": bytes(8), "bits": 64, "model_version": 7}, Reason.MODEL_NOT_LOADED),
        (
            {"code": bytes(8), "bits": 64, "model_version": PREFERRED, "hash_output": [2.0] * 64},
            Reason.ARGUMENT_INVALID,
        ),
        (
            {"code": bytes(8), "bits": 64, "model_version": PREFERRED, "hash_output": [0.5] * 63},
            Reason.ARGUMENT_INVALID,
        ),
    ],
)
def test_a_code_that_cannot_be_the_archives_is_refused(
    client: Client, filled: dict[str, Phantom], code: dict[str, Any], reason: Reason
) -> None:
    with pytest.raises(DafhError) as caught:
        client.retrieve(archive=ARCHIVE, code=retrieval_service_pb2.CodeQuery(**code))
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"top_k": 1001}, "top_k"),
        ({"page_size": -1}, "page_size"),
        ({"max_distance": -1}, "max_distance"),
        ({"max_hits_per_patient": -1}, "max_hits_per_patient"),
        ({"max_hits_per_series": -1}, "max_hits_per_series"),
        ({"filter": "modality ="}, "filter"),
        ({"filter": 'patient_id = "x"'}, "filter"),
        ({"read_mask": ["hits.patient"]}, "read_mask"),
        ({"read_mask": ["hits"], "view": case_pb2.CASE_VIEW_FULL}, "read_mask"),
        ({"frame": -1}, "frame.number"),
        ({"dicom": None}, "query"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(
    client: Client, filled: dict[str, Phantom], options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        ask(client, **options)
    assert caught.value.subject == field


def test_a_read_mask_leaves_what_it_names(client: Client, filled: dict[str, Phantom]) -> None:
    answer = ask(client, read_mask=["hits.case.name", "hits.distance"])
    assert {field.name for field, _ in answer.ListFields()} == {"hits"}
    for hit in answer.hits:
        assert {field.name for field, _ in hit.ListFields()} <= {"case", "distance"}
        assert {field.name for field, _ in hit.case.ListFields()} == {"name"}
    assert len(ask(client, read_mask=["query.hash_output"]).query.hash_output) == 64
    assert ask(client, read_mask=["*"]).query.hash_output


def test_a_view_says_how_much_of_a_case(client: Client, filled: dict[str, Phantom]) -> None:
    basic, full = ask(client), ask(client, view=case_pb2.CASE_VIEW_FULL)
    assert not basic.hits[0].case.code
    assert not basic.query.hash_output
    assert len(full.hits[0].case.code) == 8
    assert full.hits[0].case.HasField("create_time")
    assert len(full.query.hash_output) == 64
    assert [hit.case.name for hit in basic.hits] == [hit.case.name for hit in full.hits]


def test_an_explanation_is_a_picture_of_the_query(
    client: Client, filled: dict[str, Phantom]
) -> None:
    assert not ask(client).explanation_png
    drawn = ask(client, explain=True).explanation_png
    assert drawn == client.encode(dicom=QUERY, explain=True).explanation_png
    picture = cv2.imdecode(np.frombuffer(drawn, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape == (512, 512, 3)
    # Where the model looked there is colour; elsewhere it is the image.
    assert np.ptp(picture.astype(int), axis=2).max() > 40
    with pytest.raises(InvalidInput):
        client.retrieve(archive=ARCHIVE, case=next(iter(filled)), explain=True)


def test_a_hit_can_be_opened(filled: dict[str, Phantom], start: StartGateway) -> None:
    client = start(retrieve_uri=TEMPLATE)
    case = ask(client).hits[0].case
    assert case.retrieve_uri == TEMPLATE.format(
        study=case.study_instance_uid,
        series=case.series_instance_uid,
        instance=case.sop_instance_uid,
        frame=case.frame,
    )


def test_a_picture_is_a_query_without_a_patient(client: Client, filled: dict[str, Phantom]) -> None:
    answer = ask(client, dicom=None, picture=png(Canaries()))
    assert len(answer.hits) == 10
    assert answer.query.frame == 1


def test_a_case_of_another_archive_is_not_found(client: Client, filled: dict[str, Phantom]) -> None:
    name = next(iter(filled)).replace("archives/options", "archives/default")
    with pytest.raises(DafhError) as caught:
        client.retrieve(archive=ARCHIVE, case=name)
    assert caught.value.reason is Reason.CASE_NOT_FOUND
