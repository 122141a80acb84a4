"""Real Milvus servers, and cases to put into them."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dafh.codes import HashCode
from dafh.deadline import Deadline
from dafh.errors import Unavailable
from dafh.imaging.image import PatientKey
from dafh.index.case import Case, Coding, case_id
from dafh.index.connection import Connection
from dafh.index.endpoint import Endpoint
from dafh.index.milvus import MilvusIndex
from tests.index.servers import LiteServer as LiteServer
from tests.index.servers import Server, StandaloneServer

PATIENCE_S = 20.0

#: Milliseconds between the ticks that a Strong read waits for; the usual are 200.
TICK = {"proxy": {"timeTickInterval": 20}}
#: Seconds that a killed server's former life stands in the way of the next; the usual are 30. Who
#: stands still for longer, or gets no processor, gives itself up and does not come back.
LEASES = {"common": {"session": {"ttl": 5}}}


@pytest.fixture(scope="session")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiteServer]:
    """Return the Milvus Lite that all tests of a worker share, each in its own archive."""
    with LiteServer(tmp_path_factory.mktemp("lite")) as server:
        yield server


@pytest.fixture(scope="session")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandaloneServer]:
    """Return the standalone server that all tests of a worker share, each in its own archive."""
    with StandaloneServer(tmp_path_factory.mktemp("standalone"), **TICK) as server:
        yield server


@pytest.fixture(scope="session", params=["lite", "standalone"])
def server(request: pytest.FixtureRequest) -> Server:
    """Return each of the shared servers in turn."""
    shared: Server = request.getfixturevalue(request.param)
    return shared


@pytest.fixture(params=["lite", "standalone"])
def own_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """Return a server that the test may hurt, of each kind in turn."""
    own = (
        LiteServer(tmp_path)
        if request.param == "lite"
        else StandaloneServer(tmp_path, **TICK, **LEASES)
    )
    with own:
        yield own


@pytest.fixture(params=["lite", "standalone"])
def patient_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """Return a server of its own that goes on where it was after it stood still for seconds."""
    own = LiteServer(tmp_path) if request.param == "lite" else StandaloneServer(tmp_path, **TICK)
    with own:
        yield own


@pytest.fixture(scope="module")
def connection(server: Server) -> Iterator[Connection]:
    """Return a connection to each of the shared servers in turn."""
    with closing(Connection(server.endpoint, Deadline.after(PATIENCE_S))) as connection:
        yield connection


@pytest.fixture(scope="module")
def lite_connection(lite: LiteServer) -> Iterator[Connection]:
    """Return a connection to the shared Milvus Lite."""
    with closing(Connection(lite.endpoint, Deadline.after(PATIENCE_S))) as connection:
        yield connection


@pytest.fixture(scope="session")
def new_coding() -> Callable[..., Coding]:
    """Return what makes a coding of an archive that nobody else uses."""

    def make(**changes: Any) -> Coding:  # noqa: ANN401  # Any field of a Coding.
        coding = Coding(
            "default", f"a{uuid.uuid4().hex[:12]}", "ab" * 32, 1, 64, "0123456789abcdef"
        )
        return replace(coding, **changes)

    return make


@pytest.fixture(scope="session")
def new_case() -> Callable[..., Case]:
    """Return what makes the case of an instance number; equal numbers make equal cases."""

    def make(coding: Coding, number: int, **changes: Any) -> Case:  # noqa: ANN401  # Of a Case.
        uid = f"1.2.826.0.1.{number}"
        frame = changes.get("frame", 1)
        digest = hashlib.sha256(str(number).encode())
        case = Case(
            id=case_id(coding.tenant, coding.archive, uid, frame),
            code=HashCode(digest.digest()[: coding.bits // 8]),
            sop_instance_uid=uid,
            study_instance_uid=f"1.2.826.0.2.{number // 4}",
            series_instance_uid=f"1.2.826.0.3.{number // 2}",
            frame=1,
            content_sha256=digest.hexdigest(),
            ingest_time=1_700_000_000_000_000 + number,
            patient_key=PatientKey(hashlib.sha256(b"patient%d" % (number // 8)).hexdigest()),
            modality="CT",
            body_part="CHEST",
        )
        return replace(case, **changes)

    return make


@pytest.fixture(scope="module")
def opened() -> Iterator[Callable[[Endpoint, Coding], MilvusIndex]]:
    """Return what opens or creates an index that is closed when the module's tests are done."""
    with ExitStack() as stack:

        def make(endpoint: Endpoint, coding: Coding) -> MilvusIndex:
            deadline = Deadline.after(PATIENCE_S)
            while True:
                try:
                    index = MilvusIndex.open_or_create(endpoint, coding, deadline)
                except Unavailable:
                    # Milvus Lite listens a moment before it can make a collection.
                    time.sleep(0.05)
                else:
                    stack.callback(index.close)
                    return index

        yield make
