"""The catalogue: a tenant's archives, each with its codings and which of them is live.

Every change is written down before it is made, in an order that leaves the former or the new state
wherever it is cut off; the next change to the same archive finishes what was left.
"""

from __future__ import annotations

import time
from contextlib import suppress
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
from dafh.index.catalogue import Catalogue
from dafh.index.checks import check_coding, check_text
from dafh.index.connection import Connection
from dafh.index.difference import Missing, missing
from dafh.index.ledger import Ledger
from dafh.index.pointer import NONE, Marks, kind_of
from dafh.index.progress import FillNote
from dafh.index.record import ArchiveRecord, CodingRecord
from dafh.index.rows import Rows

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
        self._catalogue = Catalogue(connection, tenant)
        self._tenant = tenant
        self._shared = shared

    @property
    def ledger(self) -> Ledger:
        """Where all of it is written."""
        return self._catalogue.ledger

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
        record = self._catalogue.record(name, deadline, strong=strong)
        marks = Marks() if record is None else self._catalogue.marks(record, deadline)
        known = record is not None and (marks.live == NONE or record.find(marks.live) is not None)
        if not known and not strong:
            return self.get(name, deadline)
        return archive_of(_existing(record), marks)

    def all(self, deadline: Deadline) -> list[Archive]:
        """Return all archives of the tenant, in order of name."""
        return [
            archive_of(record, self._catalogue.marks(record, deadline))
            for record in self._catalogue.all(deadline)
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
        archive = archive_of(record, self._catalogue.marks(record, deadline))
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
        record = _existing(self._catalogue.record(coding.archive, deadline))
        while record.revision == 0:
            known = record.model_copy(update={"created": _now()})
            noted = self._noted(known, deadline) or self._catalogue.record(coding.archive, deadline)
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
        return archive_of(self._catalogue.write(record, {"codings": added}, deadline), marks)

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
        record = self._catalogue.write(record, doomed, deadline)
        return archive_of(_existing(self._catalogue.settle(record, deadline)), marks)

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
            record, marks = self._changing(name, etag, deadline)
        except NotFound:
            if allow_missing:
                return
            raise
        codings = [record.coding(one) for one in record.codings]
        if not force and any(Rows(self._connection, one).keys("", 1, deadline) for one in codings):
            raise _not_empty()
        live = _coding(record, archive_of(record, marks).live.key)
        gone = {
            "deleted": True,
            "if_empty": not force,
            "doomed": (live, *record.without(live)),
            "codings": (),
        }
        record = self._catalogue.write(record, gone, deadline)
        # A case may have come since.
        if self._catalogue.settle(record, deadline) is not None:
            raise _not_empty()

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
            The archive is no longer the one that `etag` tells, or another switch came in between.
        """
        record, marks = self._changing(name, etag, deadline)
        live, target = archive_of(record, marks).live, record.coding(_coding(record, to))
        mark = self._catalogue.pointer(name, record.pointer, deadline)
        if target.key == live.key:
            mark.move(live, None, deadline)
            return Switched(self.get(name, deadline), Missing())
        if validate_only:
            return Switched(archive_of(record, marks), self.missing(live, target, deadline))
        # From here on no write is acknowledged that has not reached the target.
        mark.move(live, target, deadline)
        marked = Marks(live.key, target.key)
        try:
            lacking = self.missing(live, target, deadline)
            self._require_complete(target, lacking, allow_missing_cases, deadline)
            self._catalogue.write(record, {}, deadline)
        except BaseException:
            # Taken away, unless another switch has put its own there.
            with suppress(Outdated):
                mark.move(live, None, Deadline.after(_CLEARING_S), since=marked)
            raise
        mark.move(target, None, deadline, since=marked)
        return Switched(self.get(name, deadline), lacking)

    def missing(self, live: Coding, other: Coding, deadline: Deadline) -> Missing:
        """Return what another coding lacks of the live one."""
        return missing(Rows(self._connection, live), Rows(self._connection, other), deadline)

    def marks(self, archive: Archive, deadline: Deadline) -> Marks:
        """Return where an archive's pointer stands, every move seen."""
        return self._catalogue.pointer(archive.name, archive.pointer, deadline).read(deadline)

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
        kind = {"pointer": kind_of(self._connection, deadline)}
        try:
            record = self._catalogue.write(record, kind, deadline)
            first = record.coding(record.codings[0])
            mark = self._catalogue.pointer(record.archive, record.pointer, deadline)
            mark.move(first, None, deadline)
        except Outdated:
            return None
        return record

    def _changing(self, name: str, etag: str, deadline: Deadline) -> tuple[ArchiveRecord, Marks]:
        """Return an archive that is about to be changed, with nothing left to finish."""
        record = _existing(self._settled(name, deadline))
        marks = self._catalogue.marks(record, deadline)
        if etag and etag != archive_of(record, marks).etag:
            raise Outdated(
                Reason.ARCHIVE_CHANGED,
                "The archive was changed since it was looked at.",
                remedy="Look at it again, then repeat the change if it is still wanted.",
                subject="etag",
            )
        return record, marks

    def _settled(self, name: str, deadline: Deadline) -> ArchiveRecord | None:
        while True:
            record = self._catalogue.record(name, deadline)
            if record is None:
                return None
            # Somebody else who finishes it is nobody to give way to.
            with suppress(Outdated):
                return self._catalogue.settle(record, deadline)

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


def _not_empty() -> FailedPrecondition:
    return FailedPrecondition(
        Reason.ARCHIVE_NOT_EMPTY,
        "The archive holds cases.",
        remedy="Force the deletion if they may go with it.",
        subject="force",
    )


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
