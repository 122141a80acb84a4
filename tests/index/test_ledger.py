"""The ledger keeps documents whole, and tells those whose change does not stand."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dafh.deadline import Deadline
from dafh.errors import Outdated
from dafh.index.connection import Connection
from dafh.index.ledger import Ledger, Note
from dafh.index.record import subject
from tests.index.models import Died, dying_after, soon
from tests.index.servers import LiteServer, Server

pytestmark = pytest.mark.stack


def test_the_highest_revision_of_a_note_counts_and_the_others_go(
    lite_connection: Connection, lite: LiteServer
) -> None:
    ledger = Ledger(lite_connection)
    about = subject("test", "default", "revisions")
    for revision in (1, 2):
        ledger.write(Note(about, "default", f'"{revision}"', revision), soon())
    for stale in (1, 2, 4):
        with pytest.raises(Outdated):
            ledger.write(Note(about, "default", '"lost"', stale), soon())
    mortal = Connection(lite.endpoint, soon())
    dying = Ledger(mortal)
    assert dying.read(about, soon()) is not None
    # It dies when the next revision is written and the former is not yet deleted.
    with pytest.raises(Died), dying_after(3, mortal):
        dying.write(Note(about, "default", '"3"', 3), soon())
    mortal.close()
    for expected in (3, 4):
        note = ledger.read(about, soon())
        assert note is not None
        assert (note.revision, note.document) == (expected, f'"{expected}"')
        ledger.write(Note(about, "default", f'"{expected + 1}"', expected + 1), soon())
    rows = lite_connection.call(
        "counting", soon(), "query", "dafh_archives", filter=f'subject == "{about}"'
    )
    assert len(rows) == 1
    ledger.remove(about, soon())
    assert ledger.read(about, soon()) is None


def test_of_two_who_change_one_note_at_once_one_is_told_and_the_other_stands(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections = [Connection(server.endpoint, soon()) for _ in "12"]
    ledgers, about = [Ledger(one) for one in connections], subject("test", "default", "at-once")
    ledgers[0].write(Note(about, "default", '"base"', 1), soon())
    written = threading.Barrier(2)
    for connection in connections:
        monkeypatch.setattr(connection, "call", meeting_at("upsert", connection, written))

    def write(number: int) -> bool:
        try:
            ledgers[number].write(Note(about, "default", f'"{number}"', 2), soon())
        except Outdated:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        told = list(pool.map(write, range(2)))
    assert sorted(told) == [False, True]
    note = ledgers[0].read(about, soon())
    assert note is not None
    assert note.document == f'"{told.index(True)}"'
    for connection in connections:
        connection.close()


def meeting_at(name: str, connection: Connection, met: threading.Barrier) -> Callable[..., Any]:
    """Return a connection's `call` that waits for another one's before and after a method."""
    call = connection.call

    def called(stage: str, deadline: Deadline, what: str, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - as call
        if what == name:
            met.wait(20)
        answer = call(stage, deadline, what, *arguments, **named)
        if what == name:
            met.wait(20)
        return answer

    return called


def late(connection: Connection, first: Callable[[], object]) -> Callable[..., Any]:
    """Return a connection's `call` by which something else happens just before it writes."""
    call = connection.call

    def called(stage: str, deadline: Deadline, what: str, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - as call
        if what == "upsert":
            first()
        return call(stage, deadline, what, *arguments, **named)

    return called


def test_who_was_told_that_a_note_stands_loses_it_to_nobody_who_began_before(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dafh.index.ledger._YIELDING_S", 0.5)
    slow, quick = (Connection(server.endpoint, soon()) for _ in "12")
    about = subject("test", "default", "overtaken")
    first = Note(about, "default", '"quick"', 1)
    # It has looked, and has its key; now another one is quicker.
    monkeypatch.setattr(slow, "call", late(slow, lambda: Ledger(quick).write(first, soon())))
    with pytest.raises(Outdated):
        Ledger(slow).write(Note(about, "default", '"slow"', 1), soon())
    assert Ledger(quick).read(about, soon()) == first
    Ledger(quick).write(Note(about, "default", '"next"', 2), soon())
    slow.close()
    quick.close()


def test_a_note_is_not_brought_back_by_who_looked_before_it_was_removed(
    lite: LiteServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, quick = (Connection(lite.endpoint, soon()) for _ in "12")
    about = subject("test", "default", "removed")
    Ledger(quick).write(Note(about, "default", '"first"', 1), soon())
    monkeypatch.setattr(slow, "call", late(slow, lambda: Ledger(quick).remove(about, soon())))
    with pytest.raises(Outdated):
        Ledger(slow).write(Note(about, "default", '"second"', 2), soon())
    assert Ledger(quick).read(about, soon()) is None
    slow.close()
    quick.close()


def test_a_server_whose_clock_was_set_back_delays_a_write_and_does_not_refuse_it(
    lite_connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, about, asked = Ledger(lite_connection), subject("test", "default", "set-back"), 0
    query = ledger._query

    def called(
        which: str, fields: list[str], deadline: Deadline, *, strong: bool
    ) -> list[dict[str, Any]]:
        nonlocal asked
        asked += 1
        rows = query(which, fields, deadline, strong=strong)
        # The first looks for what is there before; then comes what a later time's rows are to it.
        return [] if 2 <= asked <= 4 else rows

    monkeypatch.setattr(ledger, "_query", called)
    for revision in (1, 2):
        note, asked = Note(about, "default", f'"{revision}"', revision), 0
        ledger.write(note, soon())
        assert asked > 4
        assert ledger.read(about, soon()) == note


def test_of_two_notes_that_the_dead_left_the_earliest_counts_and_keys_of_old_are_read(
    lite_connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dafh.index.ledger._PATIENCE_S", 0.1)
    ledger, about = Ledger(lite_connection), subject("test", "default", "left")
    ledger.write(Note(about, "default", '"1"', 1), soon())

    def leave(revision: int) -> None:
        for suffix in ("", ".00061d2f5a8f000000", ".00061d2f5a8f010000"):
            row: dict[str, object] = {
                "id": f"{about}.{revision:012}{suffix}",
                "subject": about,
                "tenant": "default",
                "revision": revision,
                "document": f'"{revision}{suffix}"',
                "code": b"\0",
            }
            lite_connection.call("writing", soon(), "upsert", "dafh_archives", [row])

    leave(2)
    assert ledger.read(about, soon()) == Note(about, "default", '"2"', 2)
    assert Note(about, "default", '"2"', 2) in ledger.of("default", "test-", soon())
    ledger.write(Note(about, "default", '"3"', 3), soon())
    rows = lite_connection.call(
        "counting", soon(), "query", "dafh_archives", filter=f'subject == "{about}"'
    )
    assert [row["document"] for row in rows] == ['"3"']
    leave(4)
    ledger.remove(about, soon(), latest=ledger.read(about, soon()))
    assert ledger.read(about, soon()) is None
