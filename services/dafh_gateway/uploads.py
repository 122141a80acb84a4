"""An image that comes in chunks: held against what its header declares."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from dafh.errors import InvalidInput, Reason
from dafh.v1 import image_pb2, retrieval_service_pb2

SHA256_BYTES = 32
#: How an image may be read; which of them it is, its first bytes say.
FORMATS = frozenset({image_pb2.IMAGE_FORMAT_DICOM, image_pb2.IMAGE_FORMAT_PICTURE})


def read_header(
    first: retrieval_service_pb2.RetrieveUploadRequest | None, most: int
) -> retrieval_service_pb2.UploadHeader:
    """Read what an upload is going to hold.

    Parameters
    ----------
    first
        The first message; ``None`` where there is none.
    most
        Bytes that are taken.

    Raises
    ------
    InvalidInput
        There is no header, it is incomplete, or declares too much.
    """
    if first is None or first.WhichOneof("part") != "header":
        raise _wrong("header", "The upload does not begin with a header.")
    header = first.header
    if header.format not in FORMATS:
        raise _wrong("header.format", "The header does not say how to read the image.")
    if len(header.sha256) != SHA256_BYTES:
        raise _wrong("header.sha256", f"sha256 has {len(header.sha256)} bytes, not 32.")
    if header.size_bytes < 1:
        raise _wrong("header.size_bytes", "size_bytes must be 1 or more.")
    if header.request.query.WhichOneof("source") is not None:
        raise _wrong("header.request.query", "The query of an upload holds no image, case or code.")
    if header.size_bytes > most:
        raise InvalidInput(
            Reason.TOO_LARGE,
            f"The upload declares {header.size_bytes} bytes; at most {most} are taken.",
            subject="header.size_bytes",
        )
    return header


def read_chunks(
    requests: Iterator[retrieval_service_pb2.RetrieveUploadRequest],
    header: retrieval_service_pb2.UploadHeader,
) -> bytes:
    """Read the bytes of an upload.

    Raises
    ------
    InvalidInput
        A chunk is out of order, fewer or more bytes come than declared, or their SHA-256 is
        another.
    """
    size = header.size_bytes
    data = bytearray()
    for part in requests:
        if part.WhichOneof("part") != "chunk":
            raise _wrong("header", "The header comes twice, or a message is empty.")
        chunk = part.chunk
        if chunk.offset != len(data):
            raise _wrong(
                "chunk.offset", f"A chunk of offset {chunk.offset} came where {len(data)} was next."
            )
        if not chunk.data:
            raise _wrong("chunk.data", "A chunk is empty.")
        if len(data) + len(chunk.data) > size:
            raise _wrong("chunk.data", f"More bytes came than the {size} declared.")
        data += chunk.data
    if len(data) != size:
        raise _wrong("chunk.data", f"{len(data)} bytes came of the {size} declared.")
    image = bytes(data)
    if hashlib.sha256(image).digest() != header.sha256:
        raise _wrong("header.sha256", "The bytes that came have another SHA-256.")
    return image


def _wrong(field: str, message: str) -> InvalidInput:
    return InvalidInput(Reason.ARGUMENT_INVALID, message, subject=field)
