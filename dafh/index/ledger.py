"""The ledger: documents in a small collection of Milvus, of which the catalogue is made.

Milvus replaces a row by deleting and inserting it, and a crash between the two would lose both. So
a document is never replaced: its next revision is written beside it, and then the former ones are
deleted. The highest revision counts; whoever dies on the way leaves one that is whole.

Milvus has no conditional write either. So documents of one revision lie side by side, each under a
key of its own that begins with the time, and who wrote one looks again: nobody else's is there, and
theirs stands; or an earlier one is there, and they take theirs back and are told; or a later one,
whose writer has not seen theirs yet or was told before that it stands: they wait until it is taken
back, and take back their own if it is not. So of those that live, one at most is told that theirs
stands, and it does. Readers wait too while there are two. If a writer dies before it took back a
document, the earliest stands: theirs, only if the other's was begun later and yet was there first.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
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
        "id",
        Kind.TEXT,
        128,
        required=True,
        about="Primary key: subject, revision, and when and by whom it was written.",
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
#: Seconds that somebody who wrote at the same time is given to take theirs back; readers wait
#: longer than writers, who take back their own then.
_YIELDING_S, _PATIENCE_S = 2.0, 5.0
#: Seconds before its deadline in which a writer takes back its own.
_MARGIN_S = 0.5
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Note:
    """A document, and what it is about."""

    subject: str
    tenant: str
    #: JSON.
    document: str
    #: 1 for the first; a change has one more than what it changes.
    revision: int
    #: Primary key, unlike every other's; of those with the highest revision the smallest counts.
    id: str = field(default="", compare=False)


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
        notes = self._notes(subject, deadline, strong=strong)
        patience = Deadline.after(_PATIENCE_S)
        while len(latest := _latest(notes)) > 1 and time.monotonic() < patience.at:
            time.sleep(min(_POLL_S, deadline.remaining(_STAGE)))
            notes = self._notes(subject, deadline)
        return latest[0] if latest else None

    def of(self, tenant: str, kind: str, deadline: Deadline) -> list[Note]:
        """Return the latest documents of a tenant whose subjects begin with `kind`."""
        notes: dict[str, list[Note]] = {}
        for row in self._rows(kind, f"tenant == {literal(tenant)} and ", _FULL, deadline):
            notes.setdefault(row["subject"], []).append(_note(row))
        return [_latest(of_one)[0] for of_one in notes.values()]

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
            raise changed()
        base = [one.id for one in _latest(before)[:1]]
        mine = replace(note, id=_new_id(note))
        row = {name: getattr(mine, name) for name in ["id", *_FULL]} | {"code": b"\0"}
        self._connection.call(_WRITING, deadline, "upsert", COLLECTION, [row])
        if not self._stands(mine, base, deadline):
            self._delete([mine], deadline)
            raise changed()
        self._delete(before, deadline)

    def remove(self, subject: str, deadline: Deadline, *, latest: Note | None = None) -> None:
        """Remove all that is written about something; nothing is no fault.

        Parameters
        ----------
        latest
            What the caller believes to be the latest.

        Raises
        ------
        Outdated
            It is not.
        """
        notes = self._notes(subject, deadline)
        if latest is not None and [one.id for one in _latest(notes)[:1]] != [latest.id]:
            raise changed()
        # By their own keys: what is written from here on stays.
        self._delete(notes, deadline)

    def _stands(self, mine: Note, base: list[str], deadline: Deadline) -> bool:
        """Say whether a note that was written counts, and goes on to.

        Parameters
        ----------
        base
            Key of the note that it changes, if any: only who writes the next one removes that.
        """
        until = min(time.monotonic() + _YIELDING_S, deadline.at - _MARGIN_S)
        while True:
            notes = self._notes(mine.subject, deadline)
            latest = _latest(notes)
            # Or nothing of the kind is seen yet: Milvus Lite, whose clock was set back, shows what
            # it took before only when that time comes again.
            if latest and latest[0].revision >= mine.revision:
                keys = {one.id for one in notes}
                if latest[0].id != mine.id or not keys.issuperset(base):
                    return False
                if len(latest) == 1:
                    return True
            if time.monotonic() > until:
                return False
            time.sleep(_POLL_S)

    def _delete(self, notes: list[Note], deadline: Deadline) -> None:
        # From the first on: whoever dies on the way leaves the latest.
        for note in sorted(notes, key=_age):
            which = f"id in [{literal(note.id)}]"
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


def changed() -> Outdated:
    """Return the error of a change that somebody else got in the way of."""
    return Outdated(
        Reason.ARCHIVE_CHANGED,
        "Somebody else changed the archive meanwhile.",
        remedy="Look at it again, then repeat the change if it is still wanted.",
        subject="etag",
    )


def _new_id(note: Note) -> str:
    # Fourteen digits of microseconds last for two thousand years.
    return f"{note.subject}.{note.revision:012}.{time.time_ns() // 1000:014x}{secrets.token_hex(2)}"


def _latest(notes: list[Note]) -> list[Note]:
    """Return the notes on one subject that have the highest revision, the earliest first."""
    highest = max((note.revision for note in notes), default=0)
    return sorted((note for note in notes if note.revision == highest), key=lambda note: note.id)


def _age(note: Note) -> tuple[int, str]:
    return note.revision, note.id


def _note(row: dict[str, Any]) -> Note:
    return Note(row["subject"], row["tenant"], row["document"], row["revision"], row["id"])
