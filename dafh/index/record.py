"""What the catalogue keeps of an archive: one document, checked whenever it is read."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dafh.errors import Internal, Reason
from dafh.index.case import Coding, CodingKey, digest
from dafh.index.collection import archive_key


class Strict(BaseModel):
    """A document that holds what it says and nothing else."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Document = TypeVar("Document", bound=Strict)


def subject(kind: str, tenant: str, archive: str, coding: str = "") -> str:
    """Return what the ledger's note of some kind on an archive, or a coding of it, is about."""
    return f"{kind}-{archive_key(tenant, archive)}-{coding}"


class PointerKind(StrEnum):
    """How the pointer to an archive's live coding is kept."""

    ALIAS = "alias"
    NOTE = "note"
    #: It was not noted: as the server can.
    UNNOTED = ""


class CodingRecord(Strict):
    """A coding, as the catalogue keeps it."""

    model_hash: str
    model_version: int
    bits: int
    key_id: str
    shared: bool
    #: Microseconds since the epoch, UTC; 0 where it was not noted.
    created: int

    @classmethod
    def of(cls, coding: Coding, created: int) -> CodingRecord:
        """Return the record of a coding."""
        return cls(
            model_hash=coding.model_hash,
            model_version=coding.model_version,
            bits=coding.bits,
            key_id=coding.key_id,
            shared=coding.shared,
            created=created,
        )


class ArchiveRecord(Strict):
    """An archive, as the catalogue keeps it. What it means to do is written before it is done."""

    tenant: str
    archive: str
    #: Microseconds since the epoch, UTC.
    created: int
    #: In order of making: the first is the live one where no pointer says otherwise.
    codings: tuple[CodingRecord, ...]
    #: Codings that are gone for everybody, but whose cases may not have been removed yet.
    doomed: tuple[CodingRecord, ...] = ()
    #: Whether the archive itself is gone for everybody.
    deleted: bool = False
    #: Whether it is deleted only if it holds no case; the first of the doomed codings was live.
    if_empty: bool = False
    #: The same as long as it exists, whatever the server can do, or lets its user do, later.
    pointer: PointerKind = PointerKind.UNNOTED
    #: Counts changes; not part of the document.
    revision: int = Field(default=0, exclude=True)

    @classmethod
    def read(cls, document: str, revision: int) -> ArchiveRecord:
        """Read a document.

        Raises
        ------
        Internal
            It was not written by this version.
        """
        return parsed(cls, document).model_copy(update={"revision": revision})

    def coding(self, record: CodingRecord) -> Coding:
        """Return one of its codings."""
        return Coding(
            tenant=self.tenant,
            archive=self.archive,
            model_hash=record.model_hash,
            model_version=record.model_version,
            bits=record.bits,
            key_id=record.key_id,
            shared=record.shared,
        )

    def find(self, key: CodingKey) -> CodingRecord | None:
        """Return the coding with a key."""
        return next((one for one in self.codings if self.coding(one).key == key), None)

    def without(self, record: CodingRecord) -> tuple[CodingRecord, ...]:
        """Return its other codings."""
        return tuple(one for one in self.codings if one != record)

    def etag(self, live: CodingKey) -> str:
        """Return what changes with every change: 16 hexadecimal digits."""
        return digest(self.model_dump_json(), str(self.revision), live)[:16]


def parsed(kind: type[Document], text: str) -> Document:
    """Read a document of the catalogue.

    Raises
    ------
    Internal
        It was not written by this version.
    """
    try:
        return kind.model_validate_json(text)
    except ValidationError:
        raise Internal(
            Reason.INDEX_WRONG,
            "The catalogue of archives holds a document that this version cannot read.",
            remedy="It was written by another version of DAFH; use that one.",
        ) from None
