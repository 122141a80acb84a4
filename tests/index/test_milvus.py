"""Promises of the Milvus index that the exact one cannot break."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from dafh.codes import BITS, HashCode
from dafh.deadline import Deadline
from dafh.errors import (
    DafhError,
    FailedPrecondition,
    Internal,
    InvalidInput,
    NotFound,
    Reason,
)
from dafh.imaging.image import PatientKey
from dafh.index.case import Case, CaseId, Coding
from dafh.index.collection import collection_name, row_of
from dafh.index.connection import Connection
from dafh.index.endpoint import Endpoint
from dafh.index.exact import ExactIndex
from dafh.index.milvus import FIRST_CANDIDATES, PAGE, MilvusIndex
from dafh.index.port import Exclude, Outcome, Query
from dafh.index.rows import Nearest, Rows
from dafh.index.storage import own_codings

if TYPE_CHECKING:
    from tests.index.servers import Server

pytestmark = pytest.mark.stack

NewCoding = Callable[..., Coding]
NewCase = Callable[..., Case]
Opened = Callable[[Endpoint, Coding], MilvusIndex]

HOSTILE = ['a"b', "a'b", "back\\slash\\", '" or tenant != "', "{label}", "%_*", "é漢😀", "\\u0022"]


def soon() -> Deadline:
    return Deadline.after(20)


@pytest.mark.parametrize("bits", BITS)
def test_what_was_stored_comes_back_whole(
    server: Server, opened: Opened, new_coding: NewCoding, new_case: NewCase, bits: int
) -> None:
    coding = new_coding(bits=bits)
    index = opened(server.endpoint, coding)
    cases = [new_case(coding, number, label="x", cancer_type="y") for number in range(10)]
    assert index.upsert(cases, soon()) == [Outcome.ADDED] * 10
    assert index.count(soon()) == 10
    assert index.get([case.id for case in cases], soon()) == {case.id: case for case in cases}
    for case in cases:
        assert index.search(Query(case.code, 1), soon()).hits[0].distance == 0


def test_hostile_text_is_stored_literally(
    server: Server, opened: Opened, new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding()
    index = opened(server.endpoint, coding)
    cases = [new_case(coding, number, label=text) for number, text in enumerate(HOSTILE)]
    index.upsert(cases, soon())
    assert list(index.scan(soon())) == sorted(cases, key=lambda case: case.id)


@pytest.mark.parametrize(
    ("wrong", "subject"),
    [
        ({"code": HashCode(b"\x01" * 4)}, "code"),
        ({"label": "é" * 129}, "label"),
        ({"modality": "x" * 100_000}, "modality"),
        ({"label": "line\nbreak"}, "label"),
        ({"label": "\ud800"}, "label"),
        ({"series_instance_uid": '1.2" or "1'}, "series_instance_uid"),
        ({"patient_key": PatientKey("DOE^JANE")}, "patient_key"),
    ],
)
def test_a_wrong_case_is_refused_and_its_neighbours_stay_intact(
    server: Server,
    opened: Opened,
    new_coding: NewCoding,
    new_case: NewCase,
    wrong: dict[str, object],
    subject: str,
) -> None:
    coding = new_coding()
    index = opened(server.endpoint, coding)
    before = [new_case(coding, number) for number in range(5)]
    index.upsert(before, soon())
    batch = [new_case(coding, 10), new_case(coding, 11, **wrong), new_case(coding, 12)]
    with pytest.raises(InvalidInput) as refusal:
        index.upsert(batch, soon())
    assert refusal.value.subject == subject
    assert "DOE" not in str(refusal.value)
    assert list(index.scan(soon())) == sorted(before, key=lambda case: case.id)
    for case in before:
        assert index.search(Query(case.code, 1), soon()).hits[0].case == case


@pytest.mark.parametrize(
    "exclude",
    [
        Exclude(sop_instance_uid='1.2" or id != "'),
        Exclude(study_instance_uid="1..3"),
        Exclude(patient_key=PatientKey('" or tenant != "')),
    ],
)
def test_an_exclusion_that_is_none_never_becomes_an_expression(
    server: Server, opened: Opened, new_coding: NewCoding, new_case: NewCase, exclude: Exclude
) -> None:
    coding = new_coding()
    index = opened(server.endpoint, coding)
    query = Query(new_case(coding, 1).code, 5, exclude=exclude)
    with pytest.raises(InvalidInput):
        index.search(query, soon())


def test_an_id_that_is_none_names_no_case(
    server: Server, opened: Opened, new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding()
    index = opened(server.endpoint, coding)
    index.upsert([new_case(coding, 1)], soon())
    strange = [CaseId('x"] or id in ["'), CaseId(""), CaseId("f" * 32)]
    assert index.get(strange, soon()) == {}
    assert index.delete(strange, soon()) == 0
    assert index.count(soon()) == 1


def test_a_deleted_case_is_found_no_more(
    server: Server, opened: Opened, new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding()
    index = opened(server.endpoint, coding)
    cases = [new_case(coding, number) for number in range(4)]
    index.upsert(cases, soon())
    assert index.delete([cases[0].id, cases[0].id, cases[1].id], soon()) == 2
    assert index.count(soon()) == 2
    assert {hit.case for hit in index.search(Query(cases[0].code, 9), soon()).hits} == set(
        cases[2:]
    )


def test_cases_of_one_archive_never_show_in_another(
    server: Server, opened: Opened, new_coding: NewCoding, new_case: NewCase
) -> None:
    one = new_coding()
    other = replace(one, tenant="other")
    opened(server.endpoint, one).upsert([new_case(one, 1)], soon())
    index = opened(server.endpoint, other)
    assert index.search(Query(new_case(one, 1).code, 9), soon()).hits == ()
    assert index.get([new_case(one, 1).id], soon()) == {}
    assert index.count(soon()) == 0


def test_the_coding_can_be_read_without_knowing_it(
    server: Server, opened: Opened, new_coding: NewCoding
) -> None:
    coding = new_coding(bits=48)
    opened(server.endpoint, coding)
    connection = Connection(server.endpoint, soon())
    assert own_codings(connection, coding.tenant, coding.archive, soon()) == [coding]
    connection.close()


@pytest.mark.parametrize("how", [MilvusIndex.open, MilvusIndex.open_or_create])
@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"key_id": "fedcba9876543210"}, Reason.PATIENT_KEY_MISMATCH),
        ({"bits": 32}, Reason.CODE_LENGTH_MISMATCH),
        ({"model_hash": "cd" * 32}, Reason.MODEL_NOT_LOADED),
    ],
)
def test_an_archive_opens_only_as_what_it_is(
    server: Server,
    opened: Opened,
    new_coding: NewCoding,
    how: Callable[[Endpoint, Coding, Deadline], MilvusIndex],
    other: dict[str, object],
    reason: Reason,
) -> None:
    coding = new_coding()
    opened(server.endpoint, coding)
    with pytest.raises(FailedPrecondition) as refusal:
        how(server.endpoint, replace(coding, **other), soon())  # type: ignore[arg-type]  # Any field.
    assert refusal.value.reason is reason
    opened(server.endpoint, coding)


def test_an_archive_that_was_never_made_is_not_found(server: Server, new_coding: NewCoding) -> None:
    with pytest.raises(NotFound) as refusal:
        MilvusIndex.open(server.endpoint, new_coding(), soon())
    assert refusal.value.reason is Reason.ARCHIVE_NOT_FOUND


def test_several_at_once_make_one_archive(
    server: Server, opened: Opened, new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding()
    with ThreadPoolExecutor(4) as pool:
        indexes = list(pool.map(lambda _: opened(server.endpoint, coding), range(4)))
    indexes[0].upsert([new_case(coding, 1)], soon())
    assert [index.count(soon()) for index in indexes] == [1] * 4


def test_a_long_candidate_list_answers_as_a_short_one(
    server: Server, opened: Opened, new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding(bits=16)
    index, exact = opened(server.endpoint, coding), ExactIndex(coding)
    code = HashCode(b"\x0f\x0f")
    # More cases tie than two growths of the list hold.
    cases = [new_case(coding, number, code=code) for number in range(1500)]
    for kept in (index, exact):
        kept.upsert(cases, soon())
    output = np.linspace(-1, 1, 16, dtype=np.float32)
    for query in (Query(code, 10), Query(code, 700), Query(HashCode(b"\xff\xff"), 3, output)):
        assert index.search(query, soon()) == exact.search(query, soon())


@pytest.mark.parametrize("own", [5, FIRST_CANDIDATES - 1, 3 * FIRST_CANDIDATES])
def test_who_is_excluded_fills_no_answer_however_many_are_near(
    server: Server, opened: Opened, new_coding: NewCoding, new_case: NewCase, own: int
) -> None:
    coding, patient, near = new_coding(bits=64), PatientKey("a" * 64), HashCode(bytes(8))
    index, exact = opened(server.endpoint, coding), ExactIndex(coding)
    alike = [new_case(coding, number, code=near, patient_key=patient) for number in range(own)]
    others = [
        new_case(coding, own + number, code=HashCode(bytes(7) + bytes([number])))
        for number in range(1, 30)
    ]
    query = Query(near, 10, exclude=Exclude(others[0].sop_instance_uid, "", patient))
    for kept in (index, exact):
        kept.upsert(alike + others, soon())
    found = index.search(query, soon())
    assert found == exact.search(query, soon())
    assert len(found.hits) == 10


def test_milvus_compares_no_row_with_who_is_excluded_while_others_are_near_enough(
    server: Server,
    opened: Opened,
    new_coding: NewCoding,
    new_case: NewCase,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    coding, patient = new_coding(bits=64), PatientKey("a" * 64)
    index, asked = opened(server.endpoint, coding), list[str]()
    index.upsert([new_case(coding, number, patient_key=patient) for number in range(3)], soon())
    nearest = Rows.nearest

    def noted(
        rows: Rows, code: HashCode, which: str, limit: int, fields: list[str], deadline: Deadline
    ) -> Nearest:
        asked.append(which)
        return nearest(rows, code, which, limit, fields, deadline)

    monkeypatch.setattr(Rows, "nearest", noted)
    assert not index.search(
        Query(HashCode(bytes(8)), 10, exclude=Exclude("", "", patient)), soon()
    ).hits
    assert asked
    assert not [which for which in asked if "patient_key" in which]


def test_ties_beyond_the_list_are_reported(
    server: Server, opened: Opened, new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding(bits=16)
    opened(server.endpoint, coding)
    connection = Connection(server.endpoint, soon())
    index = MilvusIndex(connection, coding, max_candidates=100)
    exact = ExactIndex(coding, max_candidates=100)
    same = [new_case(coding, number, code=HashCode(b"\0\0")) for number in range(100)]
    far = [new_case(coding, 100 + number, code=HashCode(b"\xff\xff")) for number in range(100)]
    near, query = Query(HashCode(b"\0\0"), 5), Query(HashCode(b"\0\x01"), 5, max_distance=3)
    for kept in (index, exact):
        kept.upsert(same[:99] + far, soon())
        assert not kept.search(near, soon()).ties_truncated
        kept.upsert(same[99:], soon())
        assert kept.search(near, soon()).ties_truncated
        assert kept.search(query, soon()).ties_truncated
    connection.close()


def test_a_scan_over_several_pages_yields_every_case_once(
    server: Server,
    opened: Opened,
    new_coding: NewCoding,
    new_case: NewCase,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    coding = new_coding()
    index = opened(server.endpoint, coding)
    cases = [new_case(coding, number) for number in range(40)]
    index.upsert(cases, soon())
    index.upsert(cases[:20], soon())
    assert PAGE > 40
    for page in (7, 20, 40):
        monkeypatch.setattr("dafh.index.milvus.PAGE", page)
        assert list(index.scan(soon())) == sorted(cases, key=lambda case: case.id)


def test_threads_that_search_while_others_write_get_true_answers(
    server: Server, opened: Opened, new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding()
    index = opened(server.endpoint, coding)
    cases = [new_case(coding, number) for number in range(240)]
    index.upsert(cases[:80], soon())

    def read(start: int) -> None:
        for case in cases[start:80:4]:
            hit = index.search(Query(case.code, 5), soon()).hits[0]
            assert (hit.case, hit.distance) == (case, 0)
            assert index.get([case.id], soon()) == {case.id: case}

    def write(start: int) -> None:
        for place in range(start, start + 80, 20):
            index.upsert(cases[place : place + 20], soon())

    with ThreadPoolExecutor(6) as pool:
        for task in [pool.submit(read, start) for start in range(4)] + [
            pool.submit(write, start) for start in (80, 160)
        ]:
            task.result()
    assert index.count(soon()) == 240


def test_a_vector_that_is_not_its_row_s_code_is_noticed(
    server: Server, opened: Opened, new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding()
    index = opened(server.endpoint, coding)
    case = new_case(coding, 1)
    row = row_of(case, coding) | {"code": bytes(8)}
    connection = Connection(server.endpoint, soon())
    connection.run(
        "spoiling a row",
        soon(),
        lambda client, timeout: client.upsert(collection_name(coding), [row], timeout=timeout),
    )
    connection.close()
    # A later write is acknowledged when a Strong read has seen it, and then this one is seen too.
    index.upsert([new_case(coding, 2)], soon())
    with pytest.raises(Internal) as fault:
        index.search(Query(case.code, 1), soon())
    assert fault.value.reason is Reason.INDEX_WRONG


def test_every_call_refuses_a_deadline_that_has_passed(
    server: Server, opened: Opened, new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding()
    index, case = opened(server.endpoint, coding), new_case(coding, 1)
    past = Deadline.after(-1)
    for call in (
        lambda: index.upsert([case], past),
        lambda: index.search(Query(case.code, 1), past),
        lambda: index.get([case.id], past),
        lambda: index.delete([case.id], past),
        lambda: index.count(past),
        lambda: list(index.scan(past)),
    ):
        with pytest.raises(DafhError) as refusal:
            call()
        assert refusal.value.reason is Reason.DEADLINE_EXCEEDED
    assert index.count(soon()) == 0
