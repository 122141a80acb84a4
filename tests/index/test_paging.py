"""Pages put together are the answer: no case twice, none that was there all the time left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dafh.codes import HashCode
from dafh.deadline import Deadline
from dafh.errors import InvalidInput
from dafh.imaging.image import PatientKey
from dafh.index.case import Case, CaseId, Coding
from dafh.index.exact import ExactIndex
from dafh.index.filters.parse import parse
from dafh.index.port import CaseIndex, Exclude, Hit, Position, Query

if TYPE_CHECKING:
    from dafh.index.endpoint import Endpoint
    from dafh.index.milvus import MilvusIndex
    from tests.index.servers import Server

NewCoding = Callable[..., Coding]
NewCase = Callable[..., Case]

ZERO = HashCode(b"\0\0")
#: Few codes, so that most cases tie.
CODES = [HashCode(bytes(code)) for code in ((0, 0), (0, 1), (0, 2), (0, 3), (255, 255))]


KEYS = [PatientKey(""), *(PatientKey(f"{number:064x}") for number in range(8))]


@dataclass(frozen=True)
class Change:
    """What happens between two pages."""

    added: list[tuple[int, int]]
    deleted: list[int]


numbers = st.integers(0, 39)
changes = st.builds(
    Change,
    added=st.lists(st.tuples(numbers, st.integers(0, 4)), max_size=6),
    deleted=st.lists(numbers, max_size=6),
)
outputs = st.none() | st.lists(st.sampled_from([-1.0, -0.25, 0.5]), min_size=16, max_size=16).map(
    lambda values: np.array(values, np.float32)
)


def soon() -> Deadline:
    return Deadline.after(60)


def walk(index: CaseIndex, query: Query, between: Sequence[Callable[[], object]] = ()) -> list[Hit]:
    """All pages, in each gap one of the calls."""
    hits: list[Hit] = []
    waiting = iter(between)
    for _ in range(500):
        found = index.search(query, soon())
        assert not found.ties_truncated
        hits += found.hits
        if len(found.hits) < query.top_k:
            return hits
        next(waiting, lambda: None)()
        query = replace(query, after=found.end)
    raise AssertionError("the pages never end")


@settings(max_examples=200, deadline=None)
@given(
    first=st.lists(st.tuples(numbers, st.integers(0, 4)), max_size=40),
    size=st.integers(1, 9),
    output=outputs,
    between=st.lists(changes, max_size=8),
)
def test_what_was_there_all_the_time_is_seen_once_whatever_comes_and_goes(
    new_coding: NewCoding,
    new_case: NewCase,
    first: list[tuple[int, int]],
    size: int,
    output: np.ndarray[tuple[int], np.dtype[np.float32]] | None,
    between: list[Change],
) -> None:
    coding = new_coding(bits=16, archive="fixed")

    def cases(rows: list[tuple[int, int]]) -> list[Case]:
        return [new_case(coding, number, code=CODES[code]) for number, code in rows]

    # A case that comes back later comes with the code it had.
    codes = dict([*first, *(row for change in between for row in change.added)][::-1])
    index = ExactIndex(coding, cases([(number, codes[number]) for number, _ in first]))
    always = {case.id for case in index.scan(soon())}

    def happen(change: Change) -> None:
        index.upsert(cases([(number, codes[number]) for number, _ in change.added]), soon())
        gone = [new_case(coding, number).id for number in change.deleted]
        index.delete(gone, soon())
        always.difference_update(gone)

    steps = [lambda change=change: happen(change) for change in between]
    hits = walk(index, Query(ZERO, size, output), steps)
    seen = [hit.case.id for hit in hits]
    assert len(set(seen)) == len(seen)
    assert always <= set(seen)
    places = [hit.position for hit in hits]
    assert places == sorted(places)


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(st.integers(0, 4), max_size=60),
    size=st.integers(1, 9),
    output=outputs,
    patient=st.none() | st.integers(1, 5),
    series=st.none() | st.integers(1, 2),
    farthest=st.none() | st.integers(0, 2),
)
def test_pages_of_a_limited_answer_are_the_limited_answer(
    new_coding: NewCoding,
    new_case: NewCase,
    rows: list[int],
    size: int,
    output: np.ndarray[tuple[int], np.dtype[np.float32]] | None,
    patient: int | None,
    series: int | None,
    farthest: int | None,
) -> None:
    coding = new_coding(bits=16, archive="fixed")
    index = ExactIndex(
        coding, [new_case(coding, number, code=CODES[code]) for number, code in enumerate(rows)]
    )
    query = Query(
        ZERO,
        size,
        output,
        max_distance=farthest,
        max_hits_per_patient=patient,
        max_hits_per_series=series,
    )
    whole = index.search(replace(query, top_k=1000), soon()).hits
    assert walk(index, query) == list(whole)


@pytest.mark.parametrize(
    "after",
    [
        Position(17, 0.5, CaseId("0" * 32)),
        Position(-1, 0.5, CaseId("0" * 32)),
        Position(1, float("nan"), CaseId("0" * 32)),
        Position(1, 0.5, CaseId("")),
        Position(1, 0.5, CaseId('" or id != "')),
    ],
)
def test_a_place_that_is_none_is_refused(new_coding: NewCoding, after: Position) -> None:
    with pytest.raises(InvalidInput) as refusal:
        ExactIndex(new_coding(bits=16)).search(Query(ZERO, 1, after=after), soon())
    assert refusal.value.subject == "after"


@pytest.mark.parametrize(
    ("query", "subject"),
    [
        (Query(ZERO, 1, max_hits_per_patient=0), "max_hits_per_patient"),
        (Query(ZERO, 1, max_hits_per_series=-1), "max_hits_per_series"),
    ],
)
def test_a_limit_of_no_hits_is_refused(new_coding: NewCoding, query: Query, subject: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        ExactIndex(new_coding(bits=16)).search(query, soon())
    assert refusal.value.subject == subject


@pytest.mark.stack
@pytest.mark.parametrize("server", ["lite"], indirect=True)
@pytest.mark.parametrize(
    "change",
    [
        {"code": CODES[3]},
        {"patient_key": PatientKey("e" * 64)},
        {"label": "other"},
        {"study_instance_uid": "1.2.3"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_case_that_changes_between_ranking_and_reading_is_ranked_again(
    server: Server,
    opened: Callable[[Endpoint, Coding], MilvusIndex],
    new_coding: NewCoding,
    new_case: NewCase,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
) -> None:
    coding = new_coding(bits=16)
    index, writer = opened(server.endpoint, coding), opened(server.endpoint, coding)
    cases = [new_case(coding, n, code=ZERO, label="x", patient_key=KEYS[n % 9]) for n in range(300)]
    index.upsert(cases, soon())
    query = Query(
        ZERO,
        200,
        exclude=Exclude(study_instance_uid="1.2.3"),
        filter=parse("label = x"),
        max_hits_per_patient=10,
    )
    hits = index.search(query, soon()).hits
    changing = next(hit.case for hit in hits if hit.case.patient_key)
    read = index._rows.select

    # Whatever the arguments are, they are passed on.
    def meanwhile(*arguments: Any, **options: Any) -> dict[CaseId, Case]:  # noqa: ANN401
        monkeypatch.undo()
        # Not an upsert alone: of two rows of one frame the smaller stands.
        writer.delete([changing.id], soon())
        writer.upsert([replace(changing, **change)], soon())
        return read(*arguments, **options)

    # So many are wanted that the candidates come without the rest of their fields.
    monkeypatch.setattr(index._rows, "select", meanwhile)
    exact = ExactIndex(coding, cases)
    exact.delete([changing.id], soon())
    exact.upsert([replace(changing, **change)], soon())
    assert index.search(query, soon()) == exact.search(query, soon())
    assert exact.search(query, soon()) != ExactIndex(coding, cases).search(query, soon())


@pytest.mark.stack
def test_pages_through_more_ties_than_a_list_begins_with_are_the_answer(
    server: Server,
    opened: Callable[[Endpoint, Coding], MilvusIndex],
    new_coding: NewCoding,
    new_case: NewCase,
) -> None:
    coding = new_coding(bits=16)
    index = opened(server.endpoint, coding)
    index.upsert([new_case(coding, n, code=CODES[n % 7 == 0]) for n in range(900)], soon())
    more = [new_case(coding, 900 + number, code=CODES[0]) for number in range(100)]
    gone = [new_case(coding, number).id for number in range(0, 900, 3)]
    query = Query(ZERO, 120, np.linspace(-1, 1, 16, dtype=np.float32))
    whole = index.search(replace(query, top_k=1000), soon()).hits
    assert walk(index, query) == list(whole)
    seen = walk(
        index, query, [lambda: index.upsert(more, soon()), lambda: index.delete(gone, soon())]
    )
    ids = [hit.case.id for hit in seen]
    assert len(set(ids)) == len(ids)
    assert {hit.case.id for hit in whole} - set(gone) <= set(ids)
