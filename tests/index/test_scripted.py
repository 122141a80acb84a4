"""The double fails as it is told and otherwise behaves as the index behind it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from dafh.deadline import Deadline
from dafh.errors import DeadlineExceeded, Reason, Unavailable
from dafh.index.case import Case, Coding
from dafh.index.exact import ExactIndex
from dafh.index.port import CaseIndex, Query
from dafh.index.scripted import ScriptedIndex, Step

GONE = Unavailable(Reason.INDEX_UNAVAILABLE, "gone")


def test_faults_come_in_the_order_of_the_script(
    new_coding: Callable[..., Coding], new_case: Callable[..., Case]
) -> None:
    coding = new_coding()
    case, soon = new_case(coding, 1), Deadline.after(5)
    scripted = ScriptedIndex(ExactIndex(coding), [Step(), Step(error=GONE)])
    index: CaseIndex = scripted
    index.upsert([case], soon)
    with pytest.raises(Unavailable, match="gone"):
        index.search(Query(case.code, 1), soon)
    assert index.search(Query(case.code, 1), soon).hits[0].case == case
    assert (index.count(soon), list(index.scan(soon))) == (1, [case])
    assert index.get([case.id], soon) == {case.id: case}
    assert index.delete([case.id], soon) == 1
    assert scripted.calls == ["upsert", "search", "search", "count", "scan", "get", "delete"]


def test_a_delay_ends_at_the_deadline(new_coding: Callable[..., Coding]) -> None:
    index = ScriptedIndex(ExactIndex(new_coding()))
    index.play(Step(delay=0.05), Step(delay=9))
    started = time.monotonic()
    index.count(Deadline.after(5))
    assert time.monotonic() - started >= 0.05
    with pytest.raises(DeadlineExceeded):
        index.count(Deadline.after(0.05))
    assert time.monotonic() - started < 1
