"""The rows of one collection in Milvus: each method is one kind of request, nothing more."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from dafh.codes import HashCode, hamming
from dafh.deadline import Deadline
from dafh.errors import Internal, Reason, Unavailable
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
from dafh.index.indexing import EXACT, FRESH_S, STALE_S, Index, Indexing

Answer = TypeVar("Answer")
Item = TypeVar("Item")

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
    #: Whether the index may have missed some.
    approximate: bool

    def without(self, values: Mapping[str, str]) -> Nearest:
        """Return those that have none of some values in the fields of these names; "" is none."""
        terms = [(name, value) for name, value in values.items() if value != ""]
        kept = [
            place
            for place, row in enumerate(self.rows)
            if not any(row[name] == value for name, value in terms)
        ]
        return self._replace(rows=[self.rows[place] for place in kept], packed=self.packed[kept])


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
        self._indexing = Indexing(connection, coding)
        self._index: tuple[Index, float] = EXACT, -math.inf

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

        def search(index: Index) -> Any:  # noqa: ANN401 - pymilvus's own
            (hits,) = self._connection.call(
                "searching the index",
                deadline,
                "search",
                self._collection,
                data=[code.packed],
                anns_field=VECTOR,
                filter=which,
                limit=limit,
                output_fields=fields,
                search_params=index.search_params,
                **options,
            )
            return hits

        hits, index = self._ask(search, deadline)
        rows: list[dict[str, Any]] = [hit["entity"] for hit in hits]
        # By column where pymilvus has them so: there are many more candidates than hits.
        for row, key in zip(rows, hits.ids, strict=True):
            row["id"] = key
        packed = packed_codes([row["code_word"] for row in rows], self._coding.bits)
        measured = np.array(hits.distances, np.int64)
        if not np.array_equal(measured, hamming(code, packed)):
            raise broken("A stored vector is not the code that its row carries.")
        return Nearest(rows, packed, int(measured.max(initial=-1)), index.approximate)

    def select(
        self, which: str, most: int, deadline: Deadline, *, strong: bool = False
    ) -> dict[CaseId, Case]:
        """Return all cases that an expression selects, `most` at most.

        By a search where it is exact, not a query: Milvus Lite walks the whole collection for a
        query by key (20 ms at 10⁵ rows, a search 2 ms), and what a search returned is searchable.
        """
        if self._fresh_index(deadline)[0].approximate:
            rows = self._query("reading cases", which, FULL, deadline, strong=strong)
        else:
            anywhere = HashCode(bytes(self._coding.bits // 8))
            rows = self.nearest(anywhere, which, most, FULL, deadline, strong=strong).rows
        cases = (case_of(row, self._coding.bits) for row in rows)
        return {case.id: case for case in cases}

    def lookup(
        self, ids: Sequence[CaseId], deadline: Deadline, *, strong: bool = False
    ) -> dict[CaseId, Case]:
        """Return those of the cases that exist, in the order asked for.

        Of several requests only the first is Strong: what one read has seen, later ones see too
        (docs/decisions/0006-consistency.md).
        """
        wanted = possible(ids)
        found: dict[CaseId, Case] = {}
        for number, chunk in enumerate(_chunks(wanted)):
            which = expression(self._coding, ids=chunk)
            first = number == 0
            found |= self.select(which, len(chunk), deadline, strong=strong and first)
        return {key: found[key] for key in wanted if key in found}

    def page(
        self,
        after: str,
        length: int,
        deadline: Deadline,
        *,
        before: str | None = None,
        strong: bool = False,
    ) -> list[Case]:
        """Return the cases with the smallest primary keys greater than `after`, in order."""
        which = expression(self._coding, after=after, before=before)
        rows = self._query("scanning the index", which, FULL, deadline, length, strong=strong)
        _require_order(after, rows)
        return [case_of(row, self._coding.bits) for row in rows]

    def keys(
        self,
        after: str,
        length: int,
        deadline: Deadline,
        *,
        up_to: CaseId | None = None,
        equal: Mapping[str, str] | None = None,
    ) -> list[CaseId]:
        """Return the smallest primary keys greater than `after`, in order; all writes are seen.

        Parameters
        ----------
        up_to
            The last that is wanted.
        equal
            Of rows only that have these values, validated, in these fields.
        """
        # Nothing lies between a key and itself with one more character.
        before = None if up_to is None else f"{up_to}0"
        which = expression(self._coding, after=after, before=before, equal=equal)
        rows = self._query("listing cases", which, ["id"], deadline, length, strong=True)
        _require_order(after, rows)
        return [CaseId(row["id"]) for row in rows]

    def count(self, deadline: Deadline, *, strong: bool = False) -> int:
        """Return the number of rows."""
        counted, which = "count(*)", expression(self._coding)
        rows = self._query("counting cases", which, [counted], deadline, strong=strong)
        return int(rows[0][counted])

    def store(self, cases: Sequence[Case], deadline: Deadline) -> None:
        """Write cases, each key once, over what is there."""
        for chunk in _chunks(cases):
            self._store([row_of(case, self._coding) for case in chunk], deadline)

    def _store(self, rows: list[dict[str, str | int | bytes]], deadline: Deadline) -> None:
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

    def _ask(self, question: Callable[[Index], Answer], deadline: Deadline) -> tuple[Answer, Index]:
        """Ask while it is known which index answers; raise `Unavailable` while one is made."""
        mended = False
        while True:
            index, read = self._fresh_index(deadline)
            try:
                answer = question(index)
            except Unavailable:
                if mended:
                    raise
                # Whoever was making another index may have died after the release.
                self._indexing.make_searchable(deadline)
                self._index, mended = (EXACT, -math.inf), True
                continue
            # One that took so long may have met another index, or none.
            if time.monotonic() - read < STALE_S or self._fresh_index(deadline)[0] == index:
                return answer, index

    def _fresh_index(self, deadline: Deadline) -> tuple[Index, float]:
        """Return the collection's index, and when it was read."""
        index, read = self._index
        if time.monotonic() - read > FRESH_S:
            read = time.monotonic()
            index = self._indexing.read(deadline) or EXACT
            self._index = index, read
        return index, read

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
        *,
        strong: bool = False,
    ) -> list[dict[str, Any]]:
        # With a limit Milvus returns the smallest primary keys, in order.
        options: dict[str, Any] = {} if length is None else {"limit": length}
        if strong:
            options["consistency_level"] = "Strong"

        def query(_: Index) -> list[dict[str, Any]]:
            rows = self._connection.call(
                stage,
                deadline,
                "query",
                self._collection,
                filter=which,
                output_fields=fields,
                **options,
            )
            return list(rows)

        return self._ask(query, deadline)[0]


def broken(message: str) -> Internal:
    """Return the error of a collection that contradicts itself."""
    return Internal(
        Reason.INDEX_WRONG,
        message,
        remedy="Stop writing to the archive and index it again into a new one.",
    )


def _require_order(after: str, rows: Sequence[Mapping[str, Any]]) -> None:
    keys = [after, *(row["id"] for row in rows)]
    if any(key >= following for key, following in itertools.pairwise(keys)):
        raise broken("A page of the scan is not in order of primary key.")


def _chunks(items: Sequence[Item]) -> list[Sequence[Item]]:
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]
