"""Erasure of cases by patient, study or name.

They are gone from search, from every coding of the archive and from every dump that begins later.
It may be cut off and started again. A dump that was made before holds the cases still, and a load
of it brings them back: whoever erases must see to those too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dafh.deadline import Deadline
from dafh.errors import Reason, Unavailable
from dafh.imaging.image import PatientKey
from dafh.index.archive import Archive, key_mismatch
from dafh.index.archives import Archives
from dafh.index.case import CaseId, Coding
from dafh.index.checks import check_text
from dafh.index.connection import Connection
from dafh.index.progress import ErasureCount, FillNote
from dafh.index.rows import BATCH, Rows
from dafh.index.storage import erase as erase_rows

#: Seconds that a fill is given to come through the batch in hand.
PATIENCE_S = 60.0
_POLL_S = 0.1
#: How often all codings are gone through until nothing is found any more.
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Cases:
    """Cases by primary key; those that do not exist are no fault."""

    ids: tuple[CaseId, ...]


@dataclass(frozen=True, slots=True)
class Study:
    """All cases of a study."""

    study_instance_uid: str


@dataclass(frozen=True, slots=True)
class Patient:
    """All cases of a patient."""

    patient_key: PatientKey
    #: Public name of the key that made the patient key.
    key_id: str


Selection = Cases | Study | Patient


class Eraser:
    """Erases cases of one archive.

    Parameters
    ----------
    connection
        To the server.
    tenant, name
        Which archive.
    """

    def __init__(self, connection: Connection, tenant: str, name: str) -> None:
        self._connection = connection
        self._archives = Archives(connection, tenant)
        self._count = ErasureCount(self._archives.ledger, tenant, name)
        self._name = name

    def count(self, selection: Selection, deadline: Deadline) -> int:
        """Return how many cases `erase` would erase.

        Raises
        ------
        NotFound, FailedPrecondition, InvalidInput
            As `erase`.
        """
        archive = self._archives.get(self._name, deadline)
        equal = _equal(selection, archive)
        found: set[CaseId] = set()
        for coding in _codings(archive):
            for ids in self._find(coding, selection, equal, deadline):
                found.update(ids)
        return len(found)

    def erase(self, selection: Selection, deadline: Deadline) -> int:
        """Erase cases; return how many there were.

        Raises
        ------
        NotFound
            There is no such archive.
        FailedPrecondition
            The archive's patient keys were made with another key.
        InvalidInput
            What is selected cannot be stored in an archive.
        Unavailable
            A fill of a coding is under way or was interrupted, and could bring a case back.
        """
        archive = self._archives.settle(self._name, deadline)
        equal = _equal(selection, archive)
        self._count.grow(deadline)
        erased: set[CaseId] = set()
        for _ in range(_ROUNDS):
            # A coding may have been added meanwhile.
            codings = _codings(self._archives.get(self._name, deadline))
            gone = [self._erase_from(one, selection, equal, deadline) for one in codings]
            erased.update(*gone)
            self._await_fills(codings, deadline)
            if not any(gone):
                self._count.grow(deadline)
                return len(erased)
        raise Unavailable(
            Reason.INDEX_UNAVAILABLE,
            "Cases that are to be erased keep being written.",
            remedy="Stop indexing them, then erase again.",
        )

    def _erase_from(
        self,
        coding: Coding,
        selection: Selection,
        equal: Mapping[str, str],
        deadline: Deadline,
    ) -> set[CaseId]:
        rows, erased = Rows(self._connection, coding), set[CaseId]()
        if isinstance(selection, Cases):
            return set(erase_rows(rows, selection.ids, deadline))
        for ids in self._find(coding, selection, equal, deadline):
            erased.update(erase_rows(rows, ids, deadline))
        return erased

    def _find(
        self,
        coding: Coding,
        selection: Selection,
        equal: Mapping[str, str],
        deadline: Deadline,
    ) -> Iterator[list[CaseId]]:
        rows = Rows(self._connection, coding)
        if isinstance(selection, Cases):
            yield list(rows.lookup(selection.ids, deadline, strong=True))
            return
        ids = rows.keys("", BATCH, deadline, equal=equal)
        while ids:
            yield ids
            ids = rows.keys(ids[-1], BATCH, deadline, equal=equal)

    def _await_fills(self, codings: list[Coding], deadline: Deadline) -> None:
        """Wait until no fill is writing what it read before the erasure."""
        patience = time.monotonic() + PATIENCE_S
        for coding in codings:
            note = FillNote(self._archives.ledger, coding)
            under_way, revision = note.read(deadline)
            while under_way is not None and note.read(deadline)[1] == revision:
                if time.monotonic() > patience:
                    raise Unavailable(
                        Reason.INDEX_UNAVAILABLE,
                        "A coding is being filled, or a fill of it was interrupted, and could "
                        "bring back a case.",
                        remedy="Let the fill come to its end, start it again or drop the coding; "
                        "then erase again.",
                    )
                time.sleep(min(_POLL_S, deadline.remaining("erasing cases")))


def _codings(archive: Archive) -> list[Coding]:
    return [one.coding for one in archive.codings]


def _equal(selection: Selection, archive: Archive) -> dict[str, str]:
    """Return the fields by which rows are selected, checked."""
    if isinstance(selection, Cases):
        return {}
    if isinstance(selection, Study):
        check_text("study_instance_uid", selection.study_instance_uid)
        return {"study_instance_uid": selection.study_instance_uid}
    if selection.key_id != archive.live.key_id:
        raise key_mismatch(archive.live.key_id, selection.key_id)
    check_text("patient_key", selection.patient_key)
    return {"patient_key": selection.patient_key}
