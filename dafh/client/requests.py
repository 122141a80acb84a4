"""What a client sends: requests from keyword arguments, large images in chunks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TypedDict, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from dafh.v1 import archive_service_pb2, case_pb2, image_pb2, retrieval_service_pb2

DEFAULT_ARCHIVE = "archives/default"
#: A larger image is uploaded in chunks.
LARGEST = 15 * 1024 * 1024
CHUNK = 1024 * 1024

Filled = TypeVar("Filled", bound=Message)


class Options(TypedDict, total=False):
    """How a question is to be answered: fields of `dafh.v1.RetrieveRequest`."""

    archive: str
    top_k: int
    page_size: int
    page_token: str
    filter: str
    max_distance: int | None
    include_same_patient: bool
    max_hits_per_patient: int
    max_hits_per_series: int
    explain: bool
    view: case_pb2.CaseView.ValueType
    #: Fields of the answer, such as ``hits.case.name``; all without them.
    read_mask: Sequence[str]


def question(
    options: Options,
    *,
    dicom: bytes | None = None,
    picture: bytes | None = None,
    case: str | None = None,
    code: retrieval_service_pb2.CodeQuery | None = None,
    frame: int | None = None,
) -> retrieval_service_pb2.RetrieveRequest:
    """Return a question."""
    mask = FieldMask(paths=options.get("read_mask", ()))
    plain = {name: value for name, value in options.items() if name != "read_mask"}
    request = retrieval_service_pb2.RetrieveRequest(**plain)  # type: ignore[arg-type]  # of Options
    if mask.paths:
        request.read_mask.CopyFrom(mask)
    given = {"dicom": dicom, "picture": picture, "case": case}
    if code is not None:
        request.query.code.CopyFrom(code)
    if any(value is not None for value in given.values()):
        fill(request.query, **given)
    if frame is not None:
        request.query.frame.number = frame
    return request


def is_large(request: retrieval_service_pb2.RetrieveRequest) -> bool:
    """Say whether a question's image must be uploaded in chunks."""
    return max(len(request.query.dicom), len(request.query.picture)) > LARGEST


def upload(
    request: retrieval_service_pb2.RetrieveRequest,
) -> Iterator[retrieval_service_pb2.RetrieveUploadRequest]:
    """Yield a question and its image, in chunks."""
    query = request.query
    dicom = query.WhichOneof("source") == "dicom"
    data = query.dicom if dicom else query.picture
    header = retrieval_service_pb2.UploadHeader(
        format=image_pb2.IMAGE_FORMAT_DICOM if dicom else image_pb2.IMAGE_FORMAT_PICTURE,
        size_bytes=len(data),
        sha256=hashlib.sha256(data).digest(),
    )
    header.request.CopyFrom(request)
    header.request.query.ClearField("source")
    yield retrieval_service_pb2.RetrieveUploadRequest(header=header)
    for offset in range(0, len(data), CHUNK):
        chunk = retrieval_service_pb2.UploadChunk(offset=offset, data=data[offset : offset + CHUNK])
        yield retrieval_service_pb2.RetrieveUploadRequest(chunk=chunk)


def next_page(
    request: retrieval_service_pb2.RetrieveRequest, token: str
) -> retrieval_service_pb2.RetrieveRequest:
    """Return what asks for the next page: the same question without its query."""
    following = retrieval_service_pb2.RetrieveRequest()
    following.CopyFrom(request)
    following.ClearField("query")
    following.page_token = token
    return following


def with_parent(
    requests: Iterable[archive_service_pb2.IndexCasesRequest],
) -> Iterator[archive_service_pb2.IndexCasesRequest]:
    """Yield images to index; where the first names no archive, it is the default one."""
    for position, request in enumerate(requests):
        if position == 0 and not request.parent:
            request.parent = DEFAULT_ARCHIVE
        yield request


def fill(message: Filled, **fields: bytes | str | None) -> Filled:
    """Set the fields that are given, and return the message."""
    for name, value in fields.items():
        if value is not None:
            setattr(message, name, value)
    return message
