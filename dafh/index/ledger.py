"""The ledger: documents in a small collection of Milvus, of which the catalogue is made.

Milvus replaces a row by deleting and inserting it, and a crash between the two would lose both. So
a document is never replaced: its next revision is written beside it, and then the former ones are
deleted. The highest revision counts; whoever dies on the way leaves one that is whole.

Milvus has no conditional write either. Two programs that change the same document in the same
moment can overtake each other; one of the two documents stands then, and whoever notices that it is
not theirs is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dafh.deadline import Deadline
from dafh.errors import Outdated, Reason
from dafh.index.connection import Connection, MilvusClient
from dafh.index.filters.milvus import literal
from dafh.index.schema import NAME, Field, Kind
from dafh.index.storage import milvus_schema

COLLECTION = "dafh_archives"

FIELDS = (
    Field(
        "id", Kind.TEXT, 128, required=True, about="Primary key: subject and revision of the note."
    ),
    Field("subject", Kind.TEXT, 96, required=True, about="What the document is about."),
    Field("tenant", Kind.TEXT, 64, required=True, syntax=NAME, about="Whose it is."),
    Field(
        "revision", Kind.INTEGER, required=True, least=1, about="The highest of a subject counts."
    ),
    Field("document", Kind.TEXT, 60_000, required=True, about="JSON."),
    Field(
        "code", Kind.CODE, required=True, about="Of no meaning: Milvus wants a vector of every row."
    ),
)

_FULL = ["subject", "tenant", "revision", "document"]

_STAGE = "reading the catalogue of archives"
_WRITING = "writing the catalogue of archives"
#: Rows of one answer; Milvus returns no more than 16 384.
_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Note:
    """A document, and what it is about."""

    subject: str
    tenant: str
    #: JSON.
    document: str
    #: 1 for the first; a change has one more than what it changes.
    revision: int


class Ledger:
    """Keeps documents of archives.

    Parameters
    ----------
    connection
        To the server; its database has one ledger.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._ready = False

    def read(self, subject: str, deadline: Deadline, *, strong: bool = True) -> Note | None:
        """Return the latest document about something.

        Parameters
        ----------
        strong
            See every write that was acknowledged before; without it an answer may be seconds old.
        """
        return max(self._notes(subject, deadline, strong=strong), key=_revision, default=None)

    def of(self, tenant: str, kind: str, deadline: Deadline) -> list[Note]:
        """Return the latest documents of a tenant whose subjects begin with `kind`."""
        latest: dict[str, Note] = {}
        # In order of primary key, which is that of the revisions of a subject.
        for row in self._rows(kind, f"tenant == {literal(tenant)} and ", _FULL, deadline):
            latest[row["subject"]] = _note(row)
        return list(latest.values())

    def subjects(self, kind: str, deadline: Deadline) -> set[str]:
        """Return the subjects that begin with `kind`, of every tenant."""
        return {row["subject"] for row in self._rows(kind, "", ["subject"], deadline)}

    def write(self, note: Note, deadline: Deadline) -> None:
        """Write the next revision of a document, or the first.

        Raises
        ------
        Outdated
            Somebody else changed it meanwhile.
        """
        if not self._is_ready(deadline):
            self._make_ready(deadline)
        before = self._notes(note.subject, deadline)
        if max((one.revision for one in before), default=0) != note.revision - 1:
            raise _changed()
        row = {
            "id": _id(note),
            "subject": note.subject,
            "tenant": note.tenant,
            "revision": note.revision,
            "document": note.document,
            "code": b"\0",
        }
        self._connection.call(_WRITING, deadline, "upsert", COLLECTION, [row])
        if self.read(note.subject, deadline) != note:
            raise _changed()
        self._delete(before, deadline)

    def remove(self, subject: str, deadline: Deadline) -> None:
        """Remove all that is written about something; nothing is no fault."""
        self._delete(self._notes(subject, deadline), deadline)

    def _delete(self, notes: list[Note], deadline: Deadline) -> None:
        # From the first on: whoever dies on the way leaves the latest.
        for note in sorted(notes, key=_revision):
            which = f"id in [{literal(_id(note))}]"
            self._connection.call(_WRITING, deadline, "delete", COLLECTION, filter=which)

    def _notes(self, subject: str, deadline: Deadline, *, strong: bool = True) -> list[Note]:
        which = f"subject == {literal(subject)}"
        return list(map(_note, self._query(which, _FULL, deadline, strong=strong)))

    def _rows(
        self, kind: str, term: str, fields: list[str], deadline: Deadline
    ) -> Iterator[dict[str, Any]]:
        # Between "x" and "x~" lies all that begins with "x".
        after, last = kind, f"{kind}~"
        while True:
            which = f"{term}id > {literal(after)} and id < {literal(last)}"
            rows = self._query(which, fields, deadline, strong=True)
            yield from rows
            if len(rows) < _PAGE:
                return
            after = rows[-1]["id"]

    def _query(
        self, which: str, fields: list[str], deadline: Deadline, *, strong: bool
    ) -> list[dict[str, Any]]:
        if not self._is_ready(deadline):
            return []
        rows = self._connection.call(
            _STAGE,
            deadline,
            "query",
            COLLECTION,
            filter=which,
            output_fields=["id", *fields],
            limit=_PAGE,
            consistency_level="Strong" if strong else "Eventually",
        )
        return list(rows)

    def _is_ready(self, deadline: Deadline) -> bool:
        """Say whether there is a ledger, and make sure that it can be read."""
        if not self._ready and self._connection.call(
            _STAGE, deadline, "has_collection", COLLECTION
        ):
            self._make_ready(deadline)
        return self._ready

    def _make_ready(self, deadline: Deadline) -> None:
        """Make the collection unless it exists; whoever made it may have died before its index."""
        if not self._connection.call(_WRITING, deadline, "has_collection", COLLECTION):
            schema = milvus_schema(FIELDS, 8, "What archives DAFH keeps here.")
            self._connection.call(
                _WRITING, deadline, "create_collection", COLLECTION, schema=schema
            )
        if not self._connection.call(_WRITING, deadline, "list_indexes", COLLECTION):
            index = MilvusClient.prepare_index_params()
            index.add_index("code", index_type="BIN_FLAT", metric_type="HAMMING")
            self._connection.call(_WRITING, deadline, "create_index", COLLECTION, index)
        self._connection.call(_WRITING, deadline, "load_collection", COLLECTION)
        self._ready = True


def _changed() -> Outdated:
    return Outdated(
        Reason.ARCHIVE_CHANGED,
        "Somebody else changed the archive meanwhile.",
        remedy="Look at it again, then repeat the change if it is still wanted.",
        subject="etag",
    )


def _id(note: Note) -> str:
    return f"{note.subject}.{note.revision:012}"


def _revision(note: Note) -> int:
    return note.revision


def _note(row: dict[str, Any]) -> Note:
    return Note(row["subject"], row["tenant"], row["document"], row["revision"])
