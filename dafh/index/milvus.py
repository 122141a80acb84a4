"""The Milvus index: production and embedded."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Self

import numpy as np

from dafh.deadline import Deadline
from dafh.errors import Reason, Unavailable
from dafh.index import ranking
from dafh.index.archives import Archives
from dafh.index.case import Case, CaseId, Coding
from dafh.index.checks import check_cases, check_coding, check_query
from dafh.index.collection import FULL, NARROW, case_of, code_word, expression
from dafh.index.connection import Connection, holding
from dafh.index.endpoint import Endpoint
from dafh.index.port import MAX_CANDIDATES, Exclude, Found, Hit, Outcome, Query
from dafh.index.ranking import Candidates, Placed
from dafh.index.rows import Nearest, Rows, broken

#: Rows of one page of a scan.
PAGE = 8_192

#: A candidate list begins with so many, or twice the answer's length, and grows by a factor.
FIRST_CANDIDATES = 64
GROWTH = 8
#: A list longer than this carries codes only, and the hits are read afterwards: sixteen thousand
#: whole rows take four times as long.
LONGEST_FULL = 256

#: How often a write is repeated until a read has seen it, and an answer until it holds still.
ROUNDS = 5


class MilvusIndex:
    """One coding of one archive in Milvus; may be used by several threads.

    Made with `open` or `open_or_create`. After the server was away it works again by itself.

    Two processes that write *different* rows of the *same* frame to a server elsewhere at the same
    moment can overtake each other, because Milvus has no conditional write: then the wrong one of
    the two may stand, and nobody is told. Sending both again, one after the other, settles it.
    Within one object writes take turns, and so do all that write to a server on this machine.

    Parameters
    ----------
    connection
        To the server; closed with the index.
    coding
        What it holds; its collection exists.
    max_candidates
        Longest candidate list, at most `MAX_CANDIDATES`.
    """

    def __init__(
        self, connection: Connection, coding: Coding, *, max_candidates: int = MAX_CANDIDATES
    ) -> None:
        self._connection = connection
        self._coding = coding
        self._max_candidates = max_candidates
        self._rows = Rows(connection, coding)
        self._writing = threading.Lock()

    @classmethod
    def open(cls, server: Endpoint | str, coding: Coding, deadline: Deadline) -> Self:
        """Open a coding that exists.

        Parameters
        ----------
        server
            Where Milvus is; a bare URI is a server on this machine that asks nobody who they are.
        coding
            What the collection must hold; whether it shares one is as it was made.

        Raises
        ------
        NotFound
            The archive has no collection.
        FailedPrecondition
            Its cases were coded by another model or at another length, or their patient keys were
            made with another key.
        Unavailable, DeadlineExceeded
            The server does not answer.
        """
        check_coding(coding)
        with ExitStack() as stack:
            connection = Connection(server, deadline)
            stack.callback(connection.close)
            stored = _archives(connection, coding).open(coding, deadline)
            stack.pop_all()
        return cls(connection, stored)

    @classmethod
    def open_or_create(cls, server: Endpoint | str, coding: Coding, deadline: Deadline) -> Self:
        """Open a coding; create the archive, coded so, where there is none.

        Raises
        ------
        FailedPrecondition, Unavailable, DeadlineExceeded
            As in `open`.
        """
        check_coding(coding)
        with ExitStack() as stack:
            connection = Connection(server, deadline)
            stack.callback(connection.close)
            stored = _archives(connection, coding).open_or_create(coding, deadline)
            stack.pop_all()
        return cls(connection, stored)

    @property
    def coding(self) -> Coding:
        """What the index holds."""
        return self._coding

    def upsert(self, cases: Sequence[Case], deadline: Deadline) -> list[Outcome]:
        """Store cases; each is acknowledged after a search has found it."""
        check_cases(self._coding, cases)
        with self._alone("storing cases", deadline):
            stored = self._rows.lookup([case.id for case in cases], deadline)
            changed, outcomes = ranking.merge(stored, cases)
            self._write(changed, deadline)
        return outcomes

    def search(self, query: Query, deadline: Deadline) -> Found:
        """Return the nearest cases."""
        check_query(self._coding, query)
        for _ in range(ROUNDS):
            near, placed = self._candidates(query, deadline)
            cases = self._read(query, near, placed, deadline)
            if cases is not None:
                break
        else:
            raise Unavailable(
                Reason.INDEX_UNAVAILABLE,
                "The cases of the answer kept changing while the index was searched.",
                remedy="Try again when fewer cases are being written.",
            )
        return Found(
            hits=tuple(
                Hit(case, place.distance, place.score)
                for case, place in zip(cases, placed, strict=True)
            ),
            approximate=near.approximate,
            ties_truncated=ranking.ties_truncated(query, near.packed, placed, self._max_candidates),
        )

    def get(self, ids: Sequence[CaseId], deadline: Deadline) -> dict[CaseId, Case]:
        """Return those of the cases that exist."""
        return self._rows.lookup(ids, deadline)

    def delete(self, ids: Sequence[CaseId], deadline: Deadline) -> int:
        """Delete cases; return how many existed. On return no search finds them."""
        with self._alone("deleting cases", deadline):
            known = list(self._rows.lookup(ids, deadline))
            left = known
            for _ in range(ROUNDS):
                if not left:
                    return len(known)
                self._rows.erase(left, deadline)
                left = list(self._rows.lookup(left, deadline, strong=True))
        if left:
            raise broken(f"Cases were still there after they were deleted {ROUNDS} times.")
        return len(known)

    def count(self, deadline: Deadline) -> int:
        """Return the number of cases."""
        return self._rows.count(deadline)

    def scan(
        self, deadline: Deadline, *, after: str = "", before: str | None = None
    ) -> Iterator[Case]:
        """Yield cases in order of primary key, a page at a time."""
        page = self._rows.page(after, PAGE, deadline, before=before, strong=True)
        while page:
            yield from page
            if len(page) < PAGE:
                return
            page = self._rows.page(page[-1].id, PAGE, deadline, before=before)

    def close(self) -> None:
        """Let go of the connection; the index cannot be used afterwards."""
        self._connection.close()

    @contextmanager
    def _alone(self, stage: str, deadline: Deadline) -> Iterator[None]:
        """Keep away other writers: of this object, and all of a server on this machine."""
        with holding(self._writing, deadline, stage), self._connection.alone(stage, deadline):
            yield

    def _candidates(self, query: Query, deadline: Deadline) -> tuple[Nearest, list[Placed]]:
        """Widen the candidate list until what lies beyond its border cannot be a hit."""
        limit = min(max(FIRST_CANDIDATES, 2 * query.top_k), self._max_candidates)
        # Milvus compares what is excluded with every row of the collection. From a short list it is
        # taken here; only where too little is left then is Milvus told.
        ours = query.exclude != Exclude() and limit <= LONGEST_FULL
        while True:
            fields = FULL if limit <= LONGEST_FULL else [*NARROW, *query.caps]
            which = self._selection(query, None if ours else query.exclude)
            found = self._rows.nearest(query.code, which, limit, fields, deadline)
            near = found.without(asdict(query.exclude)) if ours else found
            placed = ranking.rank(query, _ranked_by(query, near))
            # Which of the cases at the border are in the list is arbitrary: no hit may lie there.
            settled = len(found.rows) < limit or found.border > ranking.reach(query, placed)
            if settled or (limit == self._max_candidates and not ours):
                return near, placed
            if len(near.rows) == len(found.rows):
                limit = min(limit * GROWTH, self._max_candidates)
            ours = False

    def _selection(self, query: Query, exclude: Exclude | None) -> str:
        return expression(self._coding, exclude=exclude, filter=query.filter)

    def _read(
        self, query: Query, near: Nearest, placed: Sequence[Placed], deadline: Deadline
    ) -> list[Case] | None:
        """Return the cases of the hits; ``None`` where one is not as it was ranked any more."""
        hits = [near.rows[place.row] for place in placed]
        if all("frame" in row for row in hits):
            return [case_of(row, self._coding.bits) for row in hits]
        ids = [CaseId(row["id"]) for row in hits]
        which = expression(self._coding, exclude=query.exclude, filter=query.filter, ids=ids)
        found = self._rows.select(which, len(ids), deadline)
        for key, row in zip(ids, hits, strict=True):
            case = found.get(key)
            if case is None or code_word(case.code) != row["code_word"]:
                return None
            if any(getattr(case, name) != row[name] for name in query.caps):
                return None
        return [found[key] for key in ids]

    def _write(self, changed: dict[CaseId, Case], deadline: Deadline) -> None:
        """Write rows until a search has seen each, or one that stands before it."""
        for _ in range(ROUNDS):
            if not changed:
                return
            self._rows.store(list(changed.values()), deadline)
            seen = self._rows.lookup(list(changed), deadline, strong=True)
            changed, _ = ranking.merge(seen, list(changed.values()))
        if changed:
            raise broken(f"Cases were not there after they were stored {ROUNDS} times.")


def _archives(connection: Connection, coding: Coding) -> Archives:
    return Archives(connection, coding.tenant, shared=coding.shared)


def _ranked_by(query: Query, near: Nearest) -> Candidates:
    return Candidates(
        ids=np.array([row["id"] for row in near.rows], np.str_),
        packed=near.packed,
        counted={name: [row[name] for row in near.rows] for name in query.caps},
    )
