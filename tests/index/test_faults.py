"""The server goes away, hangs, and comes back: deadlines hold and nothing acknowledged is lost."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pymilvus import MilvusException
from pymilvus.client.grpc_handler import GrpcHandler

from dafh.deadline import Deadline
from dafh.errors import DafhError, DeadlineExceeded, Overloaded, Reason, Unavailable
from dafh.index.capabilities import _QUESTIONS, capabilities
from dafh.index.case import Case, Coding
from dafh.index.connection import Connection
from dafh.index.endpoint import Endpoint
from dafh.index.exact import ExactIndex
from dafh.index.milvus import MilvusIndex
from dafh.index.port import Exclude, Query
from tests.index.conftest import LEASES, TICK
from tests.index.servers import PATIENCE_S, LiteServer, StandaloneServer

if TYPE_CHECKING:
    from tests.index.servers import Server

pytestmark = pytest.mark.stack

NewCoding = Callable[..., Coding]
NewCase = Callable[..., Case]
Opened = Callable[[Endpoint | str, Coding], MilvusIndex]

#: How long after its deadline a call may still return.
GRACE_S = 0.1


def calls(index: MilvusIndex, uri: str, case: Case) -> dict[str, Callable[[Deadline], object]]:
    """Every call that reaches the server."""
    exclude = Exclude(patient_key=case.patient_key)
    return {
        "open": lambda deadline: MilvusIndex.open(uri, index.coding, deadline),
        "create": lambda deadline: MilvusIndex.open_or_create(uri, index.coding, deadline),
        "upsert": lambda deadline: index.upsert([case], deadline),
        "search": lambda deadline: index.search(Query(case.code, 1, exclude=exclude), deadline),
        "get": lambda deadline: index.get([case.id], deadline),
        "delete": lambda deadline: index.delete([case.id], deadline),
        "count": lambda deadline: index.count(deadline),
        "scan": lambda deadline: list(index.scan(deadline)),
    }


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Assert how long the block takes, less the time that this machine gave to other processes."""
    stalled, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            slept = time.monotonic()
            time.sleep(0.005)
            stalled[0] += max(0.0, time.monotonic() - slept - 0.006)

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.monotonic()
    try:
        yield
        elapsed = time.monotonic() - started
    finally:
        done.set()
        watcher.join()
    assert elapsed < seconds + GRACE_S + stalled[0]


def recovered(index: MilvusIndex) -> None:
    """Wait until the same object works again; a server may take as long as for any other start."""
    deadline = Deadline.after(PATIENCE_S)
    while True:
        try:
            index.count(deadline)
        except Unavailable:
            time.sleep(0.05)
        else:
            return


def test_a_killed_server_is_unavailable_in_time_and_back_with_every_case(
    own_server: Server,
    opened: Opened,
    new_coding: NewCoding,
    new_case: NewCase,
    capfd: pytest.CaptureFixture[str],
) -> None:
    coding = new_coding()
    index, exact = opened(own_server.uri, coding), ExactIndex(coding)
    cases = [new_case(coding, number) for number in range(60)]
    for kept in (index, exact):
        kept.upsert(cases, Deadline.after(20))
        kept.delete([case.id for case in cases[:5]], Deadline.after(20))
    for _ in range(2):
        own_server.kill()
        for name, call in calls(index, own_server.uri, cases[9]).items():
            with within(1), pytest.raises(Unavailable):
                call(Deadline.after(20))
            assert name
        own_server.start()
        recovered(index)
        assert list(index.scan(Deadline.after(20))) == list(exact.scan(Deadline.after(20)))
        query = Query(cases[9].code, 20)
        assert index.search(query, Deadline.after(20)) == exact.search(query, Deadline.after(20))
    assert cases[9].patient_key not in "".join(capfd.readouterr())


