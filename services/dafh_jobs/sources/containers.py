"""Files that hold files: zip and tar archives, read as they stand, and DICOMDIR."""

from __future__ import annotations

import errno
import tarfile
import weakref
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath
from typing import BinaryIO, Self, cast
from zipfile import ZipFile, ZipInfo

from dafh.errors import InvalidInput, Reason
from dafh.imaging.limits import Limits
from dafh.imaging.outline import referenced_files
from dafh_jobs.sources.entry import (
    Content,
    Entry,
    File,
    UnreadableError,
    content_of,
    damaged,
    entry_of,
    failing,
    refused,
)
from dafh_jobs.sources.files import beside, exists, file_at

ZIP_SUFFIXES = (".zip",)
TAR_SUFFIXES = (".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz")
#: In small letters: so some systems show it.
DICOMDIR = "dicomdir"

#: Bytes of a DICOMDIR that are read: that of a full disc has some ten thousand records.
MOST_DIRECTORY = 64 * 2**20

#: Between the name of an archive and that of a member.
MEMBER = "\0"

#: Bit 0 of the general purpose flags of a zip archive's member (APPNOTE 4.4.4).
_ENCRYPTED = 1


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
    elif name == DICOMDIR:
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
    for name, _ in _named(file, limits):
        yield entry_of(file_at(name))


def _directory(file: File, limits: Limits) -> Iterator[Entry]:
    """Yield a DICOMDIR met in a folder, and what it names that is not there.

    What is there comes by itself.
    """
    yield entry_of(file)
    try:
        missing = [name for name, there in _named(file, limits) if not there]
    except (InvalidInput, OSError):
        # Reading it as an image says why.
        return
    for name in missing:
        yield entry_of(file_at(name))


def _named(file: File, limits: Limits) -> Iterator[tuple[str, bool]]:
    """Yield the names in a DICOMDIR, as they are spelt on the disc, and whether they are there."""
    content = entry_of(file).read(MOST_DIRECTORY)
    for parts in referenced_files(content.beginning, limits):
        # Systems show the names of a disc, which are all in capitals, in small letters too.
        spelt = dict.fromkeys(
            beside(file.name, *map(spell, parts)) for spell in (str, str.lower, str.upper)
        )
        there = next(filter(_is_there, spelt), None)
        yield there or next(iter(spelt)), there is not None


def _is_there(name: str) -> bool:
    try:
        return exists(name)
    except OSError:
        # Nobody can tell: reading it says why.
        return True


def _zip(file: File) -> Iterator[Entry]:
    try:
        stream = file.open()
    except (OSError, InvalidInput) as error:
        yield _instead(file, file.name, error)
        return
    try:
        archive = ZipFile(stream)
        # Not `is_dir`, which does not bear a member without a name.
        members = [one for one in archive.infolist() if not one.filename.endswith("/")]
    except Exception as error:  # noqa: BLE001 - what damage provokes has no ancestor in common
        stream.close()
        yield _instead(file, file.name, error)
        return
    # Members are read later and by others: the last of them that is let go of closes the archive.
    held = _Zip(archive)
    weakref.finalize(held, stream.close)
    met: Counter[str] = Counter()
    for member in members:
        yield Entry(
            _place(file, member.filename, met),
            f"{member.CRC:08x} {member.file_size}",
            partial(held.read, member),
        )


class _Zip:
    """An open archive, read by several threads."""

    def __init__(self, archive: ZipFile) -> None:
        self._archive = archive

    def read(self, member: ZipInfo, most: int) -> Content:
        if member.file_size >= most:
            return _too_large(member.file_size)
        try:
            with self._archive.open(member) as stream:
                return content_of(cast("BinaryIO", stream), most)
        except Exception as error:
            if _lies_outside(error):
                raise
            if member.flag_bits & _ENCRYPTED:
                reason, what = Reason.CONTAINER_ENCRYPTED, "encrypted"
            elif isinstance(error, NotImplementedError):
                reason, what = Reason.CONTAINER_UNSUPPORTED, "compressed in a way not known here"
            else:
                reason, what = Reason.CONTAINER_DAMAGED, "damaged"
            fault = InvalidInput(reason, f"A member of a zip archive is {what}.", subject="source")
            return refused(fault, member.file_size)


def _tar(file: File, most: int) -> Iterator[Entry]:
    """Read a tar archive from its beginning to its end: it may be a stream."""
    try:
        stream = file.open()
    except (OSError, InvalidInput) as error:
        yield _instead(file, file.name, error)
        return
    met: Counter[str] = Counter()
    with stream:
        members = _members(stream, most)
        while True:
            try:
                found = next(members, None)
            except Exception as error:  # noqa: BLE001 - what damage provokes has no ancestor in common
                yield _instead(file, f"{file.name}{MEMBER}", error)
                return
            if found is None:
                return
            member, content = found
            yield Entry(
                _place(file, member.name, met),
                f"{file.stamp} {member.size} {member.mtime}" if file.stamp else "",
                partial(_read_already, content),
            )


def _members(stream: BinaryIO, most: int) -> Iterator[tuple[tarfile.TarInfo, Content]]:
    """Yield what a tar archive holds, but folders."""
    with tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Header) as archive:
        while (member := archive.next()) is not None:
            # All headers are kept for those who go back: memory would grow with the archive.
            archive.members = []  # type: ignore[attr-defined]  # not among the published names
            if not member.isdir():
                yield member, _member(archive, member, most)


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo, most: int) -> Content:
    if not member.isreg():
        fault = (
            "A link, pipe or device in a tar archive is no file; where a link leads is not read."
        )
        return refused(InvalidInput(Reason.NOT_A_FILE, fault, subject="source"))
    if member.size >= most:
        return _too_large(member.size)
    return content_of(cast("BinaryIO", archive.extractfile(member)), most)


class _Header(tarfile.TarInfo):
    """A header whose damage is an error, and not the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        """Read the next header."""
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # not among the published names
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


def _read_already(content: Content, most: int) -> Content:
    return replace(content, beginning=content.beginning[:most])


def _place(file: File, name: str, met: Counter[str]) -> str:
    """Return the name of a member, also where an archive holds several of its name."""
    met[name] += 1
    again = f"{MEMBER}{met[name]}" if met[name] > 1 else ""
    return f"{file.name}{MEMBER}{name}{again}"


def _instead(file: File, name: str, error: Exception) -> Entry:
    """Return what stands for the members that an error keeps from us."""
    if _lies_outside(error):
        return failing(name, "an archive cannot be read")
    if isinstance(error, InvalidInput):
        return entry_of(file)
    fault = InvalidInput(
        Reason.CONTAINER_DAMAGED,
        "A zip or tar archive is damaged; what was readable of it was read.",
        subject="source",
    )
    return damaged(file, name, fault)


def _lies_outside(error: Exception) -> bool:
    """Say whether an error is one of disks or stores, and not of the bytes that they gave."""
    # Of the libraries, bz2 raises `OSError` without a number, and a place before the beginning of
    # the file is EINVAL.
    numbered = isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)
    return numbered or isinstance(error, UnreadableError)


def _too_large(size: int) -> Content:
    """Return what stands for a member that would be refused when all of it was unpacked."""
    what = f"A member of an archive exceeds the limit request_bytes: {size} bytes."
    return refused(InvalidInput(Reason.TOO_LARGE, what, subject="request_bytes"), size)
