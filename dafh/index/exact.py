"""The reference index: every case in memory, every code compared."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from dafh.deadline import Deadline
from dafh.index import ranking
from dafh.index.case import Case, CaseId, Coding
from dafh.index.checks import check_cases, check_coding, check_query
from dafh.index.port import MAX_CANDIDATES, Found, Hit, Outcome, Query
from dafh.index.ranking import Candidates


class ExactIndex:
    """A `CaseIndex` in this process; what it holds ends with it.

    Parameters
    ----------
    coding
        What it holds.
    cases
        Cases to begin with.
    max_candidates
        Length of the candidate list that the adapter it stands for would have; it decides
        `Found.ties_truncated` only.
    """

    def __init__(
        self, coding: Coding, cases: Iterable[Case] = (), *, max_candidates: int = MAX_CANDIDATES
    ) -> None:
        check_coding(coding)
        self._coding = coding
        self._max_candidates = max_candidates
        self._cases: dict[CaseId, Case] = {}
        self._lock = threading.Lock()
        self.upsert(list(cases), Deadline.never())

    @property
    def coding(self) -> Coding:
        """What the index holds."""
        return self._coding

    def upsert(self, cases: Sequence[Case], deadline: Deadline) -> list[Outcome]:
        """Store cases."""
        deadline.remaining("storing cases")
        check_cases(self._coding, cases)
        with self._lock:
            changed, outcomes = ranking.merge(self._cases, cases)
            self._cases.update(changed)
        return outcomes

    def search(self, query: Query, deadline: Deadline) -> Found:
        """Return the nearest cases."""
        deadline.remaining("searching the index")
        check_query(self._coding, query)
        with self._lock:
            cases = [case for case in self._cases.values() if ranking.selects(query, case)]
        packed = np.frombuffer(b"".join(case.code.packed for case in cases), np.uint8)
        packed = packed.reshape(len(cases), self._coding.bits // 8)
        candidates = Candidates(
            ids=np.array([case.id for case in cases], np.str_),
            packed=packed,
            counted={name: [getattr(case, name) for case in cases] for name in query.caps},
        )
        placed = ranking.rank(query, candidates)
        return Found(
            hits=tuple(Hit(cases[row], distance, score) for row, distance, score in placed),
            ties_truncated=ranking.ties_truncated(query, packed, placed, self._max_candidates),
        )

    def get(self, ids: Sequence[CaseId], deadline: Deadline) -> dict[CaseId, Case]:
        """Return those of the cases that exist."""
        deadline.remaining("reading cases")
        with self._lock:
            return {key: self._cases[key] for key in ids if key in self._cases}

    def delete(self, ids: Sequence[CaseId], deadline: Deadline) -> int:
        """Delete cases; return how many existed."""
        deadline.remaining("deleting cases")
        with self._lock:
            return sum(self._cases.pop(key, None) is not None for key in ids)

    def count(self, deadline: Deadline) -> int:
        """Return the number of cases."""
        deadline.remaining("counting cases")
        with self._lock:
            return len(self._cases)

    def scan(
        self, deadline: Deadline, *, after: str = "", before: str | None = None
    ) -> Iterator[Case]:
        """Yield cases in order of primary key."""
        with self._lock:
            cases = sorted(self._cases.items())
        for key, case in cases:
            deadline.remaining("scanning the index")
            if key > after and (before is None or key < before):
                yield case

    def close(self) -> None:
        """Nothing is held open."""
