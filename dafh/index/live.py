"""An archive in use: queries go to its live coding, writes to every coding.

Which coding is live is asked again when the last answer is a second old. A query is bound to one
coding, whose model must have made its code, so that no answer mixes models; the codings of an
archive get the same cases, so that before and after a switch it is the same answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from dafh.codes import HashCode
from dafh.deadline import Deadline
from dafh.errors import FailedPrecondition, NotFound, Reason, Unavailable
from dafh.index.archive import Archive
from dafh.index.archives import Archives
from dafh.index.case import Case, CaseId, Coding, CodingKey
from dafh.index.checks import check_cases
from dafh.index.connection import Connection, holding
from dafh.index.indexing import Indexing
from dafh.index.milvus import MilvusIndex
from dafh.index.pointer import NONE
from dafh.index.port import CaseIndex, Outcome
from dafh.index.schema import metadata_sha256
from dafh.index.storage import erase_unless_in

#: Seconds for which an answer to which coding is live may be believed.
FRESH_S = 1.0

#: How often a write is repeated because codings came and went meanwhile.
_ROUNDS = 5

_STAGE = "opening the archive"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A case on its way into an archive, coded by the models that the writer has."""

    #: All that is known of it; its code is not looked at.
    case: Case
    #: Its code in each coding.
    codes: Mapping[CodingKey, HashCode]

    def under(self, coding: Coding) -> Case:
        """Return the case as it is in one coding."""
        return replace(self.case, code=self.codes[coding.key])


class CaseWriter(Protocol):
    """What cases can be written into."""

    def codings(self, deadline: Deadline) -> Sequence[Coding]:
        """Return the codings that cases may be given codes for, the live one first."""
        ...

    def write(self, arrivals: Sequence[Arrival], deadline: Deadline) -> list[Outcome]:
        """Store cases; on return they are searchable and survive a crash.

        Returns
        -------
        list[Outcome]
            One per case, in order.

        Raises
        ------
        InvalidInput
            A case cannot be stored as it is; nothing is stored.
        FailedPrecondition
            The live coding, or one that is about to be, is of a model that a case has no code of.
        """
        ...


class OneCoding:
    """A `CaseWriter` into an index that stands alone.

    Parameters
    ----------
    index
        Takes the cases.
    """

    def __init__(self, index: CaseIndex) -> None:
        self._index = index

    def codings(self, deadline: Deadline) -> Sequence[Coding]:
        """Return the index's coding."""
        deadline.remaining(_STAGE)
        return [self._index.coding]

    def write(self, arrivals: Sequence[Arrival], deadline: Deadline) -> list[Outcome]:
        """Store cases."""
        coding = self._index.coding
        return self._index.upsert([arrival.under(coding) for arrival in arrivals], deadline)


