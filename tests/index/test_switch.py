"""A coding is filled beside the live one and takes its place, and nobody who searches notices."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dafh.codes import HashCode
from dafh.errors import (
    FailedPrecondition,
    InvalidInput,
    NotFound,
    Reason,
)
from dafh.index import difference, live
from dafh.index.archives import Archives
from dafh.index.case import Case, CaseId, Coding
from dafh.index.connection import Connection
from dafh.index.erasure import Cases, Eraser
from dafh.index.fill import fill
from dafh.index.live import Arrival, LiveArchive
from dafh.index.milvus import MilvusIndex
from dafh.index.port import Outcome, Query
from dafh.index.rows import Rows
from tests.index.models import (
    arrival,
    before_the_first,
    code_by,
    held,
    pointer_of,
    recode,
    second,
    soon,
    two_codings,
)
from tests.index.servers import Server

pytestmark = pytest.mark.stack

NewCoding = Callable[..., Coding]
NewCase = Callable[..., Case]


@pytest.fixture
def always_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no archive believe what it saw before."""
    monkeypatch.setattr(live, "FRESH_S", -1.0)


class Load:
    """Threads that search an archive for what was acknowledged, and write more into it."""

    def __init__(self, archive: LiveArchive, codings: Sequence[Coding], cases: list[Case]) -> None:
        self._archive, self._codings = archive, codings
        self._acknowledged, self._coming = cases[:40], iter(cases[40:])
        self._lock, self._end = threading.Lock(), threading.Event()
        self.answers = 0
        self.models: set[str] = set()

    def search(self, turn: int) -> None:
        """Each answer is of one model, and has the case that was acknowledged."""
        while not self._end.is_set():
            turn += 7
            with self._lock:
                case = self._acknowledged[turn % len(self._acknowledged)]
            index = self._archive.index(soon())
            model = index.coding.model_hash
            found = index.search(Query(code_by(model, case), 5), soon())
            assert (found.hits[0].case.id, found.hits[0].distance) == (case.id, 0)
            for hit in found.hits:
                assert hit.case.code == code_by(model, hit.case)
            assert case.id in index.get([case.id], soon())
            with self._lock:
                self.answers += 1
                self.models.add(model)

    def write(self) -> None:
        """Cases come one by one or a few at a time, coded by both models."""
        while not self._end.is_set():
            with self._lock:
                cases = [case for case, _ in zip(self._coming, range(3), strict=False)]
            if not cases:
                return
            arrivals = [arrival(case, *self._codings) for case in cases]
            assert self._archive.write(arrivals, soon()) == [Outcome.ADDED] * len(cases)
            with self._lock:
                self._acknowledged += cases

    def end(self) -> None:
        self._end.set()

    def acknowledged(self) -> list[CaseId]:
        return sorted(case.id for case in self._acknowledged)

    def go_on(self) -> None:
        """Wait longer than anybody believes in a former pointer, and for some more answers."""
        patience, enough = soon(), self.answers + 20
        self._end.wait(1.2)
        while self.answers < enough:
            patience.remaining("waiting for answers")
            self._end.wait(0.01)


