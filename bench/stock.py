"""Archives to measure with: filled past the product, with rows as long as those of real archives.

`MilvusIndex.upsert`, which asks before and after each write, is measured on its own; to stock ten
million rows in minutes, columns are handed to the server as they are.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dafh.codes import HashCode
from dafh.deadline import Deadline
from dafh.imaging.image import PatientKey
from dafh.index.case import Case, Coding, case_id
from dafh.index.collection import collection_name
from dafh.index.connection import Connection, MilvusClient
from dafh.index.schema import Kind, fields_of
from dafh.index.storage import FIELD_TYPES

CODING = Coding("default", "bench", "ab" * 32, 1, 64, "0123456789abcdef")
#: Rows handed over at a time; a message holds 64 MB at most.
BATCH = 20_000
#: What a filter may ask for; `modality = "CT"` lets half of the cases answer.
MODALITIES = ("CT", "CT", "MR", "US")
#: Rows of one patient.
_OF_A_PATIENT = 8

_ROOT = "1.2.826.0.1.3680043.8.498."


@dataclass(frozen=True, slots=True)
class Memory:
    """What a server takes."""

    #: Memory of its process that no file backs, and that mapped files hold; bytes.
    anonymous: int
    mapped: int
    #: Of its folder on disk, bytes.
    disk: int


def memory_of(pid: int, folder: Path) -> Memory:
    """Return what a server takes now."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    anonymous, mapped = (1024 * int(status[name].split()[0]) for name in ("RssAnon", "RssFile"))
    told = subprocess.run(["du", "-sb", folder], capture_output=True, text=True, check=True)  # noqa: S607 - any du
    return Memory(anonymous, mapped, int(told.stdout.split()[0]))


def grown(empty: Memory, full: Memory) -> dict[str, int]:
    """Return what a server took for what it was given, bytes."""
    return {
        field.name: getattr(full, field.name) - getattr(empty, field.name)
        for field in fields(Memory)
    }


def columns(
    codes: NDArray[np.uint8], seed: int, coding: Coding = CODING
) -> dict[str, list[object]]:
    """Return the values of every field for codes uint8 ``[N, bits / 8]``."""
    count = len(codes)
    random = np.random.default_rng(seed)
    hexadecimal = random.bytes(48 * count).hex()
    patients = random.bytes(32 * (count // _OF_A_PATIENT + 1)).hex()
    digits = f"{int.from_bytes(random.bytes(1024), 'big'):02000}"
    # As `dafh.index.collection.code_word`, of all at once.
    wide = np.zeros((count, 8), np.uint8)
    wide[:, : codes.shape[1]] = codes
    words = wide.view(">i8").ravel().tolist()
    ids = [hexadecimal[start : start + 32] for start in range(0, 96 * count, 96)]

    def uid(kind: int, number: int) -> str:
        start = (number * 7 + kind) % 1900
        return f"{_ROOT}{kind}{digits[start : start + 18]}{seed:04}{number:07}"

    numbers = range(count)
    made: dict[str, list[object]] = {
        "id": list(ids),
        "code": [row.tobytes() for row in codes],
        "code_word": list(words),
        "tenant": [coding.tenant] * count,
        "key_id": [coding.key_id] * count,
        "patient_key": [
            patients[64 * (n // _OF_A_PATIENT) : 64 * (n // _OF_A_PATIENT) + 64] for n in numbers
        ],
        "sop_instance_uid": [uid(1, n) for n in numbers],
        "study_instance_uid": [uid(2, n // 4) for n in numbers],
        "series_instance_uid": [uid(3, n // 2) for n in numbers],
        "frame": [1] * count,
        "content_sha256": [
            hexadecimal[start + 32 : start + 96] for start in range(0, 96 * count, 96)
        ],
        "modality": [MODALITIES[n % len(MODALITIES)] for n in numbers],
        "body_part": ["CHEST"] * count,
        "label": ["lung adenocarcinoma"] * count,
        "cancer_type": ["adenocarcinoma"] * count,
        "ingest_time": [1_700_000_000_000_000 + n for n in numbers],
    }
    return made


def fill(
    connection: Connection, codes: NDArray[np.uint8], *, first: int = 0, coding: Coding = CODING
) -> None:
    """Put rows with these codes into a coding's collection; no two fills may share `first`."""
    name, stored = collection_name(coding), fields_of(coding)
    # What is not loaded is not kept in memory a second time while it comes.
    connection.call("releasing", Deadline.never(), "release_collection", name)
    for start in range(0, len(codes), BATCH):
        values = columns(codes[start : start + BATCH], (first + start) // BATCH, coding)
        entities = [
            {"name": field.name, "type": FIELD_TYPES[field.kind], "values": values[field.name]}
            for field in stored
        ]
        connection.run("stocking", Deadline.never(), _inserted(name, entities))


def _inserted(
    name: str, entities: list[dict[str, object]]
) -> Callable[[MilvusClient, float], object]:
    # Columns are a tenth of the work that rows are; pymilvus offers them below its client only.
    def insert(client: MilvusClient, timeout: float) -> object:
        handler = client._get_connection()
        rows = len(entities[0]["values"])  # type: ignore[arg-type]  # A list.
        return handler.batch_insert(name, entities, timeout=timeout, num_rows=rows)

    return insert


def cases(codes: NDArray[np.uint8], seed: int) -> Iterator[Case]:
    """Yield cases with these codes as a writer brings them."""
    values = columns(codes, seed)
    names = [
        field.name
        for field in fields_of(CODING)
        if field.kind in (Kind.TEXT, Kind.INTEGER) and field.name not in {"id", "tenant", "key_id"}
    ]
    for row, code in enumerate(codes):
        told = {name: values[name][row] for name in names}
        told["patient_key"] = PatientKey(str(told["patient_key"]))
        key = case_id(CODING.tenant, CODING.archive, str(told["sop_instance_uid"]), 1)
        yield Case(id=key, code=HashCode(code.tobytes()), **told)  # type: ignore[arg-type]  # By name.
