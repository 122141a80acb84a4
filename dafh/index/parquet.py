"""The files of a dump: Parquet whose columns come from the table of fields.

Tenant, archive and patient key id are the same in all rows: they stand in the plan, which each
file carries as ``dafh`` in its own metadata. Model version and code length stand there too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from dafh.codes import HashCode
from dafh.imaging.image import PatientKey
from dafh.index.case import Case, CaseId
from dafh.index.manifest import CODING_COLUMNS, Digest, Part, Plan, unreadable
from dafh.index.record import Strict
from dafh.index.schema import BY_NAME, Kind

#: Rows that are turned into columns at a time.
_BATCH = 8_192

_KEY = b"dafh"


class _Note(Strict):
    """What a file says of itself."""

    plan: Plan
    part: int
    #: `Digest` of its cases.
    cases: str


def written(plan: Plan, number: int, cases: Iterable[Case]) -> tuple[Part, bytes]:
    """Return one file of a dump, and what the manifest says of it.

    Parameters
    ----------
    cases
        In order of primary key.
    """
    schema, digest = _schema(plan), Digest()
    stream, batches = iter(cases), []
    while batch := list(islice(stream, _BATCH)):
        for case in batch:
            digest.add(case)
        columns = {name: _column(plan, name, batch) for name in plan.columns}
        batches.append(pa.record_batch(columns, schema=schema))
    note = _Note(plan=plan, part=number, cases=digest.hex())
    table = pa.Table.from_batches(batches, schema).replace_schema_metadata(
        {_KEY: note.model_dump_json()}
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return _part(note, table.num_rows, content := sink.getvalue().to_pybytes()), content


def described(content: bytes) -> tuple[Plan, Part]:
    """Return what a file says of itself.

    Raises
    ------
    InvalidInput
        It is no file of a dump.
    """
    note, rows = _note(content)
    return note.plan, _part(note, rows, content)


def cases_of(plan: Plan, part: Part, content: bytes) -> Iterator[Case]:
    """Yield the cases of a file.

    Raises
    ------
    InvalidInput
        The file is not the one that the manifest tells, or not in order.
    """
    if hashlib.sha256(content).hexdigest() != part.sha256:
        raise unreadable(f"{part.name} does not have the SHA-256 that the manifest tells")
    note, rows = _note(content)
    if (note.plan, plan.name(note.part), rows) != (plan, part.name, part.rows):
        raise unreadable(f"{part.name} belongs to another dump")
    last = ""
    try:
        _require_coding(plan, part, content)
        for batch in pq.ParquetFile(pa.BufferReader(content)).iter_batches(_BATCH):
            if batch.schema.remove_metadata() != _schema(plan):
                raise unreadable(f"{part.name} has other columns")
            for row in batch.to_pylist():
                if row["id"] <= last:
                    raise unreadable(f"{part.name} is not in order of primary key")
                last = row["id"]
                yield _case(row)
    except pa.ArrowException:
        raise unreadable(f"{part.name} is damaged") from None


def _require_coding(plan: Plan, part: Part, content: bytes) -> None:
    """Refuse a file of which a row tells of another model version or code length."""
    told = [name for name in CODING_COLUMNS if name in plan.columns]
    for name, values in pq.read_table(pa.BufferReader(content), columns=told).to_pydict().items():
        if set(values) - {getattr(plan, name)}:
            raise unreadable(f"{part.name} holds another {name} than the manifest tells")


def _note(content: bytes) -> tuple[_Note, int]:
    try:
        footer = pq.read_metadata(pa.BufferReader(content))
    except pa.ArrowException:
        raise unreadable("a file is no Parquet") from None
    text = (footer.metadata or {}).get(_KEY)
    if text is None:
        raise unreadable("a file is Parquet, but none of a dump")
    try:
        return _Note.model_validate_json(text), footer.num_rows
    except ValidationError:
        raise unreadable("a file is of another version") from None


def _part(note: _Note, rows: int, content: bytes) -> Part:
    name, sha256 = note.plan.name(note.part), hashlib.sha256(content).hexdigest()
    return Part(name=name, rows=rows, sha256=sha256, cases=note.cases)


def _schema(plan: Plan) -> pa.Schema:
    kinds = {
        Kind.TEXT: pa.string(),
        Kind.INTEGER: pa.int64(),
        Kind.CODE: pa.binary(plan.bits // 8),
    }
    of = {name: kinds[field.kind] for name, field in BY_NAME.items() if field.kind in kinds}
    of |= dict.fromkeys(CODING_COLUMNS, pa.int64())
    return pa.schema([pa.field(name, of[name], nullable=False) for name in plan.columns])


def _column(plan: Plan, name: str, cases: Sequence[Case]) -> list[object]:
    if name in CODING_COLUMNS:
        return [getattr(plan, name)] * len(cases)
    if name == "code":
        return [case.code.packed for case in cases]
    return [getattr(case, name) for case in cases]


def _case(row: dict[str, Any]) -> Case:
    return Case(
        **{name: value for name, value in row.items() if name not in CODING_COLUMNS}
        | {
            "id": CaseId(row["id"]),
            "code": HashCode(row["code"]),
            "patient_key": PatientKey(row["patient_key"]),
        }
    )