def test_nothing_is_wrong_missing_or_refused_while_an_archive_is_recoded_under_load(
    connection: Connection, server: Server, new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding()
    other = second(coding)
    archives = Archives(connection, "default")
    archives.create(coding, soon())
    cases = [new_case(coding, number) for number in range(4_000)]
    archive = LiveArchive(Connection(server.endpoint, soon()), "default", coding.archive)
    archive.write([arrival(case, coding) for case in cases[:40]], soon())
    load = Load(archive, [coding, other], cases)
    with ThreadPoolExecutor(4) as pool:
        tasks = [pool.submit(load.search, turn) for turn in range(2)]
        tasks += [pool.submit(load.write) for _ in range(2)]
        try:
            load.go_on()
            archives.add_coding(other, soon())
            fill(connection, "default", coding.archive, other.key, recode(other), soon())
            for to in (other, coding, other):
                switched = archives.switch(coding.archive, to.key, soon())
                assert switched.missing.count == 0
                load.go_on()
                assert archive.archive(soon()).live == to
        finally:
            load.end()
        for task in tasks:
            task.result()
    acknowledged = load.acknowledged()
    assert load.models == {coding.model_hash, other.model_hash}
    assert len(acknowledged) > 60
    for one in (coding, other):
        assert [case.id for case in MilvusIndex(connection, one).scan(soon())] == acknowledged
    archive.close()


def test_cases_without_pixels_are_listed_and_block_the_switch_unless_allowed(
    connection: Connection,
    new_coding: NewCoding,
    new_case: NewCase,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Nothing is under way that could be waited for.
    monkeypatch.setattr(difference, "PATIENCE_S", 0.0)
    coding = new_coding()
    archives, other = two_codings(connection, coding)
    archive = LiveArchive(connection, "default", coding.archive)
    cases = sorted((new_case(coding, number) for number in range(30)), key=lambda case: case.id)
    archive.write([arrival(case, coding) for case in cases], soon())
    lost = tuple(case.id for case in cases[::10])
    filled = fill(
        connection, "default", coding.archive, other.key, recode(other, without=lost), soon()
    )
    assert (filled.stored, filled.missing.count, filled.missing.first) == (27, 3, lost)
    name = coding.archive
    asked = archives.switch(name, other.key, soon(), validate_only=True)
    assert (asked.missing, asked.archive.live) == (filled.missing, coding)
    with pytest.raises(FailedPrecondition) as refusal:
        archives.switch(name, other.key, soon())
    assert refusal.value.reason is Reason.CODING_INCOMPLETE
    assert "3" in refusal.value.message
    after = archives.get(name, soon())
    assert (after.live, after.switching_to) == (coding, None)
    allowed = archives.switch(name, other.key, soon(), allow_missing_cases=True)
    assert (allowed.missing, allowed.archive.live) == (filled.missing, other)
    # Back again nothing is missing.
    assert archives.switch(name, coding.key, soon()).archive.live == coding
    # What is filled later is found later.
    assert fill(connection, "default", name, other.key, recode(other), soon()).stored == 3
    assert archives.switch(name, other.key, soon()).missing.count == 0


@pytest.mark.usefixtures("always_looking")
def test_a_write_reaches_every_coding_that_it_has_codes_for(
    lite_connection: Connection, new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding()
    archives, other = two_codings(lite_connection, coding)
    archive = LiveArchive(lite_connection, "default", coding.archive)
    both, only_old, only_new = (new_case(coding, number) for number in range(3))
    assert archive.write([arrival(both, coding, other)], soon()) == [Outcome.ADDED]
    assert archive.write([arrival(only_old, coding)], soon()) == [Outcome.ADDED]
    with pytest.raises(FailedPrecondition) as refusal:
        archive.write([arrival(only_new, other)], soon())
    assert refusal.value.reason is Reason.MODEL_NOT_LOADED
    assert held(lite_connection, coding) == sorted([both.id, only_old.id])
    assert held(lite_connection, other) == [both.id]
    stored = MilvusIndex(lite_connection, other).get([both.id], soon())[both.id]
    assert stored == replace(both, code=code_by(other.model_hash, both))
    # After the switch it is the other way round.
    archives.switch(coding.archive, other.key, soon(), allow_missing_cases=True)
    archive.write([arrival(only_new, other)], soon())
    with pytest.raises(FailedPrecondition):
        archive.write([arrival(only_old, coding)], soon())


def test_a_write_that_a_switch_would_lose_is_not_acknowledged(
    connection: Connection, new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding()
    archives, other = two_codings(connection, coding)
    archive = LiveArchive(connection, "default", coding.archive)
    case = new_case(coding, 1)
    # As it is while a switch looks for missing cases, or after one that died.
    pointer_of(connection, coding).move(coding, other, soon())
    with pytest.raises(FailedPrecondition) as refusal:
        archive.write([arrival(case, coding)], soon())
    assert refusal.value.reason is Reason.MODEL_NOT_LOADED
    assert archives.get(coding.archive, soon()).switching_to == other
    assert archive.write([arrival(case, coding, other)], soon()) == [Outcome.UNCHANGED]
    # To switch to what is live ends it.
    archives.switch(coding.archive, coding.key, soon())
    assert archive.write([arrival(new_case(coding, 2), coding)], soon()) == [Outcome.ADDED]


def test_a_write_notices_that_the_pointer_moved_while_it_was_written(
    connection: Connection, new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding()
    archives, other = two_codings(connection, coding)
    archive = LiveArchive(connection, "default", coding.archive)
    assert archive.archive(soon()).live == coding
    archives.switch(coding.archive, other.key, soon())
    # It still believes in the former pointer.
    case = new_case(coding, 1)
    with pytest.raises(FailedPrecondition):
        archive.write([arrival(case, coding)], soon())
    assert held(connection, other) == []
    assert archive.write([arrival(case, coding, other)], soon()) == [Outcome.ADDED]
    assert held(connection, other) == [case.id]


def test_a_coding_that_was_dropped_meanwhile_fails_no_write(
    lite_connection: Connection, new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding()
    archives, other = two_codings(lite_connection, coding)
    archive = LiveArchive(lite_connection, "default", coding.archive)
    archive.write([arrival(new_case(coding, 1), coding, other)], soon())
    archives.drop_coding(coding.archive, other.key, soon())
    assert archive.write([arrival(new_case(coding, 2), coding, other)], soon()) == [Outcome.ADDED]
    archives.delete(coding.archive, soon(), force=True)
    with pytest.raises(NotFound):
        archive.write([arrival(new_case(coding, 3), coding)], soon())


def test_nothing_of_a_write_is_stored_anywhere_if_one_case_is_wrong(
    lite_connection: Connection, new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding()
    _, other = two_codings(lite_connection, coding)
    archive = LiveArchive(lite_connection, "default", coding.archive)
    good, case = arrival(new_case(coding, 1), coding, other), new_case(coding, 2)
    bad = Arrival(case, {coding.key: code_by("ab", case), other.key: HashCode(b"\0\0")})
    with pytest.raises(InvalidInput):
        archive.write([good, bad], soon())
    assert held(lite_connection, coding) == held(lite_connection, other) == []
    assert archive.write([], soon()) == []


def test_a_row_that_lost_does_not_stand_in_the_other_coding(
    lite_connection: Connection, new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding()
    _, other = two_codings(lite_connection, coding)
    archive = LiveArchive(lite_connection, "default", coding.archive)
    winner = new_case(coding, 1, content_sha256="0" * 64)
    archive.write([arrival(winner, coding)], soon())
    loser = new_case(coding, 1, content_sha256="f" * 64)
    written = archive.write([arrival(loser, coding, other)], soon())
    assert written == [Outcome.PIXEL_CONFLICT]
    assert held(lite_connection, other) == []
    fill(lite_connection, "default", coding.archive, other.key, recode(other), soon())
    stored = MilvusIndex(lite_connection, other).get([winner.id], soon())
    assert stored[winner.id].content_sha256 == "0" * 64


def test_a_case_that_is_erased_between_two_codings_of_a_write_is_in_neither(
    connection: Connection,
    server: Server,
    new_coding: NewCoding,
    new_case: NewCase,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    coding = new_coding()
    _, other = two_codings(connection, coding)
    own, cases = Connection(server.endpoint, soon()), [new_case(coding, n) for n in range(2)]
    eraser = Eraser(own, "default", coding.archive)
    archive, rows = LiveArchive(connection, "default", coding.archive), MilvusIndex.upsert

    def erased_first(case: Case) -> Callable[..., object]:
        return lambda: eraser.erase(Cases((case.id,)), soon())

    # Before it is copied: it does not stand any more.
    before_the_first(monkeypatch, LiveArchive, "_copy", erased_first(cases[0]))
    archive.write([arrival(cases[0], coding, other)], soon())

    def late(index: MilvusIndex, *arguments: object) -> object:
        if index.coding == other:
            # It was read, and is about to be copied.
            monkeypatch.setattr(MilvusIndex, "upsert", rows)
            erased_first(cases[1])()
        return rows(index, *arguments)  # type: ignore[arg-type]  # As it is called.

    monkeypatch.setattr(MilvusIndex, "upsert", late)
    archive.write([arrival(cases[1], coding, other)], soon())
    assert held(own, coding) == held(own, other) == []
    own.close()


@pytest.fixture(scope="module")
def pair(lite_connection: Connection, new_coding: NewCoding) -> tuple[Coding, Coding]:
    coding = new_coding()
    _, other = two_codings(lite_connection, coding)
    return coding, other


@settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(data=st.data())
def test_what_is_missing_is_what_one_set_has_and_the_other_has_not(
    lite_connection: Connection,
    pair: tuple[Coding, Coding],
    new_case: NewCase,
    data: st.DataObject,
) -> None:
    coding, other = pair
    numbers = st.sets(st.integers(0, 40), max_size=30)
    sets = [data.draw(numbers), data.draw(numbers)]
    page = data.draw(st.sampled_from([1, 3, 8_192]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(difference, "PAGE", page)
        patch.setattr(difference, "PATIENCE_S", 0.0)
        patch.setattr(difference, "LISTED", 5)
        for one, chosen in zip(pair, sets, strict=True):
            index = MilvusIndex(lite_connection, one)
            index.delete(held(lite_connection, one), soon())
            index.upsert([new_case(coding, number) for number in chosen], soon())
        lacking = difference.missing(
            Rows(lite_connection, coding), Rows(lite_connection, other), soon()
        )
    expected = sorted(new_case(coding, number).id for number in sets[0] - sets[1])
    assert (lacking.count, list(lacking.first)) == (len(expected), expected[:5])
