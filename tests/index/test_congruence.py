"""Exact and Milvus index agree on every program of calls, order and ties included."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dafh.codes import BITS, HashCode
from dafh.deadline import Deadline
from dafh.imaging.image import PatientKey
from dafh.index.case import Case, Coding
from dafh.index.connection import Connection
from dafh.index.exact import ExactIndex
from dafh.index.filters.parse import parse
from dafh.index.filters.tree import Filter, Value
from dafh.index.milvus import MilvusIndex
from dafh.index.port import CaseIndex, Exclude, Found, Hit, Query
from tests.index.trees import filters

if TYPE_CHECKING:
    from dafh.index.endpoint import Endpoint
    from tests.index.servers import Server

pytestmark = pytest.mark.stack

#: Few codes and few instances: ties, conflicts, exclusions and limits that hit.
CODES = 7
INSTANCES = 90
#: "" is unknown; the others are what careless quoting would break.
LABELS = ("", 'a"b', "\u6f22\\")
#: A candidate list so short that a flood of cases does not fit into it.
SHORT = 48
#: Pages of one walk at most.
PAGES = 40
#: Programs per code length; the standalone server takes longer for each.
PROGRAMS_LITE = 15
PROGRAMS_STANDALONE = 5
#: Per server and code length.
PROGRAMS_LONG = 130


@dataclass(frozen=True)
class Row:
    """A case, written small."""

    instance: int
    frame: int
    code: int
    content: int
    label: int
    time: int
    #: Whether its patient is known.
    named: bool = True


@dataclass(frozen=True)
class Upsert:
    rows: list[Row]


@dataclass(frozen=True)
class Delete:
    instances: list[int]


@dataclass(frozen=True)
class Search:
    code: int
    top_k: int
    max_distance: int | None
    #: Seed of the hash output; ``None`` for a query without.
    output: int | None
    #: Instance whose own UIDs and patient may not answer, and which of the three exclude.
    excluded: int
    excludes: tuple[bool, bool, bool]
    filter: Filter | None = None
    per_patient: int | None = None
    per_series: int | None = None


@dataclass(frozen=True)
class Walk:
    """All pages of an answer; what is written between them."""

    search: Search
    between: list[Upsert | Delete]


Call = Upsert | Delete | Search | Walk

#: What filters ask for: what the cases have, and a little beside it.
POOLS: dict[str, list[Value]] = {
    "label": [*LABELS, "b"],
    "frame": [1, 2, 3],
    "ingest_time": [0, 1, 2, -1],
    "modality": ["CT", ""],
    "sop_instance_uid": [f"1.2.826.0.1.{number}" for number in (0, 7, 30, 89)],
    "study_instance_uid": [f"1.2.826.0.2.{number}" for number in range(0, 23, 5)],
    "series_instance_uid": [f"1.2.826.0.3.{number}" for number in range(0, 45, 5)],
}

numbers = st.integers
rows = st.builds(
    Row,
    instance=numbers(0, INSTANCES - 1),
    frame=numbers(1, 2),
    code=numbers(0, CODES - 1),
    content=numbers(0, 2),
    label=numbers(0, 2),
    time=numbers(0, 2),
    named=st.booleans(),
)
#: Enough rows in one call that the candidate list has to grow.
floods = st.builds(
    lambda first, code, spread: Upsert(
        [Row(first + n, 1, (code + n % spread) % CODES, 0, n % 3, n % 3) for n in range(80)]
    ),
    numbers(0, 10),
    numbers(0, CODES - 1),
    numbers(1, 3),
)
searches = st.builds(
    Search,
    code=numbers(0, CODES - 1),
    top_k=st.sampled_from([1, 2, 5, 10, 40, 200]),
    max_distance=st.none() | numbers(0, 20),
    output=st.none() | numbers(0, 3),
    excluded=numbers(0, INSTANCES - 1),
    excludes=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    filter=st.none() | filters(POOLS, leaves=5),
    per_patient=st.none() | numbers(1, 4),
    per_series=st.none() | numbers(1, 2),
)
writes = (
    st.builds(Upsert, st.lists(rows, min_size=1, max_size=8))
    | floods
    | st.builds(Delete, st.lists(numbers(0, INSTANCES - 1), max_size=20))
)
walks = st.builds(Walk, searches, st.lists(writes, max_size=2))
programs = st.lists(writes | searches | walks, min_size=2, max_size=14)


def code_of(number: int, bits: int) -> HashCode:
    """Codes 0 to 3 are a bit or two apart; the others are far."""
    if number < 4:
        return HashCode((0, 1, 0x8000, 0x8001)[number].to_bytes(bits // 8, "big"))
    return HashCode(hashlib.sha256(bytes([number])).digest()[: bits // 8])


@dataclass(frozen=True)
class Pair:
    """The indexes under test; the short one is the other with a short candidate list."""

    milvus: MilvusIndex
    short: MilvusIndex
    new_case: Callable[..., Case]

    def run(self, program: list[Call]) -> None:
        coding = self.milvus.coding
        soon = Deadline.after(60)
        self.milvus.delete([case.id for case in self.milvus.scan(soon)], soon)
        exact = ExactIndex(coding)
        for call in [*program, Search(0, 200, None, 1, 0, (False, False, False))]:
            assert self.answer(self.milvus, call) == self.answer(exact, call)
            if isinstance(call, Search):
                self.compare_short(self.query(coding, call), exact)
        assert self.milvus.count(soon) == exact.count(soon)
        stored = list(exact.scan(soon))
        assert list(self.milvus.scan(soon)) == stored
        ids = [case.id for case in stored[::2]]
        assert self.milvus.get(ids, soon) == exact.get(ids, soon)

    def answer(self, index: CaseIndex, call: Call) -> object:
        coding, soon = index.coding, Deadline.after(60)
        match call:
            case Upsert():
                return index.upsert([self.case(coding, row) for row in call.rows], soon)
            case Delete():
                return index.delete([self.new_case(coding, n).id for n in call.instances], soon)
            case Search():
                return index.search(self.query(coding, call), soon)
            case Walk():
                return self.pages(index, call)

    def pages(self, index: CaseIndex, walk: Walk) -> list[Found]:
        query, soon = self.query(index.coding, walk.search), Deadline.after(60)
        pages = [index.search(query, soon)]
        while len(pages[-1].hits) == query.top_k and len(pages) < PAGES:
            if len(pages) <= len(walk.between):
                self.answer(index, walk.between[len(pages) - 1])
            pages.append(index.search(replace(query, after=pages[-1].end), soon))
        seen = [hit.case.id for page in pages for hit in page.hits]
        if not any(isinstance(write, Upsert) for write in walk.between):
            # A write may give a case another code, and so another place.
            assert len(set(seen)) == len(seen)
        return pages

    def compare_short(self, query: Query, exact: ExactIndex) -> None:
        soon = Deadline.after(60)
        reference = ExactIndex(exact.coding, exact.scan(soon), max_candidates=SHORT)
        everything = replace(query, top_k=1000, max_hits_per_patient=None, max_hits_per_series=None)
        distances = [hit.distance for hit in reference.search(everything, soon).hits]
        middle = replace(query, top_k=max(1, query.top_k // 2))
        later = replace(query, after=reference.search(middle, soon).end)
        for one in (query, later):
            found, expected = self.short.search(one, soon), reference.search(one, soon)
            assert found.ties_truncated == expected.ties_truncated
            if found.ties_truncated:
                # What lies nearer than the end of the list is in it, and in order.
                border = distances[SHORT - 1]
                assert before(found, border) == before(expected, border)
            else:
                assert found == expected

    def case(self, coding: Coding, row: Row) -> Case:
        made = self.new_case(coding, row.instance, frame=row.frame)
        return replace(
            made,
            code=code_of(row.code, coding.bits),
            content_sha256=hashlib.sha256(b"%d" % row.content).hexdigest(),
            label=LABELS[row.label],
            ingest_time=row.time,
            patient_key=made.patient_key if row.named else PatientKey(""),
        )

    def query(self, coding: Coding, call: Search) -> Query:
        own = self.new_case(coding, call.excluded)
        instance, study, patient = call.excludes
        output = None
        if call.output is not None:
            # Few distinct values: scores tie too.
            generator = np.random.default_rng(call.output)
            output = generator.choice(np.array([-0.5, 0.5, 1], np.float32), coding.bits)
        return Query(
            code_of(call.code, coding.bits),
            call.top_k,
            output,
            call.max_distance,
            Exclude(
                own.sop_instance_uid if instance else "",
                own.study_instance_uid if study else "",
                own.patient_key if patient else PatientKey(""),
            ),
            call.filter,
            call.per_patient,
            call.per_series,
        )


def before(found: Found, border: int) -> list[Hit]:
    return [hit for hit in found.hits if hit.distance < border]


@pytest.fixture(scope="module", params=BITS)
def pair(
    request: pytest.FixtureRequest,
    server: Server,
    opened: Callable[[Endpoint, Coding], MilvusIndex],
    new_coding: Callable[..., Coding],
    new_case: Callable[..., Case],
) -> Iterator[Pair]:
    coding = new_coding(bits=request.param)
    index = opened(server.endpoint, coding)
    connection = Connection(server.endpoint, Deadline.after(20))
    yield Pair(index, MilvusIndex(connection, coding, max_candidates=SHORT), new_case)
    connection.close()


def generated(count: int) -> settings:
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


NOBODY = (False, False, False)
TIED = [
    Upsert([Row(n, 1, 4, 0, n % 3, 0, named=n % 2 == 0) for n in range(80)]),
    Search(4, 10, None, 1, 3, (True, True, True)),
    Search(4, 10, None, 1, 3, NOBODY, parse("label:* frame = 1"), 1),
    Walk(Search(4, 30, None, 1, 3, NOBODY, None, 2, 1), []),
    Walk(Search(4, 9, None, None, 3, NOBODY), [Delete([0, 1, 2]), Upsert([Row(0, 2, 4, 0, 0, 0)])]),
]


@pytest.mark.parametrize("server", ["lite"], indirect=True)
@generated(PROGRAMS_LITE)
@example(program=TIED)
@given(program=programs)
def test_exact_and_milvus_lite_agree(pair: Pair, program: list[Call]) -> None:
    pair.run(program)


@pytest.mark.parametrize("server", ["standalone"], indirect=True)
@generated(PROGRAMS_STANDALONE)
@example(program=TIED)
@given(program=programs)
def test_exact_and_milvus_standalone_agree(pair: Pair, program: list[Call]) -> None:
    pair.run(program)


@pytest.mark.long
@pytest.mark.timeout(1800)
@generated(PROGRAMS_LONG)
@given(program=programs)
def test_exact_and_milvus_agree_on_many_programs(pair: Pair, program: list[Call]) -> None:
    pair.run(program)