class LiveArchive:
    """One archive on one server; may be used by several threads.

    Parameters
    ----------
    connection
        To the server; closed with the archive.
    tenant, name
        Which archive; it exists.
    """

    def __init__(self, connection: Connection, tenant: str, name: str) -> None:
        self._connection = connection
        self._archives = Archives(connection, tenant)
        self._name = name
        #: What was seen last, and when.
        self._seen: tuple[Archive, float] | None = None
        self._indexes: dict[Coding, MilvusIndex] = {}
        self._lock = threading.Lock()

    def archive(self, deadline: Deadline) -> Archive:
        """Return the archive as it was within the last second.

        Raises
        ------
        NotFound
            There is no such archive.
        """
        seen = self._fresh()
        if seen is not None:
            return seen
        with holding(self._lock, deadline, _STAGE):
            # Another thread may have looked meanwhile.
            return self._fresh() or self._look(deadline, strong=False)

    def index(self, deadline: Deadline) -> CaseIndex:
        """Return the live coding, to be asked for once a request, before the query is encoded.

        It belongs to the archive: nobody else closes it, and cases are written with `write`.
        """
        return self._index(self.archive(deadline).live, deadline)

    def codings(self, deadline: Deadline) -> Sequence[Coding]:
        """Return the codings that cases may be given codes for, the live one first."""
        return [one.coding for one in self.archive(deadline).codings]

    def write(self, arrivals: Sequence[Arrival], deadline: Deadline) -> list[Outcome]:
        """Store cases in every coding that all of them have codes for, the live one first."""
        if not arrivals:
            return []
        given = set.intersection(*(set(arrival.codes) for arrival in arrivals))
        first: list[Outcome] = []
        for _ in range(_ROUNDS):
            archive = self.archive(deadline)
            _require_codes(archive.live, given)
            reached = [one.coding for one in archive.codings if one.coding.key in given]
            rows = {one: [arrival.under(one) for arrival in arrivals] for one in reached}
            for coding, cases in rows.items():
                check_cases(coding, cases)
            try:
                live = self._index(archive.live, deadline)
                outcomes = live.upsert(rows[archive.live], deadline)
                # A case that was added is known when it is stored once more.
                first = first or outcomes
                erased = self._copy(arrivals, archive.live, reached[1:], deadline)
            except NotFound:
                # A coding was dropped meanwhile, or the archive was deleted.
                with holding(self._lock, deadline, _STAGE):
                    self._look(deadline, strong=True)
                continue
            # Only now: a switch, or a deletion, that begins later sees what was stored.
            marks, keys = self._archives.marks(archive, deadline), {one.key for one in reached}
            known = marks.live != NONE and {marks.live, marks.next} - {NONE} <= keys
            # From a coding that is live no more a case may be gone because the coding goes.
            if known and (marks.live == archive.live.key or not erased):
                return first
            with holding(self._lock, deadline, _STAGE):
                now = self._look(deadline, strong=True)
            wanted = {now.live.key, (now.switching_to or now.live).key}
            # Nothing is marked where the archive is deleted, or its maker died before the first
            # mark: there its record says what is live.
            if marks.live == NONE and now.created == archive.created and wanted <= keys:
                return first
            _require_codes(now.switching_to or now.live, given)
        raise Unavailable(
            Reason.INDEX_UNAVAILABLE,
            "The codings of the archive kept changing while cases were stored.",
            remedy="Try again when nobody changes the archive.",
        )

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()

    def _fresh(self) -> Archive | None:
        seen = self._seen
        return seen[0] if seen and time.monotonic() - seen[1] <= FRESH_S else None

    def _look(self, deadline: Deadline, *, strong: bool) -> Archive:
        began = time.monotonic()
        archive = self._archives.get(self._name, deadline, strong=strong)
        self._seen = archive, began
        return archive

    def _index(self, coding: Coding, deadline: Deadline) -> MilvusIndex:
        index = self._indexes.get(coding)
        if index is None:
            Indexing(self._connection, coding).make_searchable(deadline)
            # Of two threads the first one's stays: writes into it take turns.
            index = self._indexes.setdefault(coding, MilvusIndex(self._connection, coding))
        return index

    def _copy(
        self,
        arrivals: Sequence[Arrival],
        live: Coding,
        others: Sequence[Coding],
        deadline: Deadline,
    ) -> list[CaseId]:
        """Store in the other codings what stands in the live one; return what is gone there."""
        if not others:
            return []
        # What lost against another row of its frame must not stand where that row is still missing.
        ids = [arrival.case.id for arrival in arrivals]
        stored = self._index(live, deadline).get(ids, deadline)
        standing = [arrival for arrival in arrivals if _stands(arrival.case, stored)]
        written = [arrival.case.id for arrival in standing]
        erased: list[CaseId] = []
        for coding in others:
            cases = [arrival.under(coding) for arrival in standing]
            self._index(coding, deadline).upsert(cases, deadline)
            # An erasure may have gone through this coding before the case came.
            rows = self._archives.rows(live), self._archives.rows(coding)
            erased += erase_unless_in(*rows, written, deadline)
        return erased


def _stands(case: Case, stored: Mapping[CaseId, Case]) -> bool:
    row = stored.get(case.id)
    # What is not there any more was erased.
    return row is not None and metadata_sha256(row) == metadata_sha256(case)


def _require_codes(coding: Coding, given: set[CodingKey]) -> None:
    if coding.key not in given:
        raise FailedPrecondition(
            Reason.MODEL_NOT_LOADED,
            f"The archive is coded, or about to be, by model {coding.model_hash[:12]} (version "
            f"{coding.model_version}); the cases have no codes of it.",
            remedy="Load that model version, and send them again.",
        )
