"""A double for tests: a real index that fails and dawdles when it is told to."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from dafh.deadline import Deadline
from dafh.errors import DafhError
from dafh.index.case import Case, CaseId, Coding
from dafh.index.port import CaseIndex, Found, Outcome, Query


@dataclass(frozen=True, slots=True)
class Step:
    """What happens to one call before it reaches the index."""

    #: Seconds that it takes longer; cut at its deadline, with `DeadlineExceeded`.
    delay: float = 0.0
    #: Raised instead of an answer, after the delay.
    error: DafhError | None = None


class ScriptedIndex:
    """Plays the steps of a script, one to a call, then passes everything through.

    Parameters
    ----------
    index
        What answers: in tests an `ExactIndex`.
    script
        The next calls' faults, in order; ``Step()`` lets one through.
    """

    def __init__(self, index: CaseIndex, script: Iterable[Step] = ()) -> None:
        self._index = index
        self._script = deque(script)
        #: Names of the calls so far, failed ones too.
        self.calls: list[str] = []

    @property
    def coding(self) -> Coding:
        """What the index holds."""
        return self._index.coding

    def play(self, *steps: Step) -> None:
        """Add to the script."""
        self._script.extend(steps)

    def upsert(self, cases: Sequence[Case], deadline: Deadline) -> list[Outcome]:
        """Store cases."""
        self._step("upsert", deadline)
        return self._index.upsert(cases, deadline)

    def search(self, query: Query, deadline: Deadline) -> Found:
        """Return the nearest cases."""
        self._step("search", deadline)
        return self._index.search(query, deadline)

    def get(self, ids: Sequence[CaseId], deadline: Deadline) -> dict[CaseId, Case]:
        """Return those of the cases that exist."""
        self._step("get", deadline)
        return self._index.get(ids, deadline)

    def delete(self, ids: Sequence[CaseId], deadline: Deadline) -> int:
        """Delete cases; return how many existed."""
        self._step("delete", deadline)
        return self._index.delete(ids, deadline)

    def count(self, deadline: Deadline) -> int:
        """Return the number of cases."""
        self._step("count", deadline)
        return self._index.count(deadline)

    def scan(
        self, deadline: Deadline, *, after: str = "", before: str | None = None
    ) -> Iterator[Case]:
        """Yield cases in order of primary key."""
        self._step("scan", deadline)
        yield from self._index.scan(deadline, after=after, before=before)

    def close(self) -> None:
        """Close the index."""
        self._index.close()

    def _step(self, call: str, deadline: Deadline) -> None:
        self.calls.append(call)
        if not self._script:
            return
        step = self._script.popleft()
        if step.delay:
            time.sleep(min(step.delay, deadline.remaining(call)))
            deadline.remaining(call)
        if step.error is not None:
            raise step.error
