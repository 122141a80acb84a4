"""From what is named on a command line to entries."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from dafh.errors import DafhError, InvalidInput, Reason, Unavailable
from dafh.imaging.limits import Limits
from dafh_jobs.sources.containers import (
    DICOMDIR,
    MEMBER,
    TAR_SUFFIXES,
    ZIP_SUFFIXES,
    expanded,
    listed,
)
from dafh_jobs.sources.entry import Entry, File, Labels, LabelTable, entry_of
from dafh_jobs.sources.files import beside, exists, file_at, is_empty_folder, walk
from dafh_jobs.sources.remote import check_address, check_argument, is_address

MANIFESTS = (".csv", ".parquet")
#: The column of a manifest that names files.
FILE = "file"
ARCHIVES = (*ZIP_SUFFIXES, *TAR_SUFFIXES)
_ROWS = 8_192


def check(words: Sequence[str]) -> None:
    """Refuse sources that are not there or cannot be used, before anything is begun.

    Raises
    ------
    InvalidInput, Misconfigured
        There is nothing at a path or address, it is a manifest with a row that says nothing, or an
        address that must not be used.
    Unavailable
        Nobody can tell: a store does not answer, or does not let us look.
    """
    require_there(words)
    for word in words:
        if word.lower().endswith(MANIFESTS):
            _check_manifest(file_at(word))


def _check_manifest(file: File) -> None:
    for number, (name, _) in enumerate(_named(file), 1):
        try:
            if is_address(name):
                check_address(name)
        except DafhError as error:
            what = f"Row {number} of a manifest: {error.message}"
            raise type(error)(
                error.reason, what, remedy=error.remedy, subject=error.subject
            ) from None


def require_there(words: Sequence[str]) -> None:
    """Refuse sources that are not there.

    Raises
    ------
    InvalidInput, Misconfigured, Unavailable
        As `check`.
    """
    for number, word in enumerate(words, 1):
        which = f"{number} of {len(words)}"
        if is_address(word):
            check_argument(word)
        try:
            there = exists(word)
        except OSError as error:
            raise Unavailable(
                Reason.SOURCE_UNREADABLE,
                f"Source {which} cannot be looked at ({error.strerror or error}).",
                remedy="Look at the network, and at what the store's own configuration allows.",
                subject="source",
            ) from None
        if not there:
            raise InvalidInput(
                Reason.SOURCE_UNREADABLE,
                f"There is nothing at source {which}.",
                remedy="Look at its path or address; a share may not be mounted.",
                subject="source",
            )
        if is_empty_folder(word):
            raise Unavailable(
                Reason.SOURCE_UNREADABLE,
                f"There is nothing in the folder that is source {which}.",
                remedy="A share may not be mounted; put any file into a folder that may be empty.",
                subject="source",
            )


def entries(
    words: Iterable[str], limits: Limits, labels: LabelTable | None = None
) -> Iterator[Entry]:
    """Yield the files of sources, always in the same order.

    Parameters
    ----------
    words
        Each a folder, a file, a manifest, an archive, a DICOMDIR, or the address of one.
    labels
        What is known of files.
    """
    for word in words:
        for entry in _of(word, limits):
            known = labels.of(_below(word, entry.name)) if labels else None
            yield replace(entry, labels=known) if known else entry


def count(words: Iterable[str], over: threading.Event) -> int | None:
    """Return how many files there are; ``None`` where only reading them would tell.

    Parameters
    ----------
    over
        Set when nobody wants to know any more.
    """
    files = 0
    for word in words:
        if is_address(word) or word.lower().endswith((*MANIFESTS, *ARCHIVES)):
            return None
        for file in walk(word):
            if over.is_set() or file.name.lower().endswith(ARCHIVES):
                return None
            files += 1
    return files


def read_labels(table: Path | None) -> LabelTable:
    """Read a table of labels; an empty one where there is no table.

    Raises
    ------
    InvalidInput, Unavailable
        It is no table with a column for files, a row says nothing, or it cannot be read.
    """
    if table is None:
        return LabelTable({})
    return LabelTable(
        {PurePosixPath(name).as_posix(): known for name, known in _named(file_at(str(table)))}
    )


def _of(word: str, limits: Limits) -> Iterator[Entry]:
    name = PurePosixPath(word).name.lower()
    if name.endswith(MANIFESTS):
        yield from _manifest(file_at(word))
    elif name == DICOMDIR:
        yield from listed(file_at(word), limits)
    else:
        for file in walk(word):
            yield from expanded(file, limits)


def _below(root: str, name: str) -> str:
    """Return what a table of labels calls an entry: ``folder/file``, ``archive.zip/member``."""
    # A member has the labels of its name, also where an archive holds several of it.
    path = PurePosixPath("/".join(name.split(MEMBER)[:2]))
    below = path.relative_to(root) if path.is_relative_to(root) else path
    return below.as_posix() if below.name else path.name


def _manifest(file: File) -> Iterator[Entry]:
    for named, known in _named(file):
        where = named if is_address(named) else beside(file.name, named)
        yield entry_of(file_at(where), known)


def _named(file: File) -> Iterator[tuple[str, Labels]]:
    """Yield the names of files in a manifest or table of labels, and their labels.

    Raises
    ------
    InvalidInput
        It is no such table, or a row of it names no file.
    Unavailable
        It cannot be read.
    """
    parse = _parquet if file.name.lower().endswith(".parquet") else _csv
    try:
        with file.open() as stream:
            for place, row in parse(stream):
                name = row.get(FILE)
                if not isinstance(name, str | int) or name == "" or "\0" in str(name):
                    raise _no_manifest(f"{place} names no file")
                texts = (str(row.get(column) or "") for column in ("label", "cancer_type"))
                yield str(name), Labels(*texts)
    except OSError as error:
        raise Unavailable(
            Reason.SOURCE_UNREADABLE,
            f"A manifest or table of labels cannot be read ({error.strerror or error}).",
            remedy="Look at its permissions, and at the network where it is in a store.",
            subject="source",
        ) from None


def _parquet(stream: BinaryIO) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield where a row is, and the row."""
    try:
        table = pq.ParquetFile(stream)
        _require_column(table.schema_arrow.names)
        rows = (row for batch in table.iter_batches(_ROWS) for row in batch.to_pylist())
        for number, row in enumerate(rows, 1):
            yield f"row {number}", row
    except pa.ArrowException:
        raise _no_manifest("it is no Parquet file") from None


def _csv(stream: BinaryIO) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield where a row is, and the row."""
    # What is no UTF-8 is kept for a moment, so that it is known where it is.
    with io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape", newline="") as text:
        rows = csv.reader(text)
        try:
            names = next(rows, [])
            _require_column(names)
            for cells in filter(None, rows):
                "".join(cells).encode()
                yield f"line {rows.line_num}", dict(zip(names, cells, strict=False))
        except (UnicodeEncodeError, csv.Error):
            raise _no_manifest(f"line {rows.line_num} is no CSV in UTF-8") from None


def _require_column(names: Iterable[str]) -> None:
    if FILE not in names:
        raise _no_manifest(f"it has no column {FILE}")


def _no_manifest(why: str) -> InvalidInput:
    return InvalidInput(
        Reason.SOURCE_UNREADABLE,
        f"The manifest or table of labels cannot be used: {why}.",
        remedy="Give it the columns file, and label and cancer_type where they are known.",
        subject="source",
    )