def test_a_hung_server_costs_no_more_than_the_deadline(
    patient_server: Server, opened: Opened, new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding()
    index, case = opened(patient_server.uri, coding), new_case(coding, 1)
    index.upsert([case], Deadline.after(20))
    patient_server.signal(signal.SIGSTOP)
    for name, call in calls(index, patient_server.uri, case).items():
        with within(0.3), pytest.raises((Unavailable, DeadlineExceeded)):
            call(Deadline.after(0.3))
        assert name
    patient_server.signal(signal.SIGCONT)
    recovered(index)
    # What was asked for while the server hung may have been done or not, but nothing in between.
    assert index.get([case.id], Deadline.after(20)) in ({}, {case.id: case})


def test_a_short_deadline_does_not_wait_behind_a_long_one(
    own_server: Server, opened: Opened, new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding()
    index, case = opened(own_server.uri, coding), new_case(coding, 1)
    own_server.signal(signal.SIGSTOP)
    slow = [
        threading.Thread(target=patient, args=(calls(index, own_server.uri, case)[name],))
        for name in ("open", "upsert")
    ]
    for thread in slow:
        thread.start()
    time.sleep(0.1)
    for name in ("open", "upsert", "delete", "search"):
        with within(0.2), pytest.raises(DeadlineExceeded):
            calls(index, own_server.uri, case)[name](Deadline.after(0.2))
    assert all(thread.is_alive() for thread in slow)
    own_server.kill()
    for thread in slow:
        thread.join()


def patient(call: Callable[[Deadline], object]) -> None:
    with pytest.raises((Unavailable, DeadlineExceeded)):
        call(Deadline.after(60))


def test_a_closed_index_says_so(
    own_server: Server, new_coding: NewCoding, new_case: NewCase
) -> None:
    index = MilvusIndex.open_or_create(own_server.uri, new_coding(), Deadline.after(20))
    index.close()
    index.close()
    with pytest.raises(Unavailable, match="closed"):
        index.count(Deadline.after(5))


def test_a_call_underway_when_the_server_is_killed_ends_at_once(
    own_server: Server, opened: Opened, new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding()
    index, case = opened(own_server.uri, coding), new_case(coding, 1)
    own_server.signal(signal.SIGSTOP)
    killer = threading.Timer(0.3, own_server.kill)
    killer.start()
    with within(1.5), pytest.raises(Unavailable):
        index.search(Query(case.code, 1), Deadline.after(30))
    killer.join()


def test_a_server_that_has_too_much_to_do_is_overloaded_at_once(
    tmp_path: Path, opened: Opened, new_coding: NewCoding, new_case: NewCase
) -> None:
    with StandaloneServer(tmp_path, **TICK, **LEASES) as server:
        coding = new_coding()
        index, case = opened(server.endpoint, coding), new_case(coding, 1)
        index.upsert([case], Deadline.after(20))
        server.kill()
        # As it answers when its queues are full; pymilvus would try 75 times.
        server.configure(quotaAndLimits={"enabled": True, "limitReading": {"forceDeny": True}})
        server.start()
        query, deadline = Query(case.code, 1), Deadline.after(30)
        while True:
            # It denies from a moment after its start.
            try:
                index.search(query, deadline)
            except Unavailable:
                time.sleep(0.1)
            except Overloaded:
                break
        for call in (
            lambda: index.search(query, Deadline.after(20)),
            lambda: index.get([case.id], Deadline.after(20)),
            lambda: index.upsert([new_case(coding, 2)], Deadline.after(20)),
        ):
            with within(1), pytest.raises(Overloaded) as refusal:
                call()
            assert refusal.value.reason is Reason.OVERLOADED
            assert refusal.value.waiting_helps


@pytest.mark.parametrize(("patience", "fault"), [(0.3, DeadlineExceeded), (30.0, Unavailable)])
def test_a_load_that_does_not_end_is_waited_for_no_longer_than_any_call(
    lite: LiteServer,
    new_coding: NewCoding,
    monkeypatch: pytest.MonkeyPatch,
    patience: float,
    fault: type[DafhError],
) -> None:
    monkeypatch.setattr(GrpcHandler, "get_loading_progress", lambda *_, **_named: 50)
    monkeypatch.setattr("dafh.index.connection.LONGEST_CALL_S", 1.0)
    with within(1.5), pytest.raises(fault):
        MilvusIndex.open_or_create(lite.uri, new_coding(), Deadline.after(patience))


@pytest.mark.parametrize(
    "message",
    [
        "proxy TaskCondition context Done",
        "rpc error: code = DeadlineExceeded desc = context deadline exceeded",
        "Retry timeout: 3s",
    ],
)
def test_time_that_came_to_an_end_in_the_server_is_the_deadline_or_ours(
    lite: LiteServer, message: str
) -> None:
    def out_of_time(*_arguments: object) -> None:
        raise MilvusException(65535, message)

    with closing(Connection(lite.endpoint, Deadline.after(20))) as connection:
        with pytest.raises(DeadlineExceeded):
            connection.run("asking", Deadline.after(5), out_of_time)
        # No call is given longer than a minute; then it is the server that does not answer.
        with pytest.raises(Unavailable):
            connection.run("asking", Deadline.after(300), out_of_time)


def test_a_deadline_that_passes_anywhere_is_a_deadline(
    server: Server, opened: Opened, new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding()
    index = opened(server.endpoint, coding)
    cases = [new_case(coding, number) for number in range(300)]
    index.upsert(cases, Deadline.after(20))
    query = Query(cases[0].code, 10)
    for tenths in range(2, 80):
        for call in (
            lambda deadline: index.search(query, deadline),
            lambda deadline: index.get([cases[0].id], deadline),
            lambda deadline: index.count(deadline),
            lambda deadline: list(index.scan(deadline)),
        ):
            with suppress(DeadlineExceeded):
                call(Deadline.after(tenths / 10_000))


def test_a_server_that_hangs_while_it_is_asked_what_it_can_do_costs_no_more_than_the_deadline(
    patient_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A server listens a moment before it can make a collection.
    deadline = Deadline.after(20)
    while True:
        try:
            with closing(Connection(patient_server.endpoint, deadline)) as first:
                capabilities(first, deadline)
            break
        except Unavailable:
            time.sleep(0.1)

    def hanging(*_arguments: object) -> bool:
        patient_server.signal(signal.SIGSTOP)
        return True

    monkeypatch.setitem(_QUESTIONS, "aliases", hanging)
    with closing(Connection(patient_server.endpoint, Deadline.after(20))) as connection:
        with within(1.5), pytest.raises((DeadlineExceeded, Unavailable)):
            capabilities(connection, Deadline.after(1.5))
        patient_server.signal(signal.SIGCONT)
