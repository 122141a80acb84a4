"""The rows of one collection in Milvus: each method is one kind of request, nothing more."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dafh.codes import HashCode, hamming
from dafh.deadline import Deadline
from dafh.errors import Internal, Reason
from dafh.index.case import Case, CaseId, Coding
from dafh.index.collection import (
    FULL,
    VECTOR,
    case_of,
    collection_name,
    expression,
    packed_codes,
    possible,
    row_of,
)
from dafh.index.connection import Connection

#: Rows of one write and of one read by key.
BATCH = 1_000


class Nearest(NamedTuple):
    """Candidates in order of Hamming distance; the order within a distance is arbitrary."""

    #: Each with its ``id``, ``code_word`` and the fields asked for.
    rows: list[dict[str, Any]]
    #: uint8 ``[N, bits / 8]``.
    packed: NDArray[np.uint8]
    #: Distance of the last, bits; -1 where there is none.
    border: int


class Rows:
    """Reads and writes the rows of a coding's collection.

    Parameters
    ----------
    connection
        To the server.
    coding
        Whose collection exists.
    """

    def __init__(self, connection: Connection, coding: Coding) -> None:
        self._connection = connection
        self._coding = coding
        self._collection = collection_name(coding)

    def nearest(
        self,
        code: HashCode,
        which: str,
        limit: int,
        fields: list[str],
        deadline: Deadline,
        *,
        strong: bool = False,
    ) -> Nearest:
        """Search among the rows that an expression selects.

        Parameters
        ----------
        which
            Made by `expression`.
        limit
            Most candidates, at most `MAX_CANDIDATES`.
        fields
            `NARROW` or `FULL`.
        strong
            Wait until every write that was acknowledged before is seen.

        Raises
        ------
        Internal
            A vector is not the code that its row carries: the collection is corrupt.
        """
        options = {"consistency_level": "Strong"} if strong else {}
        (hits,) = self._connection.run(
            "searching the index",
            deadline,
            lambda client, timeout: client.search(
                self._collection,
                data=[code.packed],
                anns_field=VECTOR,
                filter=which,
                limit=limit,
                output_fields=fields,
                search_params={"metric_type": "HAMMING"},
                timeout=timeout,
                **options,
            ),
        )
        rows = [{"id": hit["id"], **hit["entity"]} for hit in hits]
        packed = packed_codes([row["code_word"] for row in rows], self._coding.bits)
        measured = np.array([hit["distance"] for hit in hits], np.int64)
        if not np.array_equal(measured, hamming(code, packed)):
            raise broken("A stored vector is not the code that its row carries.")
        return Nearest(rows, packed, int(measured.max(initial=-1)))

    def select(
        self, which: str, most: int, deadline: Deadline, *, strong: bool = False
    ) -> dict[CaseId, Case]:
        """Return all cases that an expression selects, `most` at most.

        By a search, not a query: Milvus Lite walks the whole collection for a query by key (20 ms
        at 10⁵ rows, a search 2 ms), and what a search returned is searchable. BIN_FLAT is exact.
        """
        anywhere = HashCode(bytes(self._coding.bits // 8))
        found = self.nearest(anywhere, which, most, FULL, deadline, strong=strong)
        cases = (case_of(row, self._coding.bits) for row in found.rows)
        return {case.id: case for case in cases}

    def lookup(
        self, ids: Sequence[CaseId], deadline: Deadline, *, strong: bool = False
    ) -> dict[CaseId, Case]:
        """Return those of the cases that exist, in the order asked for."""
        wanted = possible(ids)
        found: dict[CaseId, Case] = {}
        for chunk in _chunks(wanted):
            which = expression(self._coding, ids=chunk)
            found |= self.select(which, len(chunk), deadline, strong=strong)
        return {key: found[key] for key in wanted if key in found}

    def page(self, after: str, length: int, deadline: Deadline) -> list[Case]:
        """Return the cases with the smallest primary keys greater than `after`, in order."""
        rows = self._query(
            "scanning the index", expression(self._coding, after=after), FULL, deadline, length
        )
        cases = [case_of(row, self._coding.bits) for row in rows]
        keys = [after, *(case.id for case in cases)]
        if any(key >= following for key, following in itertools.pairwise(keys)):
            raise broken("A page of the scan is not in order of primary key.")
        return cases

    def count(self, deadline: Deadline) -> int:
        """Return the number of rows."""
        counted = "count(*)"
        rows = self._query("counting cases", expression(self._coding), [counted], deadline)
        return int(rows[0][counted])

    def store(self, cases: Sequence[Case], deadline: Deadline) -> None:
        """Write at most `BATCH` cases, each key once, over what is there."""
        rows = [row_of(case, self._coding) for case in cases]
        # Not insert: Milvus would keep both rows of an existing key.
        self._connection.run(
            "storing cases",
            deadline,
            lambda client, timeout: client.upsert(self._collection, rows, timeout=timeout),
        )

    def erase(self, ids: Sequence[CaseId], deadline: Deadline) -> None:
        """Delete rows; those that do not exist are no fault."""
        for chunk in _chunks(possible(ids)):
            self._erase_where(expression(self._coding, ids=chunk), deadline)

    def _erase_where(self, which: str, deadline: Deadline) -> None:
        self._connection.run(
            "deleting cases",
            deadline,
            lambda client, timeout: client.delete(self._collection, filter=which, timeout=timeout),
        )

    def _query(
        self,
        stage: str,
        which: str,
        fields: list[str],
        deadline: Deadline,
        length: int | None = None,
    ) -> list[dict[str, Any]]:
        # With a limit Milvus returns the smallest primary keys, in order.
        options = {} if length is None else {"limit": length}
        rows = self._connection.run(
            stage,
            deadline,
            lambda client, timeout: client.query(
                self._collection, filter=which, output_fields=fields, timeout=timeout, **options
            ),
        )
        return list(rows)


def broken(message: str) -> Internal:
    """Return the error of a collection that contradicts itself."""
    return Internal(
        Reason.INDEX_WRONG,
        message,
        remedy="Stop writing to the archive and index it again into a new one.",
    )


def _chunks(ids: Sequence[CaseId]) -> list[Sequence[CaseId]]:
    return [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)]
