"""The index over a collection's codes: chosen by size, measured, loaded and warm.

Exact up to a few million rows. Beyond, lists of like codes (an inverted file), of which a search
reads as many as a measurement says it must. Milvus makes lists per segment, and rows that lie in no
sealed segment yet are searched exactly.

A search that meets the release of a collection is answered by Milvus 2.3.5 as if the collection
were empty. So whoever makes another index announces it first, in a property of the collection, and
releases only when nobody asks any more.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dafh.deadline import Deadline
from dafh.errors import Reason, Unavailable
from dafh.index.capabilities import capabilities
from dafh.index.case import Coding
from dafh.index.collection import FULL, VECTOR, collection_name, expression, packed_codes
from dafh.index.connection import Connection, MilvusClient

#: So many rows are searched exactly: at three million, lists were no faster
#: (docs/performance/index.md).
FLAT_ROWS = 4_000_000

#: Seconds for which a reader may believe what it knows of a collection's index.
FRESH_S = 1.0
#: Seconds after which nothing is believed of it any more, not even by a search under way.
STALE_S = 2 * FRESH_S

#: Least share of the true ten nearest, ties counting as hits, that the sample must find: so many
#: more than 0.99 that a sample of this size leaves little doubt about 0.99.
RECALL = 0.995
NEAREST = 10
SAMPLE = 400
#: Of the sample so many ask at once: a server that reads all lists of ten million codes for all of
#: them together does nothing else for so long that its connections are given up.
ABREAST = 16

#: Searches after loading, until the server has what it needs at hand.
WARM_SEARCHES = 32

#: Properties of a collection: the measured number of lists to read; until when, seconds since the
#: epoch, another index is being made.
_NPROBE, _CLOSED = "dafh.nprobe", "dafh.closed_until"
#: Seconds after which a collection is open again whose maker died.
LEASE_S = 60.0
_FEWEST_LISTS, _MOST_LISTS = 128, 4096
_POLL_S = 0.1
_STAGE = "making the index"


@dataclass(frozen=True, slots=True)
class Index:
    """The index over a collection's codes."""

    #: Lists that a segment's codes are divided into; 0 is BIN_FLAT, which has none and is exact.
    nlist: int = 0
    #: Lists that a search reads.
    nprobe: int = 0

    @property
    def approximate(self) -> bool:
        """Whether a search may miss cases."""
        return self.nprobe < self.nlist

    @property
    def search_params(self) -> dict[str, Any]:
        """What Milvus is given with a search."""
        params = {"nprobe": self.nprobe} if self.nlist else {}
        return {"metric_type": "HAMMING", "params": params}


EXACT = Index()


def choose(rows: int) -> Index:
    """Return the index for a number of rows; how many lists to read is measured later.

    About as many lists as the square root of the rows: finding the lists and reading one of them
    then cost alike.
    """
    if rows <= FLAT_ROWS:
        return EXACT
    lists = 1 << round(math.log2(math.sqrt(rows)))
    nlist = min(max(lists, _FEWEST_LISTS), _MOST_LISTS)
    return Index(nlist, nlist)


