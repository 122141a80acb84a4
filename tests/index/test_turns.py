"""Those who write to a Milvus on this machine take turns: no key gets two rows there."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from dafh.deadline import Deadline
from dafh.errors import DeadlineExceeded
from dafh.index.case import Case, Coding
from dafh.index.connection import Connection
from dafh.index.endpoint import Endpoint
from dafh.index.milvus import MilvusIndex
from dafh.index.port import Outcome
from dafh.index.rows import Rows
from tests.index.models import soon
from tests.index.servers import LiteServer, StandaloneServer

pytestmark = pytest.mark.stack

NewCoding = Callable[..., Coding]
NewCase = Callable[..., Case]
Opened = Callable[[Endpoint, Coding], MilvusIndex]

_HOLDS_THE_TURN = """
import sys
from dafh.deadline import Deadline
from dafh.index.turns import turn
with turn(int(sys.argv[1]), Deadline.after(20), "holding the turn"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("change", "outcome"),
    [({}, Outcome.UNCHANGED), ({"content_sha256": "f" * 64}, Outcome.PIXEL_CONFLICT)],
    ids=["the-same-row", "another-row"],
)
def test_two_that_store_one_new_frame_at_once_leave_the_row_that_must_stand(
    lite: LiteServer,
    opened: Opened,
    new_coding: NewCoding,
    new_case: NewCase,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, str],
    outcome: Outcome,
) -> None:
    coding, store = new_coding(), Rows.store
    one, other = opened(lite.endpoint, coding), opened(lite.endpoint, coding)
    case = new_case(coding, 1)
    looked, go_on = threading.Event(), threading.Event()

    def late(rows: Rows, cases: list[Case], deadline: Deadline) -> None:
        if not looked.is_set():
            looked.set()
            assert go_on.wait(20)
        store(rows, cases, deadline)

    monkeypatch.setattr(Rows, "store", late)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(one.upsert, [case], soon())
        assert looked.wait(20)
        second = pool.submit(other.upsert, [replace(case, **change)], soon())  # type: ignore[arg-type]  # Any field.
        # The first knows of no row yet, and the second waits for it.
        with pytest.raises(TimeoutError):
            second.result(0.3)
        go_on.set()
        assert first.result() == [Outcome.ADDED]
        assert second.result() == [outcome]
    assert one.get([case.id], soon()) == {case.id: case}
    assert one.count(soon()) == 1


def test_whoever_dies_gives_the_turn_back(
    lite: LiteServer, opened: Opened, new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding()
    index, case = opened(lite.endpoint, coding), new_case(coding, 1)
    port = lite.endpoint.local_port
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDS_THE_TURN, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for write in (
            lambda deadline: index.upsert([case], deadline),
            lambda deadline: index.delete([case.id], deadline),
        ):
            with pytest.raises(DeadlineExceeded):
                write(Deadline.after(0.2))
        # Who reads waits for nobody.
        assert index.count(soon()) == 0
        holder.kill()
    assert index.upsert([case], Deadline.after(5)) == [Outcome.ADDED]


def test_nobody_waits_for_a_turn_at_a_server_elsewhere(
    standalone: StandaloneServer, lite: LiteServer
) -> None:
    assert lite.endpoint.local_port
    assert standalone.endpoint.local_port is None
    connection = Connection(standalone.endpoint, soon())
    with connection.alone("writing", soon()), connection.alone("writing", soon()):
        pass
    connection.close()
