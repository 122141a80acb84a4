"""Files that hold files: zip and tar archives, read as they stand, and DICOMDIR."""

from __future__ import annotations

import lzma
import tarfile
import weakref
import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath
from typing import BinaryIO, cast
from zipfile import BadZipFile, ZipFile, ZipInfo

from dafh.errors import InvalidInput
from dafh.imaging.limits import Limits
from dafh.imaging.outline import referenced_files
from dafh_jobs.sources.entry import (
    Content,
    Entry,
    File,
    UnreadableError,
    content_of,
    entry_of,
    failing,
)
from dafh_jobs.sources.files import beside, exists, file_at

ZIP_SUFFIXES = (".zip",)
TAR_SUFFIXES = (".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz")
DICOMDIR = "DICOMDIR"

#: Bytes of a DICOMDIR that are read: that of a full disc has some ten thousand records.
MOST_DIRECTORY = 64 * 2**20

#: Between the name of an archive and that of a member.
MEMBER = "\0"

_ZIP_FAULTS = (BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error, lzma.LZMAError)
_TAR_FAULTS = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)


def expanded(file: File, limits: Limits) -> Iterator[Entry]:
    """Yield what a file holds where it is an archive, else the file itself.

    An archive is known by its name, and a damaged one is one entry that cannot be read, after the
    members before the damage.
    """
    name = PurePosixPath(file.name).name.lower()
    if name.endswith(ZIP_SUFFIXES):
        yield from _zip(file)
    elif name.endswith(TAR_SUFFIXES):
        yield from _tar(file, limits.request_bytes + 1)
    elif name == DICOMDIR.lower():
        yield from _directory(file, limits)
    else:
        yield entry_of(file)


def listed(file: File, limits: Limits) -> Iterator[Entry]:
    """Yield the files that a DICOMDIR names, whether they are there or not.

    Raises
    ------
    InvalidInput
        It is no DICOMDIR.
    """
    content = entry_of(file).read(MOST_DIRECTORY)
    for parts in referenced_files(content.beginning, limits):
        yield entry_of(file_at(beside(file.name, *parts)))


def _directory(file: File, limits: Limits) -> Iterator[Entry]:
    """Yield a DICOMDIR met in a folder, and what it names that is not there.

    What is there comes by itself.
    """
    yield entry_of(file)
    try:
        named = list(listed(file, limits))
    except (InvalidInput, OSError):
        # Reading it as an image says why.
        return
    for entry in named:
        try:
            there = exists(entry.name)
        except OSError:
            there = True
        if not there:
            yield entry


def _zip(file: File) -> Iterator[Entry]:
    try:
        stream = file.open()
        archive = ZipFile(stream)
        members = [member for member in archive.infolist() if not member.is_dir()]
    except OSError as error:
        yield failing(file.name, error.strerror or "unknown reason")
        return
    except _ZIP_FAULTS:
        stream.close()
        yield failing(file.name, "a zip archive is damaged")
        return
    # Members are read later and by others: the last of them that is let go of closes the archive.
    held = _Zip(archive)
    weakref.finalize(held, stream.close)
    for member in members:
        yield Entry(
            f"{file.name}{MEMBER}{member.filename}",
            f"{member.CRC:08x} {member.file_size}",
            partial(held.read, member),
        )


class _Zip:
    """An open archive, read by several threads."""

    def __init__(self, archive: ZipFile) -> None:
        self._archive = archive

    def read(self, member: ZipInfo, most: int) -> Content:
        try:
            with self._archive.open(member) as stream:
                return content_of(cast("BinaryIO", stream), most)
        except _ZIP_FAULTS as error:
            locked = isinstance(error, RuntimeError) and member.flag_bits & 1
            what = "encrypted" if locked else "damaged"
            raise UnreadableError(f"a member of a zip archive is {what}") from None


def _tar(file: File, most: int) -> Iterator[Entry]:
    """Read a tar archive from its beginning to its end: it may be a stream."""
    whole = 0
    try:
        with file.open() as stream, tarfile.open(fileobj=stream, mode="r|*") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isreg() else None
                if content is None:
                    continue
                data = content_of(cast("BinaryIO", content), most)
                whole += 1
                yield Entry(
                    f"{file.name}{MEMBER}{member.name}",
                    f"{file.stamp} {member.size} {member.mtime}" if file.stamp else "",
                    partial(_read_already, data),
                )
    except _TAR_FAULTS:
        yield failing(f"{file.name}{MEMBER}", f"a tar archive is damaged behind its file {whole}")
    except OSError as error:
        yield failing(file.name, error.strerror or "unknown reason")


def _read_already(content: Content, most: int) -> Content:
    return replace(content, beginning=content.beginning[:most])
