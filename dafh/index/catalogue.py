"""The records of a tenant's archives, and what they mean to do, which whoever comes next finishes.

Nothing is removed but after another look at the record: while somebody removes what is left of an
archive, another may have finished that and made it anew. Those who remove from a server on this
machine take turns. Elsewhere, since Milvus has no conditional removal, an archive that is made
within the one call that follows the look is removed.
"""

from __future__ import annotations

from collections.abc import Mapping

from dafh.deadline import Deadline
from dafh.index import storage
from dafh.index.case import Coding
from dafh.index.connection import Connection
from dafh.index.ledger import Ledger, Note, changed
from dafh.index.pointer import POINTER, Marks, Pointer, pointer
from dafh.index.progress import ErasureCount, FillNote
from dafh.index.record import ArchiveRecord, CodingRecord, PointerKind, subject
from dafh.index.rows import Rows

#: Kind of notes in the ledger.
ARCHIVE = "archive"

_REMOVING = "removing an archive"


class Catalogue:
    """The records of one tenant's archives on one server.

    Parameters
    ----------
    connection
        To the server.
    tenant
        Whose archives.
    """

    def __init__(self, connection: Connection, tenant: str) -> None:
        self._connection = connection
        #: Where all of it is written.
        self.ledger = Ledger(connection)
        self._tenant = tenant

    def record(self, name: str, deadline: Deadline, *, strong: bool = True) -> ArchiveRecord | None:
        """Return the record of an archive, ``None`` where there is none."""
        note = self._note(name, deadline, strong=strong)
        if note is None and not strong:
            note = self._note(name, deadline)
        if note is not None:
            return ArchiveRecord.read(note.document, note.revision)
        # Made before there was a catalogue, or by somebody who died before writing into it.
        codings = self._own_codings(name, deadline)
        if not codings:
            return None
        records = tuple(CodingRecord.of(coding, 0) for coding in codings)
        return ArchiveRecord(tenant=self._tenant, archive=name, created=0, codings=records)

    def all(self, deadline: Deadline) -> list[ArchiveRecord]:
        """Return the records of all archives, in order of name."""
        notes = self.ledger.of(self._tenant, f"{ARCHIVE}-", deadline)
        records = [ArchiveRecord.read(note.document, note.revision) for note in notes]
        # Of other tenants nothing is read but which collections are theirs.
        known = {about.split("-")[1] for about in self.ledger.subjects(f"{ARCHIVE}-", deadline)}
        records += [
            record
            for name in storage.own_archives(self._connection, self._tenant, known, deadline)
            if (record := self.record(name, deadline)) is not None
        ]
        return sorted(records, key=lambda record: record.archive)

    def write(
        self, record: ArchiveRecord, changes: Mapping[str, object], deadline: Deadline
    ) -> ArchiveRecord:
        """Change a record.

        Raises
        ------
        Outdated
            Somebody else changed it meanwhile.
        """
        after = record.model_copy(update={**changes, "revision": record.revision + 1})
        about = subject(ARCHIVE, self._tenant, record.archive)
        note = Note(about, self._tenant, after.model_dump_json(), after.revision)
        self.ledger.write(note, deadline)
        return after

    def pointer(self, name: str, kind: PointerKind, deadline: Deadline) -> Pointer:
        """Return the pointer to an archive's live coding."""
        return pointer(self._connection, self.ledger, self._tenant, name, kind, deadline)

    def marks(self, record: ArchiveRecord, deadline: Deadline) -> Marks:
        """Return where an archive's pointer stands, every move seen."""
        return self.pointer(record.archive, record.pointer, deadline).read(deadline)

    def settle(self, record: ArchiveRecord, deadline: Deadline) -> ArchiveRecord | None:
        """Finish what a record means to do; return what it is then, ``None`` where it is gone.

        Raises
        ------
        Outdated
            Somebody else changed or finished it meanwhile.
        """
        if record.deleted:
            self._require_still(record, deadline)
            # From here on no write is acknowledged: one that was before has left its cases.
            self.pointer(record.archive, record.pointer, deadline).move(None, None, deadline)
            if record.if_empty:
                record = self._decided(record, deadline)
        for one in record.doomed:
            coding = record.coding(one)
            self._remove(coding, record, deadline)
            FillNote(self.ledger, coding).remove(deadline)
        if not record.deleted:
            return self.write(record, {"doomed": ()}, deadline) if record.doomed else record
        # A coding that was about to be added when the archive was deleted is in no record.
        for coding in self._own_codings(record.archive, deadline):
            self._remove(coding, record, deadline)
        # It stays: a dump that was begun before must not go on with an archive of the same name.
        ErasureCount(self.ledger, self._tenant, record.archive).grow(deadline)
        with self._connection.alone(_REMOVING, deadline):
            latest = self._require_still(record, deadline)
            self.ledger.remove(subject(POINTER, self._tenant, record.archive), deadline)
            self.ledger.remove(latest.subject, deadline, latest=latest)
        return None

    def _remove(self, coding: Coding, record: ArchiveRecord, deadline: Deadline) -> None:
        with self._connection.alone(_REMOVING, deadline):
            storage.remove(
                self._connection,
                coding,
                deadline,
                require_still=lambda: self._require_still(record, deadline),
            )

    def _decided(self, record: ArchiveRecord, deadline: Deadline) -> ArchiveRecord:
        """Let a deletion hold if there are no cases; else let it not have been."""
        codings = [record.coding(one) for one in record.doomed]
        if not any(Rows(self._connection, one).keys("", 1, deadline) for one in codings):
            return self.write(record, {"if_empty": False}, deadline)
        kept = {"deleted": False, "if_empty": False, "codings": record.doomed, "doomed": ()}
        record = self.write(record, kept, deadline)
        live = self.pointer(record.archive, record.pointer, deadline)
        live.move(codings[0], None, deadline)
        return record

    def _note(self, name: str, deadline: Deadline, *, strong: bool = True) -> Note | None:
        return self.ledger.read(subject(ARCHIVE, self._tenant, name), deadline, strong=strong)

    def _require_still(self, record: ArchiveRecord, deadline: Deadline) -> Note:
        """Refuse to go on with a record that is not the latest; return it as it is written."""
        note = self._note(record.archive, deadline)
        if note is None or ArchiveRecord.read(note.document, note.revision) != record:
            raise changed()
        return note

    def _own_codings(self, name: str, deadline: Deadline) -> list[Coding]:
        return storage.own_codings(self._connection, self._tenant, name, deadline)
