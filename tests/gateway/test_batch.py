"""Several questions at once."""

from __future__ import annotations

import pytest

from dafh.client import Client, error_in, question
from dafh.errors import InvalidInput, Reason
from dafh.imaging.phantom import Phantom, phantoms
from tests.gateway.filled import fill

pytestmark = pytest.mark.stack
ARCHIVE = "archives/batch"


@pytest.fixture(scope="module")
def filled(client: Client) -> dict[str, Phantom]:
    client.create_archive("batch")
    return fill(client, "batch", 20)


def test_a_batch_has_the_answers_of_its_questions(
    client: Client, filled: dict[str, Phantom]
) -> None:
    requests = [
        question({"archive": ARCHIVE, "top_k": 5}, dicom=one.data) for one in phantoms(9, 95)
    ]
    requests.append(question({"archive": ARCHIVE, "top_k": 5}, case=next(iter(filled))))
    for request, result in zip(requests, client.retrieve_batch(requests), strict=True):
        assert result.response.hits == client.ask(request).hits


def test_a_bad_question_fails_alone(client: Client, filled: dict[str, Phantom]) -> None:
    good = question({"archive": ARCHIVE}, dicom=next(iter(filled.values())).data)
    requests = [
        good,
        question({"archive": ARCHIVE}, dicom=b"nonsense"),
        question({"archive": "archives/nowhere"}, dicom=good.query.dicom),
        question({"archive": ARCHIVE, "top_k": -1}, dicom=good.query.dicom),
        question({"archive": ARCHIVE}, dicom=bytes(17 * 2**20)),
        good,
    ]
    results = client.retrieve_batch(requests)
    errors = [error_in(result.error) for result in results]
    assert [error.reason if error else None for error in errors] == [
        None,
        Reason.NOT_AN_IMAGE,
        Reason.ARCHIVE_NOT_FOUND,
        Reason.ARGUMENT_INVALID,
        Reason.TOO_LARGE,
        None,
    ]
    assert results[0].response.hits == results[5].response.hits


@pytest.mark.parametrize("count", [0, 65])
def test_a_batch_has_1_to_64_questions(client: Client, count: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        client.retrieve_batch([question({}, case="x")] * count)
    assert caught.value.subject == "requests"


def test_a_batch_that_is_too_large_is_refused_whole(client: Client) -> None:
    with pytest.raises(InvalidInput) as caught:
        client.retrieve_batch([question({}, dicom=bytes(15 * 2**20 + 2**19))] * 4)
    assert caught.value.reason is Reason.TOO_LARGE
