"""Images that come in chunks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from dafh.client import Client, question
from dafh.client.errors import translated
from dafh.client.requests import next_page, upload
from dafh.errors import InvalidInput, Reason
from dafh.imaging.phantom import Phantom, phantoms
from dafh.v1 import retrieval_service_pb2
from tests.gateway.filled import fill
from tests.imaging.instances import write_instance

pytestmark = pytest.mark.stack
Part = retrieval_service_pb2.RetrieveUploadRequest
ARCHIVE = "archives/uploads"
#: Above what one `Retrieve` takes.
LARGE = write_instance(np.arange(3000 * 3000, dtype=np.uint16).reshape(3000, 3000))
SMALL = next(iter(phantoms(1, 96))).data


@pytest.fixture(scope="module")
def filled(client: Client) -> dict[str, Phantom]:
    client.create_archive("uploads")
    return fill(client, "uploads")


def send(client: Client, parts: Iterator[Part]) -> retrieval_service_pb2.RetrieveResponse:
    with translated():
        return client.retrieval.RetrieveUpload(parts, timeout=60).response


def parts(data: bytes = SMALL, **options: object) -> list[Part]:
    return list(upload(question({"archive": ARCHIVE, **options}, dicom=data)))  # type: ignore[typeddict-item]  # any option


def test_an_upload_has_the_answer_of_a_question(client: Client, filled: dict[str, Phantom]) -> None:
    plain = client.retrieve(archive=ARCHIVE, dicom=SMALL)
    assert send(client, iter(parts())).hits == plain.hits


def test_a_large_image_is_uploaded_by_itself(client: Client, filled: dict[str, Phantom]) -> None:
    assert len(LARGE) > 17_000_000
    answer = client.retrieve(archive=ARCHIVE, dicom=LARGE, top_k=3)
    assert len(answer.hits) == 3
    request = question({"archive": ARCHIVE}, dicom=LARGE)
    with pytest.raises(InvalidInput) as caught, translated():
        client.retrieval.Retrieve(request, timeout=60)
    assert caught.value.reason is Reason.TOO_LARGE


def test_the_pages_of_an_upload_follow_with_retrieve(
    client: Client, filled: dict[str, Phantom]
) -> None:
    options = {"archive": ARCHIVE, "top_k": 9, "page_size": 5}
    request = question(options, dicom=SMALL)  # type: ignore[arg-type]  # a plain dictionary
    first = send(client, upload(request))
    second = client.ask(next_page(request, first.next_page_token))
    whole = client.retrieve(archive=ARCHIVE, dicom=SMALL, top_k=9)
    assert [*first.hits, *second.hits] == list(whole.hits)


def spoilt(change: Callable[[list[Part]], object]) -> list[Part]:
    made = list(upload(question({"archive": ARCHIVE}, dicom=SMALL)))
    # Small chunks: several of them.
    data = SMALL
    step = len(data) // 4 + 1
    made = made[:1] + [
        Part(chunk=retrieval_service_pb2.UploadChunk(offset=at, data=data[at : at + step]))
        for at in range(0, len(data), step)
    ]
    change(made)
    return made


def set_header(name: str, value: object) -> Callable[[list[Part]], None]:
    return lambda made: setattr(made[0].header, name, value)


def swap(made: list[Part]) -> None:
    made[2], made[3] = made[3], made[2]


def flip(made: list[Part]) -> None:
    data = made[2].chunk.data
    made[2].chunk.data = bytes([data[0] ^ 1]) + data[1:]


SPOILT: dict[str, tuple[Callable[[list[Part]], object], Reason]] = {
    "no header": (lambda made: made.pop(0), Reason.ARGUMENT_INVALID),
    "nothing at all": (lambda made: made.clear(), Reason.ARGUMENT_INVALID),
    "the header twice": (lambda made: made.insert(2, made[0]), Reason.ARGUMENT_INVALID),
    "truncated": (lambda made: made.pop(), Reason.ARGUMENT_INVALID),
    "reordered": (swap, Reason.ARGUMENT_INVALID),
    "duplicated": (lambda made: made.insert(2, made[2]), Reason.ARGUMENT_INVALID),
    "more than declared": (
        lambda made: made.append(
            Part(chunk=retrieval_service_pb2.UploadChunk(offset=len(SMALL), data=b"more"))
        ),
        Reason.ARGUMENT_INVALID,
    ),
    "another hash": (set_header("sha256", hashlib.sha256(b"").digest()), Reason.ARGUMENT_INVALID),
    "other bytes": (flip, Reason.ARGUMENT_INVALID),
    "half a hash": (set_header("sha256", b"1234"), Reason.ARGUMENT_INVALID),
    "no size": (set_header("size_bytes", 0), Reason.ARGUMENT_INVALID),
    "a negative size": (set_header("size_bytes", -1), Reason.ARGUMENT_INVALID),
    "too large": (set_header("size_bytes", 1 << 40), Reason.TOO_LARGE),
    "no format": (set_header("format", 0), Reason.ARGUMENT_INVALID),
    "an empty chunk": (
        lambda made: made.insert(1, Part(chunk=retrieval_service_pb2.UploadChunk())),
        Reason.ARGUMENT_INVALID,
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_an_upload_that_is_not_what_it_declares_is_refused(
    client: Client, filled: dict[str, Phantom], name: str
) -> None:
    change, reason = SPOILT[name]
    before = [case.name for case in client.list_cases(ARCHIVE)]
    with pytest.raises(InvalidInput) as caught:
        send(client, iter(spoilt(change)))
    assert caught.value.reason is reason
    assert [case.name for case in client.list_cases(ARCHIVE)] == before
    assert send(client, iter(spoilt(len))).hits
