"""A coding is filled while its archive is searched, written to and erased from."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest

from dafh.codes import HashCode
from dafh.errors import (
    FailedPrecondition,
    NotFound,
    Outdated,
    Reason,
    Unavailable,
)
from dafh.index import difference, erasure
from dafh.index.archives import Archives
from dafh.index.case import Case, CaseId, Coding
from dafh.index.connection import Connection
from dafh.index.erasure import Cases, Eraser
from dafh.index.fill import fill
from dafh.index.live import LiveArchive
from dafh.index.milvus import MilvusIndex
from dafh.index.progress import FillNote
from dafh.index.rows import Rows
from tests.index.models import (
    Died,
    arrival,
    before_the_first,
    code_by,
    dying_after,
    held,
    recode,
    second,
    soon,
    two_codings,
)
from tests.index.servers import LiteServer, Server

pytestmark = pytest.mark.stack

NewCoding = Callable[..., Coding]
NewCase = Callable[..., Case]


@pytest.mark.parametrize("calls", range(0, 40, 3))
def test_a_fill_that_died_blocks_the_switch_and_brings_no_erased_case_back(
    lite_connection: Connection,
    lite: LiteServer,
    new_coding: NewCoding,
    new_case: NewCase,
    monkeypatch: pytest.MonkeyPatch,
    calls: int,
) -> None:
    monkeypatch.setattr("dafh.index.fill.PATIENCE_S", 0.1)
    monkeypatch.setattr(erasure, "PATIENCE_S", 0.1)
    monkeypatch.setattr(difference, "PATIENCE_S", 0.1)
    coding = new_coding()
    archives, other = two_codings(lite_connection, coding)
    name, cases = coding.archive, [new_case(coding, number) for number in range(8)]
    LiveArchive(lite_connection, "default", name).write(
        [arrival(case, coding) for case in cases], soon()
    )
    eraser = Eraser(lite_connection, "default", name)
    selection = Cases((cases[0].id,))
    mortal = Connection(lite.endpoint, soon())
    try:
        with dying_after(calls, mortal):
            fill(mortal, "default", name, other.key, recode(other), soon())
    except Died:
        under_way, _ = FillNote(archives.ledger, other).read(soon())
        if under_way:
            with pytest.raises(FailedPrecondition) as refusal:
                archives.switch(name, other.key, soon(), allow_missing_cases=True)
            assert refusal.value.reason is Reason.CODING_INCOMPLETE
            with pytest.raises(Unavailable):
                eraser.erase(selection, soon())
    mortal.close()
    fill(lite_connection, "default", name, other.key, recode(other), soon())
    eraser.erase(selection, soon())
    left = sorted(case.id for case in cases[1:])
    assert held(lite_connection, coding) == held(lite_connection, other) == left
    assert archives.switch(name, other.key, soon()).missing.count == 0


def test_a_case_that_is_erased_while_it_is_recoded_does_not_come_back(
    connection: Connection, server: Server, new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding()
    _, other = two_codings(connection, coding)
    name, cases = coding.archive, [new_case(coding, number) for number in range(4)]
    LiveArchive(connection, "default", name).write(
        [arrival(case, coding) for case in cases], soon()
    )
    own = Connection(server.endpoint, soon())
    erased = threading.Event()
    upsert = MilvusIndex.upsert

    def late_upsert(index: MilvusIndex, *arguments: object) -> object:
        # The batch was read; now somebody erases one of it from every coding.
        if not erased.is_set():
            for rows in (Rows(own, coding), Rows(own, other)):
                rows.erase([cases[0].id], soon())
            erased.set()
        return upsert(index, *arguments)  # type: ignore[arg-type]  # As it is called.

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MilvusIndex, "upsert", late_upsert)
        fill(connection, "default", name, other.key, recode(other), soon())
    assert erased.is_set()
    assert held(connection, other) == sorted(case.id for case in cases[1:])
    own.close()


def test_of_two_fills_of_one_coding_the_former_ends_and_brings_no_erased_case_back(
    connection: Connection,
    server: Server,
    new_coding: NewCoding,
    new_case: NewCase,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    coding = new_coding()
    _, other = two_codings(connection, coding)
    name, cases = coding.archive, [new_case(coding, number) for number in range(4)]
    own = Connection(server.endpoint, soon())
    LiveArchive(own, "default", name).write([arrival(case, coding) for case in cases], soon())

    monkeypatch.setattr("dafh.index.fill.PATIENCE_S", 0.1)

    def overtaken() -> None:
        # The former has read a batch; it is taken for dead, and what the latter fills is erased.
        assert fill(own, "default", name, other.key, recode(other), soon()).stored == len(cases)
        assert Eraser(own, "default", name).erase(Cases((cases[0].id,)), soon()) == 1

    before_the_first(monkeypatch, FillNote, "require_own", overtaken)
    with pytest.raises(Outdated):
        fill(connection, "default", name, other.key, recode(other), soon())
    assert held(own, other) == sorted(case.id for case in cases[1:])
    own.close()


def test_a_fill_gives_way_to_one_that_comes_through_its_batch(
    lite_connection: Connection, new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding()
    archives, other = two_codings(lite_connection, coding)
    under_way, case = FillNote(archives.ledger, other), new_case(coding, 1)
    under_way.write((case.id, case.id), soon())
    done = threading.Timer(0.3, under_way.write, (None, soon()))
    done.start()
    with pytest.raises(Outdated):
        fill(lite_connection, "default", coding.archive, other.key, recode(other), soon())
    done.join()


def test_a_fill_that_is_overtaken_while_it_makes_codes_writes_none_of_them(
    lite_connection: Connection, new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding()
    archives, other = two_codings(lite_connection, coding)
    LiveArchive(lite_connection, "default", coding.archive).write(
        [arrival(new_case(coding, 1), coding)], soon()
    )
    make = recode(other)

    def overtaken(cases: Sequence[Case]) -> Mapping[CaseId, HashCode]:
        fill(lite_connection, "default", coding.archive, other.key, lambda _: {}, soon())
        return make(cases)

    with pytest.raises(Outdated):
        fill(lite_connection, "default", coding.archive, other.key, overtaken, soon())
    assert held(lite_connection, other) == []
    assert FillNote(archives.ledger, other).read(soon())[0] is None


def test_a_case_whose_pixels_change_while_it_is_recoded_gets_the_code_of_the_new_ones(
    lite_connection: Connection, new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding()
    archives, other = two_codings(lite_connection, coding)
    former = new_case(coding, 1, content_sha256="f" * 64)
    latter = replace(former, content_sha256="0" * 64)
    archive = LiveArchive(lite_connection, "default", coding.archive)
    archive.write([arrival(former, coding)], soon())

    def code(case: Case) -> HashCode:
        return code_by(case.content_sha256, case)

    def changing(cases: Sequence[Case]) -> Mapping[CaseId, HashCode]:
        made = {case.id: code(case) for case in cases}
        archive.write([arrival(latter, coding)], soon())
        return made

    fill(lite_connection, "default", coding.archive, other.key, changing, soon())
    assert archives.switch(coding.archive, other.key, soon()).missing.count == 0
    stored = MilvusIndex(lite_connection, other).get([former.id], soon())[former.id]
    assert (stored.content_sha256, stored.code) == (latter.content_sha256, code(latter))


def test_only_a_coding_of_the_archive_can_be_filled(
    lite_connection: Connection, new_coding: NewCoding
) -> None:
    coding = new_coding()
    archives = Archives(lite_connection, "default")
    archives.create(coding, soon())
    with pytest.raises(NotFound) as refusal:
        fill(lite_connection, "default", coding.archive, second(coding).key, recode(coding), soon())
    assert refusal.value.reason is Reason.CODING_NOT_FOUND
    live_one = fill(lite_connection, "default", coding.archive, coding.key, recode(coding), soon())
    assert live_one.stored == 0
