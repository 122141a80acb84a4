"""A real Milvus Lite server, and cases to put into it."""

from __future__ import annotations

import hashlib
import importlib.util
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
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
from dafh.index.milvus import MilvusIndex

PATIENCE_S = 20.0

#: Becomes its arguments; the kernel ends it when its parent ends (PR_SET_PDEATHSIG).
UNTIL_PARENT_ENDS = (
    "import ctypes, os, signal, sys;"
    "ctypes.CDLL(None).prctl(1, signal.SIGKILL);"
    "os.environ['LD_LIBRARY_PATH'] = os.path.dirname(sys.argv[1]);"
    "os.execv(sys.argv[1], sys.argv[1:])"
)


def _binaries() -> Path:
    # The package itself cannot be imported without pkg_resources, which setuptools gave up.
    found = importlib.util.find_spec("milvus_lite")
    if found is None or not found.submodule_search_locations:
        pytest.skip("milvus-lite is not installed")
    return Path(found.submodule_search_locations[0]) / "lib"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class LiteServer:
    """A Milvus Lite process with its own database."""

    def __init__(self, folder: Path) -> None:
        self.port = _free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, or start again on the same database and port."""
        binaries = _binaries()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-c", UNTIL_PARENT_ENDS),
                *(binaries / "milvus", self._folder / "test.db"),
                *(f"127.0.0.1:{self.port}", "ERROR"),
            ],
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = Deadline.after(PATIENCE_S)
        while True:
            try:
                Connection(self.uri, deadline).close()
            except Unavailable:
                assert self._process.poll() is None, "Milvus Lite ended while it started"
            else:
                return

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiteServer]:
    """Return the server that all tests of a worker share, each in its own archive."""
    lite = LiteServer(tmp_path_factory.mktemp("milvus"))
    lite.start()
    yield lite
    lite.kill()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[LiteServer]:
    """Return a server that the test may hurt."""
    lite = LiteServer(tmp_path)
    lite.start()
    yield lite
    lite.kill()


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
def opened() -> Iterator[Callable[[str, Coding], MilvusIndex]]:
    """Return what opens or creates an index that is closed when the module's tests are done."""
    with ExitStack() as stack:

        def make(uri: str, coding: Coding) -> MilvusIndex:
            deadline = Deadline.after(PATIENCE_S)
            while True:
                try:
                    index = MilvusIndex.open_or_create(uri, coding, deadline)
                except Unavailable:
                    # Milvus Lite listens a moment before it can make a collection.
                    time.sleep(0.05)
                else:
                    stack.callback(index.close)
                    return index

        yield make
