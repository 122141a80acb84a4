"""Fill a coding beside the live one, while the archive is searched and written to."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from dafh.codes import HashCode
from dafh.deadline import Deadline
from dafh.errors import NotFound, Reason
from dafh.index.archives import Archives
from dafh.index.case import Case, CaseId, Coding, CodingKey
from dafh.index.connection import Connection
from dafh.index.difference import Missing, missing, missing_batches
from dafh.index.ledger import Ledger, changed
from dafh.index.milvus import MilvusIndex
from dafh.index.progress import FillNote
from dafh.index.rows import Rows
from dafh.index.storage import erase_unless_in

#: Makes the codes of cases by the new model, of those that it has the pixels of.
Recode = Callable[[Sequence[Case]], Mapping[CaseId, HashCode]]

#: How often the archive is gone through again for what was written meanwhile.
_PASSES = 10
#: Seconds that another fill is given to come through the batch in hand before it is taken for dead.
PATIENCE_S = 5.0
_POLL_S = 0.1
#: Keys that are looked at together after a fill was interrupted.
_RANGE = 1_000


@dataclass(frozen=True, slots=True)
class Filled:
    """What a fill did."""

    #: Cases that were stored.
    stored: int
    #: Cases without pixels: the coding lacks them still.
    missing: Missing


def fill(
    connection: Connection,
    tenant: str,
    name: str,
    key: CodingKey,
    recode: Recode,
    deadline: Deadline,
) -> Filled:
    """Store in a coding what it lacks of the live one; may be cut off and started again.

    Parameters
    ----------
    tenant, name
        Which archive.
    key
        Of the coding.
    recode
        Makes codes; a case that it gives none for stays missing.

    Raises
    ------
    NotFound
        There is no such archive, or it has no such coding.
    Outdated
        Another fill of the coding is under way, or has begun.
    """
    archives = Archives(connection, tenant)
    archive = archives.settle(name, deadline)
    target = archive.find(key)
    if target is None:
        raise NotFound(
            Reason.CODING_NOT_FOUND,
            "The archive has no such coding.",
            remedy="Add it first.",
            subject="coding",
        )
    if target == archive.live:
        return Filled(0, Missing())
    return _Filling(connection, archives.ledger, archive.live, target, recode).run(deadline)


class _Filling:
    def __init__(
        self,
        connection: Connection,
        ledger: Ledger,
        live: Coding,
        target: Coding,
        recode: Recode,
    ) -> None:
        self._live, self._target = Rows(connection, live), Rows(connection, target)
        self._index = MilvusIndex(connection, target)
        self._note = FillNote(ledger, target)
        self._recode = recode
        self._stored = 0

    def run(self, deadline: Deadline) -> Filled:
        interrupted, revision = self._note.read(deadline)
        patience = time.monotonic() + PATIENCE_S
        while interrupted is not None and time.monotonic() < patience:
            time.sleep(min(_POLL_S, deadline.remaining("filling a coding")))
            if self._note.read(deadline)[1] != revision:
                raise changed()
        if interrupted is not None:
            self._take_back(*interrupted, deadline)
        # From here on no other fill goes on.
        self._note.write(None, deadline)
        for _ in range(_PASSES):
            tried = [
                self._batch(ids, deadline)
                for ids in missing_batches(self._live, self._target, deadline)
            ]
            if not any(tried):
                break
        return Filled(self._stored, missing(self._live, self._target, deadline))

    def _batch(self, ids: list[CaseId], deadline: Deadline) -> bool:
        """Store what there are codes for; say whether there were any."""
        seen = self._live.lookup(ids, deadline, strong=True)
        codes = self._recode(list(seen.values()))
        if not codes:
            return False
        # From here on an erasure waits until the batch is through.
        self._note.write((min(codes), max(codes)), deadline)
        cases = self._live.lookup(list(codes), deadline, strong=True)
        recoded = [
            replace(case, code=codes[key])
            for key, case in cases.items()
            # Other pixels came meanwhile: the next pass makes their code.
            if case.content_sha256 == seen[key].content_sha256
        ]
        self._note.require_own(deadline)
        self._index.upsert(recoded, deadline)
        erase_unless_in(self._live, self._target, list(cases), deadline)
        self._note.write(None, deadline)
        self._stored += len(recoded)
        return True

    def _take_back(self, first: CaseId, last: CaseId, deadline: Deadline) -> None:
        """Take out of the target, between two keys, what the live coding has not."""
        ids = [first, *self._target.keys(first, _RANGE, deadline, up_to=last)]
        while ids:
            erase_unless_in(self._live, self._target, ids, deadline)
            ids = self._target.keys(ids[-1], _RANGE, deadline, up_to=last)
