"""One file of a source, wherever it lies."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import BinaryIO

from dafh.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Labels:
    """What a table says of a file."""

    label: str = ""
    cancer_type: str = ""


class LabelTable:
    """What a table says of files, and which of them were met.

    Parameters
    ----------
    rows
        Path below its source -> labels; of a member, that of its archive before its own.
    """

    def __init__(self, rows: Mapping[str, Labels]) -> None:
        self._rows = rows
        self._met: set[str] = set()

    def of(self, path: str) -> Labels | None:
        """Return the labels of a file that was met."""
        if path in self._rows:
            self._met.add(path)
        return self._rows.get(path)

    @property
    def of_no_file(self) -> int:
        """Rows whose file was not met."""
        return len(self._rows) - len(self._met)


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
    #: Raises `OSError`, or `InvalidInput` where it is none that could be read.
    open: Callable[[], BinaryIO]


@dataclass(frozen=True, slots=True, repr=False)
class Content:
    """What a file holds, as far as it is wanted."""

    #: The file, or its beginning where it is longer than was asked for.
    beginning: bytes
    #: Of all its bytes, hexadecimal; "" where they were not read.
    sha256: str
    size: int
    #: Why it is refused, whatever its bytes are.
    fault: InvalidInput | None = None


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
        try:
            with file.open() as stream:
                return content_of(stream, most)
        except InvalidInput as error:
            return refused(error)

    return Entry(file.name, file.stamp, read, labels)


def refused(fault: InvalidInput, size: int = 0) -> Content:
    """Return what stands for bytes that nobody reads."""
    return Content(b"", "", size, fault)


def damaged(file: File, name: str, fault: InvalidInput) -> Entry:
    """Return what stands for files that a damaged one held, so that they are reported.

    It has the SHA-256 of the damaged file, which is thus found again.
    """

    def read(most: int) -> Content:
        del most
        content = entry_of(file).read(0)
        return replace(content, fault=content.fault or fault)

    return Entry(name, "", read)


def failing(name: str, why: str) -> Entry:
    """Return what stands for files that cannot be had, so that they are reported."""

    def read(most: int) -> Content:
        del most
        raise UnreadableError(why)

    return Entry(name, "", read)
