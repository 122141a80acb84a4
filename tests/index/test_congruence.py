"""Exact and Milvus index agree on every program of calls, order and ties included."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
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
from dafh.index.exact import ExactIndex
from dafh.index.milvus import MilvusIndex
from dafh.index.port import CaseIndex, Exclude, Query

if TYPE_CHECKING:
    from tests.index.conftest import LiteServer

pytestmark = pytest.mark.stack

#: Few codes and few instances: ties, conflicts and exclusions that hit.
CODES = 7
INSTANCES = 90
#: Programs per code length.
PROGRAMS = 15
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


Call = Upsert | Delete | Search

numbers = st.integers
rows = st.builds(
    Row,
    instance=numbers(0, INSTANCES - 1),
    frame=numbers(1, 2),
    code=numbers(0, CODES - 1),
    content=numbers(0, 2),
    label=numbers(0, 2),
    time=numbers(0, 2),
)
#: Enough rows in one call that the candidate list has to grow.
floods = st.builds(
    lambda first, code, spread: Upsert(
        [Row(first + n, 1, (code + n % spread) % CODES, 0, 0, 0) for n in range(80)]
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
)
programs = st.lists(
    st.builds(Upsert, st.lists(rows, min_size=1, max_size=8))
    | floods
    | st.builds(Delete, st.lists(numbers(0, INSTANCES - 1), max_size=20))
    | searches,
    min_size=2,
    max_size=14,
)


def code_of(number: int, bits: int) -> HashCode:
    """Codes 0 to 3 are a bit or two apart; the others are far."""
    if number < 4:
        return HashCode((0, 1, 0x8000, 0x8001)[number].to_bytes(bits // 8, "big"))
    return HashCode(hashlib.sha256(bytes([number])).digest()[: bits // 8])


@dataclass(frozen=True)
class Pair:
    """The two indexes under test."""

    milvus: MilvusIndex
    new_case: Callable[..., Case]

    def run(self, program: list[Call]) -> None:
        coding = self.milvus.coding
        soon = Deadline.after(60)
        self.milvus.delete([case.id for case in self.milvus.scan(soon)], soon)
        exact = ExactIndex(coding)
        for call in [*program, Search(0, 200, None, 1, 0, (False, False, False))]:
            assert self.answer(self.milvus, call) == self.answer(exact, call)
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

    def case(self, coding: Coding, row: Row) -> Case:
        made = self.new_case(coding, row.instance, frame=row.frame)
        return replace(
            made,
            code=code_of(row.code, coding.bits),
            content_sha256=hashlib.sha256(b"%d" % row.content).hexdigest(),
            label=f"label {row.label}",
            ingest_time=row.time,
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
        )


@pytest.fixture(scope="module", params=BITS)
def pair(
    request: pytest.FixtureRequest,
    server: LiteServer,
    opened: Callable[[str, Coding], MilvusIndex],
    new_coding: Callable[..., Coding],
    new_case: Callable[..., Case],
) -> Pair:
    return Pair(opened(server.uri, new_coding(bits=request.param)), new_case)


def generated(count: int) -> settings:
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


TIED = [
    Upsert([Row(n, 1, 4, 0, 0, 0) for n in range(80)]),
    Search(4, 10, None, 1, 3, (True, True, True)),
]


@generated(PROGRAMS)
@example(program=TIED)
@given(program=programs)
def test_exact_and_milvus_agree(pair: Pair, program: list[Call]) -> None:
    pair.run(program)


@pytest.mark.long
@pytest.mark.timeout(1800)
@generated(PROGRAMS_LONG)
@given(program=programs)
def test_exact_and_milvus_agree_on_many_programs(pair: Pair, program: list[Call]) -> None:
    pair.run(program)
