"""What long work on an archive notes down: how far a fill is, and that there were erasures."""

from __future__ import annotations

from dafh.deadline import Deadline
from dafh.errors import Outdated
from dafh.index.case import CaseId, Coding
from dafh.index.ledger import Ledger, Note, changed
from dafh.index.record import Strict, parsed, subject

#: Kinds of notes in the ledger.
ERASURES, FILL = "erasures", "fill"

#: How often a note is written again that somebody else wrote meanwhile.
_ROUNDS = 5


class _Batch(Strict):
    #: Primary keys of the first and the last case; "" where nothing is under way.
    first: str = ""
    last: str = ""


class FillNote:
    """Where a fill of a coding stands: which batch it is about to write, or was when it died.

    Between reading a case from one coding and writing it to another it may be erased from both. So
    the batch is noted before it is read, and the note goes only after what was erased meanwhile has
    been taken out again.

    Parameters
    ----------
    ledger
        Keeps it.
    coding
        What is filled.
    """

    def __init__(self, ledger: Ledger, coding: Coding) -> None:
        self._ledger = ledger
        self._tenant = coding.tenant
        self._subject = subject(FILL, coding.tenant, coding.archive, coding.key)
        #: What this object wrote last.
        self._revision: int | None = None

    def read(self, deadline: Deadline) -> tuple[tuple[CaseId, CaseId] | None, int]:
        """Return first and last key of the batch under way, and what changes with every batch."""
        note = self._ledger.read(self._subject, deadline)
        if note is None:
            return None, 0
        batch = parsed(_Batch, note.document)
        under_way = (CaseId(batch.first), CaseId(batch.last)) if batch.last else None
        return under_way, note.revision

    def write(self, batch: tuple[CaseId, CaseId] | None, deadline: Deadline) -> None:
        """Note the batch that comes next, ``None`` for none.

        Raises
        ------
        Outdated
            Another fill of the same coding has begun since this object wrote last.
        """
        if self._revision is None:
            self._revision = self.read(deadline)[1]
        first, last = batch or ("", "")
        document = _Batch(first=first, last=last).model_dump_json()
        after = self._revision + 1
        self._ledger.write(Note(self._subject, self._tenant, document, after), deadline)
        self._revision = after

    def require_own(self, deadline: Deadline) -> None:
        """Refuse to go on where another fill has begun.

        Raises
        ------
        Outdated
            Somebody else wrote the note since this object did.
        """
        if self.read(deadline)[1] != self._revision:
            raise changed()

    def remove(self, deadline: Deadline) -> None:
        """Forget about fills of the coding."""
        self._ledger.remove(self._subject, deadline)


class ErasureCount:
    """Grows when an erasure begins and when it ends, so that a dump notices those in between.

    Parameters
    ----------
    ledger
        Keeps it.
    tenant, archive
        From which cases are erased.
    """

    def __init__(self, ledger: Ledger, tenant: str, archive: str) -> None:
        self._ledger = ledger
        self._tenant = tenant
        self._subject = subject(ERASURES, tenant, archive)

    def read(self, deadline: Deadline) -> int:
        """Return the count."""
        note = self._ledger.read(self._subject, deadline)
        return 0 if note is None else note.revision

    def grow(self, deadline: Deadline) -> None:
        """Let it grow.

        Raises
        ------
        Outdated
            Other erasures kept getting in the way.
        """
        for rounds_left in reversed(range(_ROUNDS)):
            note = Note(self._subject, self._tenant, "{}", self.read(deadline) + 1)
            try:
                self._ledger.write(note, deadline)
            except Outdated:
                # It grew, but perhaps before this erasure began or ended.
                if not rounds_left:
                    raise
            else:
                return
