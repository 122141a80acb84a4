"""Jobs as processes: run, killed, told to stop; and archives to compare them by."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dafh.deadline import Deadline
from dafh.errors import NotFound
from dafh.index.archives import Archives
from dafh.index.case import Case
from dafh.index.connection import Connection
from dafh.index.endpoint import Endpoint
from dafh.index.milvus import MilvusIndex

DAFH = str(Path(sys.executable).with_name("dafh"))
#: Seconds that a whole job may take.
PATIENCE_S = 600.0


@dataclass(frozen=True)
class Job:
    """`dafh index` on servers of its own, with an archive of its own."""

    endpoint: Endpoint
    triton: str
    folder: Path
    sources: tuple[str, ...]
    archive: str
    options: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What the process is told of its servers."""
        key = self.folder / "patient-key"
        if not key.exists():
            key.touch(0o600)
            key.write_text("5a" * 32)
        found = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "DAFH_MILVUS_URI": self.endpoint.uri,
            "DAFH_TRITON_ADDRESS": self.triton,
            "DAFH_PATIENT_KEY_FILE": str(key),
        }
        if self.endpoint.tls is not None:
            tls = self.endpoint.tls
            found |= {
                "DAFH_MILVUS_CA": str(tls.ca),
                "DAFH_MILVUS_CERTIFICATE": str(tls.certificate),
                "DAFH_MILVUS_KEY": str(tls.key),
                "DAFH_MILVUS_SERVER_NAME": tls.server_name,
                "DAFH_MILVUS_CREDENTIALS": str(self.endpoint.credentials),
            }
        return found | self.settings

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Start it."""
        words = ["index", *self.sources, "--archive", self.archive, *self.options, *options]
        return subprocess.Popen(
            [DAFH, *words, "--data-dir", str(self.folder), "--json"],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, *options: str, code: int = 0) -> dict[str, Any]:
        """Run it to its end; return the report."""
        process = self.start(*options)
        out, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == code, errors
        facts: dict[str, Any] = json.loads(out)
        return facts

    @contextmanager
    def index(self) -> Iterator[MilvusIndex]:
        """Open the archive."""
        connection = Connection(self.endpoint, Deadline.after(60))
        try:
            coding = Archives(connection, "default").get(self.archive, Deadline.after(60)).live
            yield MilvusIndex(connection, coding)
        finally:
            connection.close()

    def count(self) -> int:
        """Return how many cases are in the archive, 0 where there is none yet."""
        try:
            with self.index() as index:
                return index.count(Deadline.after(60))
        except NotFound:
            return 0

    def written_down(self) -> int:
        """Return how many files the journal of a running job has.

        The job keeps its journal locked. A copy of it, and of the log of what is not merged yet, is
        read as it would be after a power cut.
        """
        journal = self.folder / "jobs" / f"default.{self.archive}.0-of-1.sqlite"
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "journal"
            try:
                for suffix in ("", "-wal"):
                    shutil.copy(f"{journal}{suffix}", f"{copy}{suffix}")
                with closing(sqlite3.connect(copy)) as database:
                    found: int = database.execute("SELECT count(*) FROM file").fetchone()[0]
            except (FileNotFoundError, sqlite3.DatabaseError):
                # It is being made, or was written to while it was copied.
                return 0
        return found

    def wipe(self) -> None:
        """Delete the archive."""
        connection = Connection(self.endpoint, Deadline.after(60))
        Archives(connection, "default").delete(self.archive, Deadline.after(60), force=True)
        connection.close()

    def cases(self) -> list[tuple[Any, ...]]:
        """Return all cases, in order; without ingest times, and names that archives differ by."""
        with self.index() as index:
            assert index.count(Deadline.after(60)) == len(list(index.scan(Deadline.after(60))))
            return sorted(canonical(case) for case in index.scan(Deadline.after(60)))


def canonical(case: Case) -> tuple[Any, ...]:
    """Return what two archives with the same content have alike of a case."""
    return (
        case.sop_instance_uid,
        case.frame,
        case.code.hex(),
        case.content_sha256,
        case.study_instance_uid,
        case.series_instance_uid,
        case.patient_key,
        case.modality,
        case.body_part,
        case.label,
        case.cancer_type,
    )


def end(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    """Send a signal; return the exit code and what was said on standard error."""
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE_S)
    return process.returncode, errors


def until(condition: Any, seconds: float = 120.0) -> None:  # noqa: ANN401 - a callable
    """Wait for something to become true."""
    deadline = Deadline.after(seconds)
    while not condition():
        deadline.remaining("what the test waits for")
        time.sleep(0.05)
