"""The catalogue: a tenant's archives, each with its codings and which of them is live.

Every change is written down before it is made, in an order that leaves the former or the new state
wherever it is cut off; the next change to the same archive finishes what was left.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from dafh.deadline import Deadline
from dafh.errors import (
    Conflict,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    Outdated,
    Reason,
)
from dafh.index import storage
from dafh.index.archive import Archive, Switched, archive_of, require_same
from dafh.index.case import Coding, CodingKey
from dafh.index.connection import Connection
from dafh.index.difference import Missing, missing
from dafh.index.ledger import Ledger, Note
from dafh.index.pointer import NONE, POINTER, Marks, Pointer, pointer
from dafh.index.progress import ErasureCount, FillNote
from dafh.index.record import ArchiveRecord, CodingRecord, subject
from dafh.index.rows import Rows
from dafh.index.schema import check_coding, check_text

#: Kind of notes in the ledger.
ARCHIVE = "archive"

#: Seconds in which the mark of a switch that failed is taken away, whatever the deadline.
_CLEARING_S = 10.0


class Archives:
    """The archives of one tenant on one server.

    Parameters
    ----------
    connection
        To the server.
    tenant
        Whose archives.
    shared
        Whether the cases of new codings lie in collections that tenants share.
    """

    def __init__(self, connection: Connection, tenant: str, *, shared: bool = False) -> None:
        check_text("tenant", tenant)
        self._connection = connection
        #: Where all of it is written.
        self.ledger = Ledger(connection)
        self._tenant = tenant
        self._shared = shared

    def get(self, name: str, deadline: Deadline, *, strong: bool = True) -> Archive:
        """Return an archive.

        Parameters
        ----------
        strong
            See every change that was made before. Without it codings that were added or dropped
            in the last seconds may not show; which coding is live is always true.

        Raises
        ------
        NotFound
            There is no such archive.
        """
        record = self._record(name, deadline, strong=strong)
        marks = self.pointer(name, deadline).read(deadline)
        known = record is not None and (marks.live == NONE or record.find(marks.live) is not None)
        if not known and not strong:
            return self.get(name, deadline)
        return archive_of(_existing(record), marks)

    def all(self, deadline: Deadline) -> list[Archive]:
        """Return all archives of the tenant, in order of name."""
        notes = self.ledger.of(self._tenant, f"{ARCHIVE}-", deadline)
        records = [ArchiveRecord.read(note.document, note.revision) for note in notes]
        # Of other tenants nothing is read but which collections are theirs.
        known = {about.split("-")[1] for about in self.ledger.subjects(f"{ARCHIVE}-", deadline)}
        records += [
            record
            for name in storage.own_archives(self._connection, self._tenant, known, deadline)
            if (record := self._record(name, deadline)) is not None
        ]
        return [
            archive_of(record, self.pointer(record.archive, deadline).read(deadline))
            for record in sorted(records, key=lambda record: record.archive)
            if not record.deleted
        ]

    def create(self, coding: Coding, deadline: Deadline) -> Archive:
        """Create an archive that is coded so; one that is coded so already is returned as it is.

        Raises
        ------
        Conflict
            There is one of that name, coded otherwise or with another patient key.
        InvalidInput
            A name or hash has the wrong syntax, or no network gives codes of that length.
        """
        coding = self._own(coding)
        record = self._settled(coding.archive, deadline)
        while record is None:
            record = self._created(coding, deadline) or self._settled(coding.archive, deadline)
        archive = archive_of(record, self.pointer(coding.archive, deadline).read(deadline))
        if (archive.live.key, archive.live.key_id) != (coding.key, coding.key_id):
            raise Conflict(
                Reason.ARCHIVE_EXISTS,
                "There is an archive of that name, coded otherwise or with another patient key.",
                remedy="Choose another name, or add a coding to it.",
                subject="archive",
            )
        storage.make(self._connection, archive.live, deadline)
        return archive

    def open(self, coding: Coding, deadline: Deadline) -> Coding:
        """Return a coding of an archive as it is stored, ready to be searched.

        Raises
        ------
        NotFound
            There is no such archive.
        FailedPrecondition
            It is not coded so, or its patient keys were made with another key.
        """
        coding = self._own(coding)
        record = _existing(self._record(coding.archive, deadline))
        while record.revision == 0:
            known = record.model_copy(update={"created": _now()})
            noted = self._noted(known, deadline) or self._record(coding.archive, deadline)
            record = _existing(noted)
        found = record.find(coding.key)
        stored = record.coding(found) if found else self.get(coding.archive, deadline).live
        require_same(stored, coding)
        storage.make(self._connection, stored, deadline)
        return stored

    def open_or_create(self, coding: Coding, deadline: Deadline) -> Coding:
        """Return a coding of an archive; create the archive, coded so, where there is none.

        Raises
        ------
        FailedPrecondition
            As in `open`.
        """
        try:
            return self.open(coding, deadline)
        except NotFound:
            pass
        try:
            return self.create(coding, deadline).live
        except Conflict:
            # Somebody else was first, with another coding: `open` says which.
            return self.open(coding, deadline)

    def add_coding(self, coding: Coding, deadline: Deadline, *, etag: str = "") -> Archive:
        """Add an empty coding to an archive; one that it has already is no fault.

        It gets new cases from then on, and the others by `dafh.index.fill`.

        Raises
        ------
        NotFound
            There is no such archive.
        FailedPrecondition
            The archive's codes have another length, or its patient keys were made with another
            key.
        Outdated
            The archive is no longer the one that `etag` tells.
        """
        coding = self._own(coding)
        record, marks = self._changing(coding.archive, etag, deadline)
        live = archive_of(record, marks).live
        require_same(live, replace(coding, model_hash=live.model_hash))
        found = record.find(coding.key)
        if found is not None:
            storage.make(self._connection, record.coding(found), deadline)
            return archive_of(record, marks)
        storage.make(self._connection, coding, deadline)
        added = (*record.codings, CodingRecord.of(coding, _now()))
        return archive_of(self._write(record, {"codings": added}, deadline), marks)

    def drop_coding(
        self, name: str, key: CodingKey, deadline: Deadline, *, etag: str = ""
    ) -> Archive:
        """Remove a coding that is not live, with its cases.

        Queries that began before a switch away from it may still be under way; give them a minute.

        Raises
        ------
        NotFound
            There is no such archive, or it has no such coding.
        FailedPrecondition
            The coding is live, or a switch to it is under way.
        Outdated
            The archive is no longer the one that `etag` tells.
        """
        record, marks = self._changing(name, etag, deadline)
        found = _coding(record, key)
        if key in (archive_of(record, marks).live.key, marks.next):
            raise FailedPrecondition(
                Reason.CODING_IN_USE,
                "The coding is the live one, or is about to be.",
                remedy="Switch the archive to another coding first.",
                subject="coding",
            )
        doomed = {"codings": record.without(found), "doomed": (*record.doomed, found)}
        record = self._write(record, doomed, deadline)
        return archive_of(_existing(self._settle(record, deadline)), marks)

    def delete(
        self,
        name: str,
        deadline: Deadline,
        *,
        force: bool = False,
        allow_missing: bool = False,
        etag: str = "",
    ) -> None:
        """Delete an archive with all its codings.

        Parameters
        ----------
        force
            Also if it holds cases.
        allow_missing
            Also if there is none; `force` finishes one that was cut off.

        Raises
        ------
        NotFound
            There is no such archive.
        FailedPrecondition
            It holds cases.
        Outdated
            The archive is no longer the one that `etag` tells.
        """
        try:
            record, _ = self._changing(name, etag, deadline)
        except NotFound:
            if allow_missing:
                return
            raise
        codings = [record.coding(one) for one in record.codings]
        if not force and any(Rows(self._connection, one).keys("", 1, deadline) for one in codings):
            raise FailedPrecondition(
                Reason.ARCHIVE_NOT_EMPTY,
                "The archive holds cases.",
                remedy="Force the deletion if they may go with it.",
                subject="force",
            )
        gone = {"deleted": True, "doomed": (*record.doomed, *record.codings), "codings": ()}
        self._settle(self._write(record, gone, deadline), deadline)

    def switch(
        self,
        name: str,
        to: CodingKey,
        deadline: Deadline,
        *,
        allow_missing_cases: bool = False,
        validate_only: bool = False,
        etag: str = "",
    ) -> Switched:
        """Make another coding the live one, at once; or back again.

        A switch that is cut off leaves queries as they were; writes must reach both codings until
        a switch, to either, is finished.

        Parameters
        ----------
        to
            Key of the coding.
        allow_missing_cases
            Also if it lacks cases of the live one.
        validate_only
            Only say what it lacks.

        Raises
        ------
        NotFound
            There is no such archive, or it has no such coding.
        FailedPrecondition
            The coding lacks cases, or a fill of it is under way or was interrupted.
        Outdated
            The archive is no longer the one that `etag` tells.
        """
        record, marks = self._changing(name, etag, deadline)
        live, target = archive_of(record, marks).live, record.coding(_coding(record, to))
        mark = self.pointer(name, deadline)
        if target.key == live.key:
            mark.move(live, None, deadline)
            return Switched(self.get(name, deadline), Missing())
        if validate_only:
            return Switched(archive_of(record, marks), self.missing(live, target, deadline))
        # From here on no write is acknowledged that has not reached the target.
        mark.move(live, target, deadline)
        try:
            lacking = self.missing(live, target, deadline)
            self._require_complete(target, lacking, allow_missing_cases, deadline)
            self._write(record, {}, deadline)
        except BaseException:
            self._stay(name, mark)
            raise
        mark.move(target, None, deadline)
        return Switched(self.get(name, deadline), lacking)

    def missing(self, live: Coding, other: Coding, deadline: Deadline) -> Missing:
        """Return what another coding lacks of the live one."""
        return missing(Rows(self._connection, live), Rows(self._connection, other), deadline)

    def pointer(self, name: str, deadline: Deadline) -> Pointer:
        """Return the pointer to an archive's live coding."""
        return pointer(self._connection, self.ledger, self._tenant, name, deadline)

    def rows(self, coding: Coding) -> Rows:
        """Return the rows of a coding."""
        return Rows(self._connection, coding)

    def settle(self, name: str, deadline: Deadline) -> Archive:
        """Finish what was left of changes that were cut off, and return the archive."""
        return archive_of(*self._changing(name, "", deadline))

    def _own(self, coding: Coding) -> Coding:
        check_coding(coding)
        if coding.tenant != self._tenant:
            raise InvalidInput(
                Reason.ARGUMENT_INVALID, "The coding is another tenant's.", subject="tenant"
            )
        return replace(coding, shared=self._shared)

    def _created(self, coding: Coding, deadline: Deadline) -> ArchiveRecord | None:
        """Make an archive; return ``None`` where somebody else was faster."""
        storage.make(self._connection, coding, deadline)
        now = _now()
        record = ArchiveRecord(
            tenant=self._tenant,
            archive=coding.archive,
            created=now,
            codings=(CodingRecord.of(coding, now),),
        )
        return self._noted(record, deadline)

    def _noted(self, record: ArchiveRecord, deadline: Deadline) -> ArchiveRecord | None:
        """Write the first record of an archive; return ``None`` where somebody else was faster.

        From then on everybody knows it by the same time of creation.
        """
        try:
            record = self._write(record, {}, deadline)
            first = record.coding(record.codings[0])
            self.pointer(record.archive, deadline).move(first, None, deadline)
        except Outdated:
            return None
        return record

    def _changing(self, name: str, etag: str, deadline: Deadline) -> tuple[ArchiveRecord, Marks]:
        """Return an archive that is about to be changed, with nothing left to finish."""
        record = _existing(self._settled(name, deadline))
        marks = self.pointer(name, deadline).read(deadline)
        if etag and etag != archive_of(record, marks).etag:
            raise Outdated(
                Reason.ARCHIVE_CHANGED,
                "The archive was changed since it was looked at.",
                remedy="Look at it again, then repeat the change if it is still wanted.",
                subject="etag",
            )
        return record, marks

    def _settled(self, name: str, deadline: Deadline) -> ArchiveRecord | None:
        record = self._record(name, deadline)
        return None if record is None else self._settle(record, deadline)

    def _settle(self, record: ArchiveRecord, deadline: Deadline) -> ArchiveRecord | None:
        """Finish what a record means to do; return what it is then, ``None`` where it is gone."""
        if record.deleted:
            self.pointer(record.archive, deadline).move(None, None, deadline)
        for one in record.doomed:
            coding = record.coding(one)
            storage.remove(self._connection, coding, deadline)
            FillNote(self.ledger, coding).remove(deadline)
        if not record.deleted:
            return self._write(record, {"doomed": ()}, deadline) if record.doomed else record
        # A coding that was about to be added when the archive was deleted is in no record.
        for coding in self._own_codings(record.archive, deadline):
            storage.remove(self._connection, coding, deadline)
        ErasureCount(self.ledger, self._tenant, record.archive).remove(deadline)
        self.ledger.remove(subject(POINTER, self._tenant, record.archive), deadline)
        self.ledger.remove(subject(ARCHIVE, self._tenant, record.archive), deadline)
        return None

    def _record(
        self, name: str, deadline: Deadline, *, strong: bool = True
    ) -> ArchiveRecord | None:
        about = subject(ARCHIVE, self._tenant, name)
        note = self.ledger.read(about, deadline, strong=strong)
        if note is None and not strong:
            note = self.ledger.read(about, deadline)
        if note is not None:
            return ArchiveRecord.read(note.document, note.revision)
        # Made before there was a catalogue, or by somebody who died before writing into it.
        codings = self._own_codings(name, deadline)
        if not codings:
            return None
        records = tuple(CodingRecord.of(coding, 0) for coding in codings)
        return ArchiveRecord(tenant=self._tenant, archive=name, created=0, codings=records)

    def _own_codings(self, name: str, deadline: Deadline) -> list[Coding]:
        return storage.own_codings(self._connection, self._tenant, name, deadline)

    def _write(
        self, record: ArchiveRecord, changes: Mapping[str, object], deadline: Deadline
    ) -> ArchiveRecord:
        changes = {**changes, "revision": record.revision + 1}
        changed = record.model_copy(update=changes)
        note = Note(
            subject(ARCHIVE, self._tenant, record.archive),
            self._tenant,
            changed.model_dump_json(),
            changed.revision,
        )
        self.ledger.write(note, deadline)
        return changed

    def _require_complete(
        self, target: Coding, lacking: Missing, allowed: bool, deadline: Deadline
    ) -> None:
        if FillNote(self.ledger, target).read(deadline)[0] is not None:
            raise FailedPrecondition(
                Reason.CODING_INCOMPLETE,
                "The coding is being filled, or a fill of it was interrupted.",
                remedy="Let the fill come to its end, or start it again.",
                subject="coding",
            )
        if lacking.count and not allowed:
            raise FailedPrecondition(
                Reason.CODING_INCOMPLETE,
                f"The coding lacks {lacking.count} of the cases.",
                remedy="Fill it, or allow cases to be missing from answers.",
                subject="coding",
            )

    def _stay(self, name: str, mark: Pointer) -> None:
        """Take away the mark of a switch that failed."""
        deadline = Deadline.after(_CLEARING_S)
        archive = self.get(name, deadline)
        mark.move(archive.live, None, deadline)


def _existing(record: ArchiveRecord | None) -> ArchiveRecord:
    if record is None or record.deleted:
        raise NotFound(
            Reason.ARCHIVE_NOT_FOUND,
            "There is no such archive.",
            remedy="`dafh archive list` shows those that there are; `dafh index PATH` makes the "
            "default one.",
            subject="archive",
        )
    return record


def _coding(record: ArchiveRecord, key: CodingKey) -> CodingRecord:
    found = record.find(key)
    if found is None:
        raise NotFound(
            Reason.CODING_NOT_FOUND,
            "The archive has no such coding.",
            remedy="`dafh archive show` lists those that it has.",
            subject="coding",
        )
    return found


def _now() -> int:
    return time.time_ns() // 1000
