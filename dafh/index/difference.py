"""What one coding of an archive holds and another lacks, in bounded memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from dafh.deadline import Deadline
from dafh.index.case import CaseId
from dafh.index.rows import BATCH, Rows

#: Keys of one page.
PAGE = 8_192
#: Longest list of missing cases.
LISTED = 1_000
#: Seconds that a write under way is given to reach the second coding too.
PATIENCE_S = 2.0
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Missing:
    """Cases that a coding lacks."""

    count: int = 0
    #: The first thousand, in order of primary key.
    first: tuple[CaseId, ...] = ()


def missing(live: Rows, other: Rows, deadline: Deadline) -> Missing:
    """Return what `other` lacks of `live`.

    Every write that was acknowledged before is seen; one under way is waited for a little.
    """
    count, first = 0, list[CaseId]()
    for batch in missing_batches(live, other, deadline):
        first += batch[: LISTED - len(first)]
        count += len(batch)
    patience = Deadline.after(PATIENCE_S)
    while 0 < count <= LISTED and time.monotonic() < patience.at:
        time.sleep(min(_POLL_S, deadline.remaining("comparing codings")))
        first = still_missing(live, other, first, deadline)
        count = len(first)
    return Missing(count, tuple(first))


def missing_batches(live: Rows, other: Rows, deadline: Deadline) -> Iterator[list[CaseId]]:
    """Yield what `other` lacks of `live` in order of primary key, a batch at a time."""
    lacking = _only_in_first(_keys(live, deadline), _keys(other, deadline))
    while candidates := list(islice(lacking, BATCH)):
        # The two were read at different moments, while cases were written and deleted.
        if batch := still_missing(live, other, candidates, deadline):
            yield batch


def still_missing(live: Rows, other: Rows, ids: list[CaseId], deadline: Deadline) -> list[CaseId]:
    """Return those of the cases that `live` has and `other` has not."""
    has = live.lookup(ids, deadline, strong=True)
    lacks = other.lookup(list(has), deadline, strong=True)
    return [key for key in has if key not in lacks]


def _only_in_first(one: Iterator[CaseId], other: Iterator[CaseId]) -> Iterator[CaseId]:
    theirs = next(other, None)
    for key in one:
        while theirs is not None and theirs < key:
            theirs = next(other, None)
        if theirs != key:
            yield key


def _keys(rows: Rows, deadline: Deadline) -> Iterator[CaseId]:
    page = rows.keys("", PAGE, deadline)
    while page:
        yield from page
        page = rows.keys(page[-1], PAGE, deadline) if len(page) == PAGE else []
