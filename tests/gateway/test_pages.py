"""Pages: together the whole answer, from any replica, and for the same question only."""

from __future__ import annotations

from itertools import chain

import pytest

from dafh.client import Client, question
from dafh.client.requests import next_page
from dafh.errors import InvalidInput, Reason
from dafh.imaging.phantom import Phantom, phantoms
from dafh.v1 import archive_service_pb2, retrieval_service_pb2
from tests.gateway.conftest import StartGateway
from tests.gateway.filled import PREFERRED, fill

pytestmark = pytest.mark.stack
ARCHIVE = "pages"
QUERY = next(iter(phantoms(1, 99))).data


@pytest.fixture(scope="module")
def filled(client: Client) -> dict[str, Phantom]:
    client.create_archive(ARCHIVE)
    return fill(client, ARCHIVE)


def ask(**options: object) -> retrieval_service_pb2.RetrieveRequest:
    return question({"archive": f"archives/{ARCHIVE}", **options}, dicom=QUERY)  # type: ignore[typeddict-item]  # any option


def names(pages: list[retrieval_service_pb2.RetrieveResponse]) -> list[list[str]]:
    return [[hit.case.name for hit in page.hits] for page in pages]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_hits_per_patient": 1},
        {"max_hits_per_series": 2},
        {"filter": 'modality = "CT"'},
        {"include_same_patient": True, "max_distance": 30},
    ],
)
def test_pages_together_are_the_answer_in_one(
    client: Client, filled: dict[str, Phantom], options: dict[str, object]
) -> None:
    (whole,) = names(list(client.retrieve_pages(ask(top_k=25, **options))))
    pages = names(list(client.retrieve_pages(ask(top_k=25, page_size=4, **options))))
    assert list(chain(*pages)) == whole
    assert len(whole) > 4
    assert all(len(page) == 4 for page in pages[:-1])


def test_a_code_and_a_case_have_pages_too(client: Client, filled: dict[str, Phantom]) -> None:
    case = next(iter(filled))
    parent = f"archives/{ARCHIVE}"
    for request in (
        question({"archive": parent, "top_k": 9, "page_size": 4}, case=case),
        question(
            {"archive": parent, "top_k": 9, "page_size": 4},
            code=retrieval_service_pb2.CodeQuery(
                code=client.get_case(case).code, bits=64, model_version=PREFERRED
            ),
        ),
    ):
        whole = client.ask(_in_one(request))
        pages = names(list(client.retrieve_pages(request)))
        assert [len(page) for page in pages] == [4, 4, 1]
        assert list(chain(*pages)) == [hit.case.name for hit in whole.hits]


def test_any_replica_answers_the_next_page(
    client: Client, filled: dict[str, Phantom], start: StartGateway
) -> None:
    replica = start()
    request = ask(top_k=12, page_size=6)
    first = client.ask(request)
    following = next_page(request, first.next_page_token)
    assert replica.ask(following).hits == client.ask(following).hits
    assert len(replica.ask(following).hits) == 6


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("filter", 'modality = "MR"'),
        ("top_k", 11),
        ("include_same_patient", True),
        ("max_distance", 9),
        ("max_hits_per_patient", 3),
        ("archive", "archives/default"),
        ("view", 2),
    ],
)
def test_a_token_is_refused_for_another_request(
    client: Client, filled: dict[str, Phantom], field: str, value: object
) -> None:
    request = ask(top_k=12, page_size=6)
    following = next_page(request, client.ask(request).next_page_token)
    assert client.ask(following).hits
    setattr(following, field, value)
    refused(client, following)


def test_a_token_is_refused_for_another_query_and_taken_for_the_same(
    client: Client, filled: dict[str, Phantom]
) -> None:
    request = ask(top_k=12, page_size=6)
    request.page_token = client.ask(request).next_page_token
    assert client.ask(request).hits
    request.query.dicom = next(iter(phantoms(1, 98))).data
    refused(client, request)


def test_a_token_of_nobody_is_refused(client: Client, filled: dict[str, Phantom]) -> None:
    request = ask(top_k=12, page_size=6)
    token = client.ask(request).next_page_token
    middle = len(token) // 2
    for other in (
        "x",
        token[:-8],
        token[:middle] + "AAAA" + token[middle + 4 :],
        "é" * 40,
        "A" * 9000,
    ):
        refused(client, next_page(request, other))
    listing = archive_service_pb2.ListArchivesRequest(page_size=1)
    refused(
        client, next_page(request, client.archives.ListArchives(listing).next_page_token or "x")
    )


def test_a_token_tells_nothing_of_the_patient(client: Client, filled: dict[str, Phantom]) -> None:
    first = client.ask(ask(top_k=12, page_size=6))
    for hit in first.hits:
        assert hit.case.study_instance_uid not in first.next_page_token


def refused(client: Client, request: retrieval_service_pb2.RetrieveRequest) -> None:
    with pytest.raises(InvalidInput) as caught:
        client.ask(request)
    assert caught.value.reason is Reason.ARGUMENT_INVALID
    assert caught.value.subject == "page_token"


def _in_one(
    request: retrieval_service_pb2.RetrieveRequest,
) -> retrieval_service_pb2.RetrieveRequest:
    whole = retrieval_service_pb2.RetrieveRequest()
    whole.CopyFrom(request)
    whole.page_size = 0
    return whole
