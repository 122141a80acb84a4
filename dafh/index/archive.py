"""An archive as callers see it: a tenant's named set of cases, and how it is coded."""

from __future__ import annotations

from dataclasses import dataclass

from dafh.errors import FailedPrecondition, Reason
from dafh.index.case import Coding, CodingKey
from dafh.index.difference import Missing
from dafh.index.pointer import Marks
from dafh.index.record import ArchiveRecord, PointerKind


@dataclass(frozen=True, slots=True)
class ArchiveCoding:
    """A coding of an archive."""

    coding: Coding
    #: Microseconds since the epoch, UTC; 0 where it was not noted.
    created: int


@dataclass(frozen=True, slots=True)
class Archive:
    """A tenant's named set of cases."""

    tenant: str
    name: str
    #: Microseconds since the epoch, UTC; 0 where it was not noted.
    created: int
    #: The live one first, then in order of making.
    codings: tuple[ArchiveCoding, ...]
    #: Changes with every change of the above.
    etag: str
    #: The coding that a switch is about to make live, or died on the way.
    switching_to: Coding | None = None
    #: How the pointer to the live coding is kept.
    pointer: PointerKind = PointerKind.UNNOTED

    @property
    def live(self) -> Coding:
        """The coding that queries are answered from."""
        return self.codings[0].coding

    def find(self, key: CodingKey) -> Coding | None:
        """Return the coding with a key."""
        return next((one.coding for one in self.codings if one.coding.key == key), None)


@dataclass(frozen=True, slots=True)
class Switched:
    """What a switch did, or would do."""

    archive: Archive
    missing: Missing


def archive_of(record: ArchiveRecord, marks: Marks) -> Archive:
    """Return an archive as its record and its pointer say."""
    live = record.find(marks.live) or record.codings[0]
    to = record.find(marks.next)
    return Archive(
        tenant=record.tenant,
        name=record.archive,
        created=record.created,
        codings=tuple(
            ArchiveCoding(record.coding(one), one.created) for one in (live, *record.without(live))
        ),
        etag=record.etag(record.coding(live).key),
        switching_to=None if to is None else record.coding(to),
        pointer=record.pointer,
    )


def require_same(stored: Coding, coding: Coding) -> None:
    """Refuse to take one coding for another.

    Raises
    ------
    FailedPrecondition
        The patient keys were made with another key, the model is another, or the length is.
    """
    if stored.key_id != coding.key_id:
        raise key_mismatch(stored.key_id, coding.key_id)
    stored.require_model(coding.model_hash)
    if stored.bits != coding.bits:
        raise FailedPrecondition(
            Reason.CODE_LENGTH_MISMATCH,
            f"The archive's codes have {stored.bits} bits, not {coding.bits}.",
            remedy=f"Set bits to {stored.bits}, or use another archive.",
            subject="bits",
        )


def key_mismatch(stored: str, given: str) -> FailedPrecondition:
    """Return the error of patient keys that cannot be compared."""
    return FailedPrecondition(
        Reason.PATIENT_KEY_MISMATCH,
        f"The archive's patient keys were made with key {stored}, not {given}: the same patient "
        "would not be recognised.",
        remedy="Give this program the key file that the archive was indexed with.",
        subject="patient_key_file",
    )
