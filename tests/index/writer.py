"""A process that stores batch after batch until it is killed, and keeps a journal of it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from dafh.codes import HashCode
from dafh.deadline import Deadline
from dafh.errors import DafhError
from dafh.imaging.image import PatientKey
from dafh.index import rows
from dafh.index.case import Case, Coding, case_id
from dafh.index.endpoint import Endpoint
from dafh.index.milvus import MilvusIndex

#: Cases of a batch that no batch before had; more come again, some with other pixels.
NEW, AGAIN, OTHERWISE = 150, 30, 20
#: Cases of one request, so that a batch is several.
REQUEST = 50

BEGUN, ACKNOWLEDGED = "begun", "acknowledged"


class Journal:
    """Lines on disk: which batch was begun, which was acknowledged."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, what: str, number: int) -> None:
        """Add a line; it is on disk on return."""
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(file, f"{what} {number}\n".encode())
        os.fsync(file)
        os.close(file)

    def numbers(self, what: str) -> list[int]:
        """Return the batches of which something is noted, each once, in order."""
        if not self.path.exists():
            return []
        lines = self.path.read_text().splitlines(keepends=True)
        whole = [line.split() for line in lines if line.endswith("\n")]
        return sorted({int(number) for told, number in whole if told == what})


def batch(coding: Coding, number: int) -> list[Case]:
    """Return the cases of a batch: always the same."""
    first = number * NEW
    cases = [case(coding, one) for one in range(first, first + NEW)]
    before = range(max(0, first - NEW), first)
    cases += [case(coding, one) for one in before[:AGAIN]]
    for one in before[-OTHERWISE:]:
        content = hashlib.sha256(b"%d %d" % (number, one)).hexdigest()
        cases.append(replace(case(coding, one), content_sha256=content, label=str(number)))
    return cases


def case(coding: Coding, number: int) -> Case:
    """Return a case all of whose fields follow from its number."""
    uid, digest = f"1.2.826.0.1.{number}", hashlib.sha256(str(number).encode())
    return Case(
        id=case_id(coding.tenant, coding.archive, uid, 1),
        code=HashCode(digest.digest()[: coding.bits // 8]),
        sop_instance_uid=uid,
        study_instance_uid=f"1.2.826.0.2.{number // 4}",
        series_instance_uid=f"1.2.826.0.3.{number // 2}",
        frame=1,
        content_sha256=digest.hexdigest(),
        ingest_time=1_700_000_000_000_000 + number,
        patient_key=PatientKey(hashlib.sha256(b"patient%d" % (number // 8)).hexdigest()),
        modality="CT",
        label="x" * (number % 200),
    )


def write(endpoint: Endpoint, coding: Coding, path: Path) -> None:
    """Store batches from the first that was not acknowledged, until the server is gone."""
    rows.BATCH = REQUEST
    journal = Journal(path)
    number = len(journal.numbers(ACKNOWLEDGED))
    index = MilvusIndex.open(endpoint, coding, Deadline.after(60))
    while True:
        journal.note(BEGUN, number)
        try:
            index.upsert(batch(coding, number), Deadline.after(60))
        except DafhError:
            return
        journal.note(ACKNOWLEDGED, number)
        number += 1
