"""What is erased is gone: from search, from every coding, for good."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from dafh.errors import DafhError, FailedPrecondition, InvalidInput, NotFound, Reason
from dafh.imaging.image import PatientKey
from dafh.index.archives import Archives
from dafh.index.case import Case, CaseId, Coding
from dafh.index.connection import Connection
from dafh.index.erasure import Cases, Eraser, Patient, Selection, Study
from dafh.index.live import LiveArchive
from dafh.index.milvus import MilvusIndex
from dafh.index.port import Query
from dafh.index.progress import ErasureCount
from tests.index.models import Died, arrival, code_by, dying_after, second, soon
from tests.index.servers import LiteServer, Server

pytestmark = pytest.mark.stack

NewCoding = Callable[..., Coding]
NewCase = Callable[..., Case]

#: What does not depend on the server.
ON_LITE = pytest.mark.parametrize("server", ["lite"], indirect=True)


@pytest.fixture(scope="module")
def connection(server: Server) -> Iterator[Connection]:
    with closing(Connection(server.endpoint, soon())) as connection:
        yield connection


@pytest.fixture
def codings(connection: Connection, new_coding: NewCoding) -> tuple[Coding, Coding]:
    """Two codings of an archive that hold the same cases."""
    coding = new_coding()
    archives, other = Archives(connection, coding.tenant), second(coding)
    archives.create(coding, soon())
    archives.add_coding(other, soon())
    return coding, other


@pytest.fixture
def kept(connection: Connection, codings: tuple[Coding, Coding], new_case: NewCase) -> list[Case]:
    """Two frames of each of forty instances; four instances are a study, eight a patient's."""
    cases = [new_case(codings[0], number, frame=frame) for number in range(40) for frame in (1, 2)]
    archive = LiveArchive(connection, codings[0].tenant, codings[0].archive)
    archive.write([arrival(case, *codings) for case in cases], soon())
    return cases


def eraser(connection: Connection, coding: Coding) -> Eraser:
    return Eraser(connection, coding.tenant, coding.archive)


def test_erased_cases_are_nowhere_and_the_others_are_where_they_were(
    connection: Connection, codings: tuple[Coding, Coding], kept: list[Case]
) -> None:
    one, study, patient = kept[0], kept[20], kept[40]
    strange = (CaseId("f" * 32), CaseId('x"] or id in ["'))
    selections: list[tuple[Selection, Callable[[Case], bool], int]] = [
        (
            Cases((one.id, kept[3].id, one.id, *strange)),
            lambda case: case.id in {one.id, kept[3].id},
            2,
        ),
        (
            Study(study.study_instance_uid),
            lambda case: case.study_instance_uid == study.study_instance_uid,
            8,
        ),
        (
            Patient(patient.patient_key, codings[0].key_id),
            lambda case: case.patient_key == patient.patient_key,
            16,
        ),
    ]
    left = list(kept)
    for selection, selected, count in selections:
        gone = [case for case in left if selected(case)]
        assert len(gone) == count
        assert eraser(connection, codings[0]).count(selection, soon()) == count
        assert eraser(connection, codings[0]).erase(selection, soon()) == count
        left = [case for case in left if not selected(case)]
        for coding in codings:
            index = MilvusIndex(connection, coding)
            ids = sorted(case.id for case in left)
            assert [case.id for case in index.scan(soon())] == ids
            assert index.get([case.id for case in gone], soon()) == {}
            assert index.count(soon()) == len(ids)
            for case in gone:
                hits = index.search(Query(code_by(coding.model_hash, case), 100), soon()).hits
                assert sorted(hit.case.id for hit in hits) == ids
        # Once more there is nothing to do.
        assert eraser(connection, codings[0]).erase(selection, soon()) == 0


@ON_LITE
def test_an_erasure_is_counted_when_it_begins_and_when_it_ends(
    connection: Connection, codings: tuple[Coding, Coding], kept: list[Case]
) -> None:
    count = ErasureCount(
        Archives(connection, codings[0].tenant).ledger, codings[0].tenant, codings[0].archive
    )
    before = count.read(soon())
    eraser(connection, codings[0]).erase(Cases((kept[0].id,)), soon())
    assert count.read(soon()) == before + 2


IMPOSSIBLE: list[tuple[Selection, type[DafhError]]] = [
    (Study('1.2" or study_instance_uid != "'), InvalidInput),
    (Study(""), InvalidInput),
    (Patient(PatientKey(""), "0123456789abcdef"), InvalidInput),
    (Patient(PatientKey("DOE^JANE"), "0123456789abcdef"), InvalidInput),
    (Patient(PatientKey("ab" * 32), "another key"), FailedPrecondition),
]


@ON_LITE
def test_what_cannot_be_selected_erases_nothing(
    connection: Connection, codings: tuple[Coding, Coding], kept: list[Case]
) -> None:
    for selection, kind in IMPOSSIBLE:
        with pytest.raises(kind) as refusal:
            eraser(connection, codings[0]).erase(selection, soon())
        assert "DOE" not in str(refusal.value)
    assert MilvusIndex(connection, codings[0]).count(soon()) == len(kept)


def test_an_archive_that_is_not_there_has_nothing_to_erase(connection: Connection) -> None:
    with pytest.raises(NotFound) as refusal:
        Eraser(connection, "default", "nowhere").erase(Study("1.2"), soon())
    assert refusal.value.reason is Reason.ARCHIVE_NOT_FOUND


@ON_LITE
def test_cases_of_unknown_patients_are_no_patient_s(
    connection: Connection, codings: tuple[Coding, Coding], kept: list[Case]
) -> None:
    coding = codings[0]
    index = MilvusIndex(connection, coding)
    unknown = [
        replace(case, patient_key=PatientKey(""), content_sha256="0" * 64) for case in kept[:4]
    ]
    index.upsert(unknown, soon())
    selection = Patient(kept[4].patient_key, coding.key_id)
    eraser(connection, coding).erase(selection, soon())
    left = {case.id for case in index.scan(soon())}
    assert {case.id for case in unknown} <= left


@pytest.mark.parametrize("calls", [*range(0, 24, 2), 28, 34, 40])
def test_an_erasure_that_died_is_finished_by_the_next(
    lite: LiteServer, new_coding: NewCoding, new_case: NewCase, calls: int
) -> None:
    with closing(Connection(lite.endpoint, soon())) as connection:
        coding = new_coding()
        archives, other = Archives(connection, coding.tenant), second(coding)
        archives.create(coding, soon())
        archives.add_coding(other, soon())
        cases = [new_case(coding, number) for number in range(12)]
        LiveArchive(connection, coding.tenant, coding.archive).write(
            [arrival(case, coding, other) for case in cases], soon()
        )
        selection = Study(cases[0].study_instance_uid)
        with closing(Connection(lite.endpoint, soon())) as mortal:
            try:
                with dying_after(calls, mortal):
                    eraser(mortal, coding).erase(selection, soon())
            except Died:
                eraser(connection, coding).erase(selection, soon())
        left = sorted(case.id for case in cases[4:])
        for one in (coding, other):
            assert [case.id for case in MilvusIndex(connection, one).scan(soon())] == left