class Indexing:
    """Makes, measures and loads the index of a coding's collection.

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
        #: Until when it is closed by this object, seconds since the epoch, to make which index.
        self._closed_until, self._making = 0.0, EXACT

    def read(self, deadline: Deadline) -> Index | None:
        """Return the index that the collection has, ``None`` where it has none.

        Raises
        ------
        Unavailable
            Another index is being made.
        """
        described = self._call(deadline, "describe_collection").get("properties", {})
        if float(described.get(_CLOSED, 0)) > max(time.time(), self._closed_until):
            raise Unavailable(
                Reason.INDEX_UNAVAILABLE,
                "The archive's index is being made again.",
                remedy="Try again when it is made; that takes seconds to minutes.",
            )
        facts = self._describe(deadline)
        if facts is None or facts["index_type"] == "BIN_FLAT":
            return None if facts is None else EXACT
        nlist = int(facts["nlist"])
        # Exhaustive, and so exact, until it has been measured.
        return Index(nlist, int(described.get(_NPROBE, nlist)))

    def make_searchable(self, deadline: Deadline) -> None:
        """Give the collection an index unless it has one, and load it; may be repeated.

        Whoever made the collection may have died before this.
        """
        if self.read(deadline) is None:
            self._create(EXACT, deadline)
        self._load(deadline)

    def fit(self, deadline: Deadline, index: Index | None = None) -> Index:
        """Give the collection the index that fits its size; measure how many lists to read.

        While another index is made the collection can be neither searched nor read, and writes are
        not acknowledged: that is `Unavailable`.

        Parameters
        ----------
        index
            Which one; by default what `choose` says of the number of rows.

        Raises
        ------
        Unavailable
            Somebody else is making one.
        FailedPrecondition
            The collection is so big that it needs an index that the server does not have.
        """
        self.make_searchable(deadline)
        wanted = choose(self._count(deadline)) if index is None else index
        made = self.read(deadline) or EXACT
        if wanted.nlist:
            able = capabilities(self._connection, deadline)
            able.require("bin_ivf_flat")
            able.require("properties")
        if made.nlist != wanted.nlist:
            self._replace(wanted, deadline)
        measured = self.measure(wanted, deadline) if wanted.nlist else EXACT
        if wanted.nlist or made.nlist:
            self._closed_until = 0.0
            properties = {_NPROBE: str(measured.nprobe), _CLOSED: "0"}
            self._call(deadline, "alter_collection_properties", properties)
        return measured

    def measure(self, index: Index, deadline: Deadline) -> Index:
        """Return the index with the fewest lists to read that find `RECALL` of the nearest.

        The collection's own codes ask, each left out of its own answer. Reading all lists is exact.
        """
        asking = self._sample(deadline)
        if not asking:
            return index
        exact = self._distances(asking, replace(index, nprobe=index.nlist), deadline)
        nprobe = 1
        while nprobe < index.nlist:
            tried = replace(index, nprobe=nprobe)
            if recall(self._distances(asking, tried, deadline), exact) >= RECALL:
                return tried
            nprobe *= 2
        return replace(index, nprobe=index.nlist)

    def warm(self, deadline: Deadline) -> None:
        """Search until the server has at hand what searches need."""
        index = self.read(deadline) or EXACT
        for _ in range(WARM_SEARCHES):
            code = secrets.token_bytes(self._coding.bits // 8)
            self._search([code], index, NEAREST, deadline, output_fields=FULL)

    def _replace(self, index: Index, deadline: Deadline) -> None:
        self._making = index
        self._close(deadline)
        closed = time.monotonic()
        # Whoever has not read of it yet still asks.
        self._wait(deadline, lambda: time.monotonic() - closed > STALE_S)
        self._call(deadline, "flush")
        self._call(deadline, "release_collection")
        for name in self._call(deadline, "list_indexes", VECTOR):
            self._call(deadline, "drop_index", name)
        self._create(index, deadline)
        self._load(deadline)

    def _close(self, deadline: Deadline) -> None:
        self._closed_until = time.time() + LEASE_S
        # Whoever dies before it is measured leaves one of which all is read.
        properties = {_CLOSED: str(self._closed_until), _NPROBE: str(self._making.nlist)}
        self._call(deadline, "alter_collection_properties", properties)

    def _create(self, index: Index, deadline: Deadline) -> None:
        made = MilvusClient.prepare_index_params()
        made.add_index(
            VECTOR,
            index_type="BIN_IVF_FLAT" if index.nlist else "BIN_FLAT",
            metric_type="HAMMING",
            params={"nlist": index.nlist} if index.nlist else {},
        )
        # It may take longer than any single call is given.
        self._call(deadline, "create_index", made, sync=False)
        self._wait(deadline, lambda: self._is_built(deadline))

    def _is_built(self, deadline: Deadline) -> bool:
        facts = self._describe(deadline)
        return facts is not None and int(facts.get("pending_index_rows", 0)) == 0

    def _load(self, deadline: Deadline) -> None:
        if self._is_loaded(deadline):
            return
        self._call(deadline, "load_collection", _async=True)
        self._wait(deadline, lambda: self._is_loaded(deadline))
        if self._count(deadline):
            self.warm(deadline)

    def _is_loaded(self, deadline: Deadline) -> bool:
        state = self._call(deadline, "get_load_state")["state"]
        return bool(state.name == "Loaded")

    def _count(self, deadline: Deadline) -> int:
        counted = "count(*)"
        # Of all tenants that share the collection: its size decides on its index.
        rows = self._call(deadline, "query", filter="", output_fields=[counted])
        return int(rows[0][counted])

    def _sample(self, deadline: Deadline) -> list[tuple[str, bytes]]:
        """Return id and code of some rows; ids are hashes, so any run of them is a fair sample."""
        words: list[dict[str, Any]] = self._call(
            deadline,
            "query",
            filter=expression(self._coding, after=""),
            limit=SAMPLE,
            output_fields=["code_word"],
        )
        packed = packed_codes([row["code_word"] for row in words], self._coding.bits)
        return [(row["id"], code.tobytes()) for row, code in zip(words, packed, strict=True)]

    def _distances(
        self, asking: list[tuple[str, bytes]], index: Index, deadline: Deadline
    ) -> NDArray[np.int64]:
        """Return the distances ``[queries, NEAREST]`` of each code's nearest, itself left out."""
        codes = [code for _, code in asking]
        found = [
            hits
            for start in range(0, len(codes), ABREAST)
            for hits in self._search(codes[start : start + ABREAST], index, NEAREST + 1, deadline)
        ]
        beyond = self._coding.bits + 1
        return np.array(
            [
                ([int(h["distance"]) for h in hits if h["id"] != own] + [beyond] * NEAREST)[
                    :NEAREST
                ]
                for (own, _), hits in zip(asking, found, strict=True)
            ],
            np.int64,
        )

    def _search(
        self,
        codes: list[bytes],
        index: Index,
        limit: int,
        deadline: Deadline,
        **options: Any,  # noqa: ANN401 - pymilvus's own
    ) -> list[list[dict[str, Any]]]:
        found: list[list[dict[str, Any]]] = self._call(
            deadline,
            "search",
            data=codes,
            anns_field=VECTOR,
            filter=expression(self._coding),
            limit=limit,
            search_params=index.search_params,
            **options,
        )
        return found

    def _describe(self, deadline: Deadline) -> dict[str, Any] | None:
        for name in self._call(deadline, "list_indexes", VECTOR):
            facts: dict[str, Any] = self._call(deadline, "describe_index", name)
            return facts
        return None

    def _call(
        self,
        deadline: Deadline,
        name: str,
        *arguments: Any,  # noqa: ANN401 - pymilvus's own
        **named: Any,  # noqa: ANN401 - as well
    ) -> Any:  # noqa: ANN401 - as well
        return self._connection.call(_STAGE, deadline, name, self._collection, *arguments, **named)

    def _wait(self, deadline: Deadline, done: Callable[[], bool]) -> None:
        while not done():
            if self._closed_until and self._closed_until - time.time() < LEASE_S / 2:
                self._close(deadline)
            time.sleep(min(_POLL_S, deadline.remaining(_STAGE)))


def recall(found: NDArray[np.int64], exact: NDArray[np.int64]) -> float:
    """Return the share of the nearest that was found: a hit counts if it is as near as the last.

    Parameters
    ----------
    found
        Distances ``[queries, k]``; where an answer is shorter, one that no code has.
    exact
        The true ones, ascending.

    Examples
    --------
    >>> recall(np.array([[1, 2, 9, 9]]), np.array([[1, 2, 2, 2]]))
    0.5
    """
    return float((found <= exact[:, -1:]).mean())
