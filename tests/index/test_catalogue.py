"""What several do to one archive at once: nothing acknowledged goes, or somebody is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dafh.deadline import Deadline
from dafh.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    Outdated,
    Reason,
)
from dafh.index import dump, storage
from dafh.index.archives import Archives
from dafh.index.capabilities import _KNOWN, capabilities
from dafh.index.case import Case, Coding
from dafh.index.catalogue import Catalogue
from dafh.index.connection import Connection
from dafh.index.erasure import Eraser
from dafh.index.live import LiveArchive
from dafh.index.manifest import Folder
from dafh.index.milvus import MilvusIndex
from dafh.index.progress import ErasureCount
from dafh.index.rows import Rows
from tests.index.models import Died, arrival, before_the_first, pointer_of, second, soon
from tests.index.servers import Server, StandaloneServer

pytestmark = pytest.mark.stack

NewCoding = Callable[..., Coding]
NewCase = Callable[..., Case]


@pytest.fixture
def other(server: Server) -> Iterator[Connection]:
    """Return a connection of another program to the same server."""
    with closing(Connection(server.endpoint, soon())) as connection:
        yield connection


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_who_removes_an_archive_leaves_one_that_was_made_anew_meanwhile(
    connection: Connection,
    other: Connection,
    new_coding: NewCoding,
    new_case: NewCase,
    monkeypatch: pytest.MonkeyPatch,
    shared: bool,
) -> None:
    coding = new_coding(shared=shared)
    archives, others = (Archives(one, coding.tenant, shared=shared) for one in (connection, other))
    archives.create(coding, soon())
    MilvusIndex(connection, coding).upsert([new_case(coding, 1)], soon())
    case = new_case(coding, 2)

    def made_anew() -> None:
        others.create(coding, soon())
        MilvusIndex(other, coding).upsert([case], soon())

    # The deletion is written down; another program finishes it and goes on.
    before_the_first(monkeypatch, Catalogue, "_require_still", made_anew)
    with pytest.raises(Outdated):
        archives.delete(coding.archive, soon(), force=True)
    assert archives.get(coding.archive, soon()).live == coding
    assert MilvusIndex(connection, coding).get([case.id], soon()) == {case.id: case}
    assert MilvusIndex(connection, coding).count(soon()) == 1


def test_on_this_machine_nobody_else_removes_between_the_last_look_and_the_removal(
    lite_connection: Connection, new_coding: NewCoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    coding, held = new_coding(), list[str]()
    archives = Archives(lite_connection, coding.tenant)
    archives.create(coding, soon())
    call = lite_connection.call

    def watched(stage: str, deadline: Deadline, name: str, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - as call
        if name in {"drop_collection", "delete"}:
            try:
                with lite_connection.alone("asking", Deadline.after(0.02)):
                    pass
            except DeadlineExceeded:
                held.append(name)
        return call(stage, deadline, name, *arguments, **named)

    monkeypatch.setattr(lite_connection, "call", watched)
    archives.delete(coding.archive, soon())
    # The coding's collection; the pointer; the record.
    assert held == ["drop_collection", "delete", "delete"]


def test_an_empty_archive_is_kept_where_a_case_comes_while_it_is_deleted(
    connection: Connection,
    other: Connection,
    new_coding: NewCoding,
    new_case: NewCase,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    coding = new_coding()
    archives, live = Archives(connection, "default"), second(coding)
    archives.create(coding, soon())
    archives.add_coding(live, soon())
    archives.switch(coding.archive, live.key, soon())
    writer, case = LiveArchive(other, "default", coding.archive), new_case(live, 1)
    writer.index(soon())

    def late() -> None:
        # It was found to be empty.
        writer.write([arrival(case, coding, live)], soon())

    before_the_first(monkeypatch, Catalogue, "write", late)
    with pytest.raises(FailedPrecondition) as refusal:
        archives.delete(coding.archive, soon())
    assert refusal.value.reason is Reason.ARCHIVE_NOT_EMPTY
    kept = archives.get(coding.archive, soon())
    assert [one.coding for one in kept.codings] == [live, coding]
    assert pointer_of(connection, coding).read(soon()) == (live.key, "")
    assert set(MilvusIndex(connection, live).get([case.id], soon())) == {case.id}
    assert len(writer.write([arrival(new_case(live, 2), coding, live)], soon())) == 1


def test_no_write_is_acknowledged_once_the_archive_is_deleted(
    connection: Connection,
    other: Connection,
    new_coding: NewCoding,
    new_case: NewCase,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    coding = new_coding()
    Archives(connection, "default").create(coding, soon())
    writer = LiveArchive(other, "default", coding.archive)
    writer.index(soon())
    copy = LiveArchive._copy

    def dying(*_arguments: object, **_named: object) -> None:
        raise Died

    def deleted(*arguments: object) -> None:
        copy(*arguments)  # type: ignore[arg-type]  # As it is called.
        # It is written down, and nothing is removed yet.
        monkeypatch.setattr(storage, "remove", dying)
        with pytest.raises(Died):
            Archives(connection, "default").delete(coding.archive, soon(), force=True)

    monkeypatch.setattr(LiveArchive, "_copy", deleted)
    with pytest.raises(NotFound) as refusal:
        writer.write([arrival(new_case(coding, 1), coding)], soon())
    assert refusal.value.reason is Reason.ARCHIVE_NOT_FOUND


def test_an_archive_whose_maker_died_before_the_first_mark_takes_cases(
    connection: Connection, new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding()
    Archives(connection, "default").create(coding, soon())
    pointer_of(connection, coding).move(None, None, soon())
    writer = LiveArchive(connection, "default", coding.archive)
    assert len(writer.write([arrival(new_case(coding, 1), coding)], soon())) == 1


def test_of_two_switches_at_once_one_is_told_and_no_acknowledged_case_is_lost(
    connection: Connection,
    other: Connection,
    new_coding: NewCoding,
    new_case: NewCase,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    coding = new_coding()
    two, three = second(coding), replace(coding, model_hash="ef" * 32, model_version=3)
    archives = Archives(connection, "default")
    archives.create(coding, soon())
    for added in (two, three):
        archives.add_coding(added, soon())
    writer, case = LiveArchive(other, "default", coding.archive), new_case(coding, 1)

    def marked() -> None:
        # Nothing was missing; now another switch begins, and a write reaches what it marked.
        pointer_of(other, coding).move(coding, three, soon())
        writer.write([arrival(case, coding, three)], soon())

    before_the_first(monkeypatch, Catalogue, "write", marked)
    with pytest.raises(Outdated):
        archives.switch(coding.archive, two.key, soon())
    assert pointer_of(connection, coding).read(soon()) == (coding.key, three.key)
    live = archives.switch(coding.archive, three.key, soon()).archive.live
    assert Rows(connection, live).keys("", 9, soon()) == [case.id]


def test_a_dump_does_not_go_on_with_an_archive_that_was_made_anew(
    lite_connection: Connection,
    new_coding: NewCoding,
    new_case: NewCase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dump, "PART_ROWS", 2)
    coding, folder = new_coding(), Folder(tmp_path)
    archives, index = Archives(lite_connection, "default"), MilvusIndex(lite_connection, coding)
    erasures = ErasureCount(archives.ledger, coding.tenant, coding.archive).read
    archives.create(coding, soon())
    index.upsert([new_case(coding, number) for number in range(6)], soon())
    plan = dump.begin(index, folder, erasures, soon())
    dump.write_part(index, folder, plan, 0, soon())
    archives.delete(coding.archive, soon(), force=True)
    archives.create(coding, soon())
    index.upsert([new_case(coding, number) for number in range(100, 103)], soon())
    manifest = dump.dump(index, folder, erasures, soon())
    assert list(dump.cases(folder, manifest)) == list(index.scan(soon()))


@pytest.mark.parametrize("name", ["\udcff", "a b", ""])
def test_what_cannot_be_an_archive_is_refused_wherever_it_is_named(
    lite_connection: Connection, name: str
) -> None:
    archives = Archives(lite_connection, "default")
    for call in (
        lambda: archives.get(name, soon()),
        lambda: archives.delete(name, soon()),
        lambda: Eraser(lite_connection, "default", name),
    ):
        with pytest.raises(InvalidInput) as refusal:
            call()
        assert refusal.value.subject == "archive"


def test_the_pointer_stays_where_it_was_made_whatever_the_server_can_do_later(
    standalone: StandaloneServer, new_coding: NewCoding
) -> None:
    coding = new_coding()
    for aliases in (False, True):
        made, later = (Connection(standalone.endpoint, soon()) for _ in "12")
        able = capabilities(made, soon())
        _KNOWN[made] = replace(able, aliases=aliases)
        _KNOWN[later] = replace(able, aliases=not aliases)
        archives = Archives(made, "default")
        archives.create(coding, soon())
        archives.add_coding(second(coding), soon())
        archives.switch(coding.archive, second(coding).key, soon())
        assert Archives(later, "default").get(coding.archive, soon()).live == second(coding)
        archives.delete(coding.archive, soon())
        made.close()
        later.close()
