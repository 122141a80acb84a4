"""The manifest of a dump: what it holds, and by what its files are checked."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Protocol

from pydantic import ValidationError

from dafh.errors import InvalidInput, Reason
from dafh.index.case import Case, Coding
from dafh.index.checks import check_coding
from dafh.index.record import Strict
from dafh.index.schema import FIELDS, Kind, Source, metadata_sha256
from dafh.writing import written

# Readers of Parquet folders pass over names that begin so.
MANIFEST = "_manifest.json"
#: Names of the columns without which a dump cannot be loaded, in order.
CASE_COLUMNS = tuple(
    field.name
    for field in FIELDS
    if field.source is Source.CASE and field.kind is not Kind.CODE_WORD
)
#: What tells codes apart that must not be compared. The plan says it of all rows; programs that
#: read several dumps at once see rows only.
CODING_COLUMNS = ("bits", "model_version")
#: Names of the columns of a whole dump, in order.
COLUMNS = (*CASE_COLUMNS, *CODING_COLUMNS)

#: The plan of a dump that is not finished.
PLAN = "_plan.json"

_PART = re.compile(r"cases-[0-9]{5}-of-[0-9]{5}\.parquet")
_KEYS = 1 << 128


class Store(Protocol):
    """Where the files of a dump lie: a flat folder; a file appears whole or not at all."""

    def names(self) -> list[str]:
        """Return the names of the files."""
        ...

    def read(self, name: str) -> bytes:
        """Return a file; raise `InvalidInput` where there is none."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a file at once, over a former one."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file; that it is gone already is no fault."""
        ...


class Plan(Strict):
    """What a dump is of, settled when it begins; each of its files says it too."""

    #: Version of the format.
    layout: Literal[1]
    tenant: str
    archive: str
    model_hash: str
    model_version: int
    bits: int
    key_id: str
    #: Columns of the files, of `COLUMNS`; what lacks one of `CASE_COLUMNS` cannot be loaded again.
    columns: tuple[str, ...]
    #: Files; each holds an equal range of primary keys, which are hashes and so evenly spread.
    parts: int
    #: T0, microseconds since the epoch: every case that was acknowledged before it and not touched
    #: since is in the dump once.
    began: int
    #: Erasures from the archive that had begun or ended by then.
    erasures: int

    @property
    def coding(self) -> Coding:
        """The coding that the cases are of."""
        return Coding(
            self.tenant,
            self.archive,
            self.model_hash,
            self.model_version,
            self.bits,
            self.key_id,
        )

    def name(self, part: int) -> str:
        """Return the name of a file."""
        return f"cases-{part:05}-of-{self.parts:05}.parquet"

    def range(self, part: int) -> tuple[str, str | None]:
        """Return between which primary keys those of a file lie, both exclusive; for `scan`."""
        first, end = (number * _KEYS // self.parts for number in (part, part + 1))
        return (f"{first - 1:032x}" if first else "", f"{end:032x}" if end < _KEYS else None)


class Part(Strict):
    """One file of a dump."""

    name: str
    rows: int
    sha256: str
    #: `Digest` of its cases.
    cases: str


class Manifest(Strict):
    """A whole dump; it is written last."""

    plan: Plan
    parts: tuple[Part, ...]
    rows: int
    #: `Digest` of all cases: equal for two dumps that hold the same, ingest times apart.
    cases: str


class Digest:
    """Tells sets of cases apart: the sum of the SHA-256 of each, modulo 2²⁵⁶.

    It depends neither on the order of the cases nor on how they are parted. It is there to compare
    dumps of our own, not to notice a forger; each file has a SHA-256 of its own.
    """

    def __init__(self) -> None:
        self._sum = 0

    def add(self, case: Case) -> None:
        """Count a case: all of it but its ingest time."""
        text = f"{metadata_sha256(case)} {case.code.hex()}"
        self._sum += int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")

    def hex(self) -> str:
        """Return it as 64 hexadecimal digits."""
        return f"{self._sum % (1 << 256):064x}"

    @staticmethod
    def total(digests: Iterable[str]) -> str:
        """Return the digest of several sets together."""
        return f"{sum(int(one, 16) for one in digests) % (1 << 256):064x}"


class Folder:
    """A `Store` in a folder that its owner alone may read.

    Parameters
    ----------
    path
        Made when something is written and it is missing.
    """

    def __init__(self, path: Path) -> None:
        #: Where it is.
        self.path = path

    def names(self) -> list[str]:
        """Return the names of the files."""
        if not self.path.is_dir():
            return []
        files = (file.name for file in self.path.iterdir() if file.is_file())
        return sorted(name for name in files if not name.startswith("."))

    def read(self, name: str) -> bytes:
        """Return a file."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            raise unreadable(f"{name} is missing") from None

    def write(self, name: str, content: bytes) -> None:
        """Write a file at once, over a former one."""
        with written(self.path / name) as stream:
            stream.write(content)

    def remove(self, name: str) -> None:
        """Remove a file; that it is gone already is no fault."""
        (self.path / name).unlink(missing_ok=True)


def read_manifest(store: Store) -> Manifest:
    """Return the manifest of a complete dump.

    Raises
    ------
    InvalidInput
        There is none, or it contradicts itself.
    """
    if MANIFEST not in store.names():
        raise unreadable("it has no manifest: it was not finished, or this is no dump")
    try:
        manifest = Manifest.model_validate_json(store.read(MANIFEST))
    except ValidationError:
        raise unreadable("its manifest is not one of this version") from None
    plan, parts = manifest.plan, manifest.parts
    check_coding(plan.coding)
    if (
        len(parts) != plan.parts
        or [part.name for part in parts] != [plan.name(number) for number in range(plan.parts)]
        or manifest.rows != sum(part.rows for part in parts)
        or manifest.cases != Digest.total(part.cases for part in parts)
    ):
        raise unreadable("its manifest contradicts itself")
    return manifest


def read_plan(store: Store) -> Plan:
    """Return the plan of a dump that is not finished.

    Raises
    ------
    InvalidInput
        It is not one of this version.
    """
    try:
        return Plan.model_validate_json(store.read(PLAN))
    except ValidationError:
        raise unreadable("its plan is not one of this version") from None


def part_names(store: Store) -> list[str]:
    """Return which files of the store are parts of dumps."""
    return [name for name in store.names() if _PART.fullmatch(name)]


def unreadable(why: str) -> InvalidInput:
    """Return the error of a dump that cannot be read."""
    return InvalidInput(
        Reason.DUMP_UNREADABLE,
        f"The dump cannot be read: {why}.",
        remedy="Take another copy of it, or dump the archive again.",
        subject="dump",
    )
