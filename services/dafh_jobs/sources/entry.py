"""One file of a source, wherever it lies."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO


@dataclass(frozen=True, slots=True)
class Labels:
    """What a table says of a file."""

    label: str = ""
    cancer_type: str = ""


class UnreadableError(OSError):
    """A file or a member of an archive cannot be read; its text names neither."""


@dataclass(frozen=True, slots=True, repr=False)
class File:
    """A file that may be an image, an archive of images, or anything else.

    It has no `repr`: names of files are data of patients.
    """

    #: Path or address.
    name: str
    #: Changes when its content does, as far as can be told without reading it; "" where unknown.
    stamp: str
    open: Callable[[], BinaryIO]


@dataclass(frozen=True, slots=True, repr=False)
class Content:
    """What a file holds, as far as it is wanted."""

    #: The file, or its beginning where it is longer than was asked for.
    beginning: bytes
    #: Of all its bytes, hexadecimal.
    sha256: str
    size: int


@dataclass(frozen=True, slots=True, repr=False)
class Entry:
    """One file on its way into an archive; it may be a member of another file."""

    #: Path, address, or that of the archive and the member's in it: no other entry has the same.
    name: str
    #: As that of `File`.
    stamp: str
    #: Returns the content, of which at most so many bytes are kept; raises `OSError`.
    read: Callable[[int], Content]
    labels: Labels = Labels()


def unlisted(name: str, why: str) -> File:
    """Return what stands for the files of a folder that cannot be listed."""

    def refuse() -> BinaryIO:
        raise UnreadableError(f"a folder cannot be listed: {why}")

    return File(name, "", refuse)


#: Bytes of a file that are hashed at a time.
_CHUNK = 2**20


def content_of(stream: BinaryIO, most: int) -> Content:
    """Read a stream to its end, and keep its beginning."""
    beginning = stream.read(most)
    digest, size = hashlib.sha256(beginning), len(beginning)
    while size >= most and (chunk := stream.read(_CHUNK)):
        digest.update(chunk)
        size += len(chunk)
    return Content(beginning, digest.hexdigest(), size)


def entry_of(file: File, labels: Labels = Labels()) -> Entry:
    """Return a file as one entry, whatever it holds."""

    def read(most: int) -> Content:
        with file.open() as stream:
            return content_of(stream, most)

    return Entry(file.name, file.stamp, read, labels)


def failing(name: str, why: str) -> Entry:
    """Return what stands for files that cannot be had, so that they are reported."""

    def read(most: int) -> Content:
        del most
        raise UnreadableError(why)

    return Entry(name, "", read)
