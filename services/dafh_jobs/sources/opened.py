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

from dafh.errors import InvalidInput, Reason, Unavailable
from dafh.imaging.limits import Limits
from dafh_jobs.sources.containers import DICOMDIR, TAR_SUFFIXES, ZIP_SUFFIXES, expanded, listed
from dafh_jobs.sources.entry import Entry, File, Labels, entry_of
from dafh_jobs.sources.files import beside, exists, file_at, walk
from dafh_jobs.sources.remote import check_argument, is_address

MANIFESTS = (".csv", ".parquet")
#: The column of a manifest that names files.
FILE = "file"
ARCHIVES = (*ZIP_SUFFIXES, *TAR_SUFFIXES)
_ROWS = 8_192


def check(words: Sequence[str]) -> None:
    """Refuse sources that are not there, before anything is begun.

    Raises
    ------
    InvalidInput
        There is nothing at a path or address.
    Unavailable
        Nobody can tell: a store does not answer, or does not let us look.
    """
    for number, word in enumerate(words, 1):
        if is_address(word):
            check_argument(word)
        try:
            there = exists(word)
        except OSError as error:
            raise Unavailable(
                Reason.SOURCE_UNREADABLE,
                f"Source {number} of {len(words)} cannot be looked at ({error.strerror or error}).",
                remedy="Look at the network, and at what the store's own configuration allows.",
                subject="source",
            ) from None
        if not there:
            raise InvalidInput(
                Reason.SOURCE_UNREADABLE,
                f"There is nothing at source {number} of {len(words)}.",
                remedy="Look at its path or address; a share may not be mounted.",
                subject="source",
            )


def entries(
    words: Iterable[str], limits: Limits, labels: Mapping[str, Labels] | None = None
) -> Iterator[Entry]:
    """Yield the files of sources, always in the same order.

    Parameters
    ----------
    words
        Each a folder, a file, a manifest, an archive, a DICOMDIR, or the address of one.
    labels
        Path below its source -> what is known of a file.
    """
    for word in words:
        for entry in _of(word, limits):
            known = (labels or {}).get(_below(word, entry.name))
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


def read_labels(table: Path | None) -> dict[str, Labels]:
    """Read a table of labels; an empty one where there is no table.

    Raises
    ------
    InvalidInput, Unavailable
        It is no table with a column for files, or cannot be read.
    """
    if table is None:
        return {}
    return {str(row[FILE]): _labels(row) for row in _rows(file_at(str(table)))}


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
    path = PurePosixPath(name)
    if not path.is_relative_to(root):
        return name
    below = path.relative_to(root).as_posix()
    return path.name if below == "." else below


def _manifest(file: File) -> Iterator[Entry]:
    for row in _rows(file):
        named = str(row[FILE])
        where = named if is_address(named) else beside(file.name, named)
        yield entry_of(file_at(where), _labels(row))


def _rows(file: File) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a manifest.

    Raises
    ------
    InvalidInput
        It is no such table.
    Unavailable
        It cannot be read.
    """
    parse = _parquet if file.name.lower().endswith(".parquet") else _csv
    try:
        with file.open() as stream:
            yield from parse(stream)
    except OSError as error:
        raise Unavailable(
            Reason.SOURCE_UNREADABLE,
            f"A manifest or table of labels cannot be read ({error.strerror or error}).",
            remedy="Look at its permissions, and at the network where it is in a store.",
            subject="source",
        ) from None


def _parquet(stream: BinaryIO) -> Iterator[Mapping[str, Any]]:
    try:
        table = pq.ParquetFile(stream)
        _require_column(table.schema_arrow.names)
        for batch in table.iter_batches(_ROWS):
            yield from batch.to_pylist()
    except pa.ArrowException:
        raise _no_manifest("it is no Parquet file") from None


def _csv(stream: BinaryIO) -> Iterator[Mapping[str, Any]]:
    try:
        with io.TextIOWrapper(stream, "utf-8-sig", newline="") as text:
            rows = csv.DictReader(text)
            _require_column(rows.fieldnames or ())
            yield from rows
    except (UnicodeDecodeError, csv.Error):
        raise _no_manifest("it is no CSV in UTF-8") from None


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


def _labels(row: Mapping[str, Any]) -> Labels:
    return Labels(*(str(row.get(name) or "") for name in ("label", "cancer_type")))
