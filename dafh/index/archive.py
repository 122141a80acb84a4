"""An archive's collection in Milvus: found by name, checked, made where it is missing."""

from __future__ import annotations

from dafh.deadline import Deadline
from dafh.errors import FailedPrecondition, NotFound, Reason
from dafh.index.case import Coding
from dafh.index.collection import (
    VECTOR,
    archive_prefix,
    collection_name,
    describe,
    read_description,
)
from dafh.index.connection import CollectionSchema, Connection, DataType, MilvusClient
from dafh.index.schema import FIELDS, Field, Kind

_TYPES = {
    Kind.TEXT: DataType.VARCHAR,
    Kind.INTEGER: DataType.INT64,
    Kind.CODE: DataType.BINARY_VECTOR,
    Kind.CODE_WORD: DataType.INT64,
}

_STAGE = "opening the archive"


def archive_codings(
    connection: Connection, tenant: str, archive: str, deadline: Deadline
) -> list[Coding]:
    """Return the codings that an archive has in Milvus; none where there is no such archive."""
    names = connection.run(
        _STAGE, deadline, lambda client, timeout: client.list_collections(timeout=timeout)
    )
    prefix = archive_prefix(tenant, archive)
    return [
        _coding_of(connection, name, deadline) for name in sorted(names) if name.startswith(prefix)
    ]


def require_collection(connection: Connection, coding: Coding, deadline: Deadline) -> None:
    """Make sure that a coding's collection exists, fits, and can be searched.

    Raises
    ------
    NotFound
        The archive has no collection.
    FailedPrecondition
        It was coded otherwise, or with patient keys of another key.
    """
    codings = archive_codings(connection, coding.tenant, coding.archive, deadline)
    if not codings:
        raise NotFound(
            Reason.ARCHIVE_NOT_FOUND,
            "The archive has no cases yet.",
            remedy="Index some into it first (`dafh index PATH`).",
            subject="archive",
        )
    for existing in codings:
        _require_same(existing, coding)
    _make_searchable(connection, coding, deadline)


def create_collection(connection: Connection, coding: Coding, deadline: Deadline) -> None:
    """Make a coding's collection unless it exists; several callers at once make one.

    Raises
    ------
    FailedPrecondition
        The archive was coded otherwise, or with patient keys of another key.
    """
    codings = archive_codings(connection, coding.tenant, coding.archive, deadline)
    for existing in codings:
        _require_same(existing, coding)
    if not codings:
        connection.run(
            _STAGE,
            deadline,
            lambda client, timeout: client.create_collection(
                collection_name(coding), schema=_schema(coding), timeout=timeout
            ),
        )
    _make_searchable(connection, coding, deadline)


def _coding_of(connection: Connection, name: str, deadline: Deadline) -> Coding:
    facts = connection.run(
        _STAGE, deadline, lambda client, timeout: client.describe_collection(name, timeout=timeout)
    )
    return read_description(facts["description"])


def _require_same(existing: Coding, coding: Coding) -> None:
    if existing.key_id != coding.key_id:
        raise FailedPrecondition(
            Reason.PATIENT_KEY_MISMATCH,
            f"The archive's patient keys were made with key {existing.key_id}, not "
            f"{coding.key_id}: the same patient would not be recognised.",
            remedy="Give this program the key file that the archive was indexed with.",
            subject="patient_key_file",
        )
    existing.require_model(coding.model_hash)
    if existing.bits != coding.bits:
        raise FailedPrecondition(
            Reason.CODE_LENGTH_MISMATCH,
            f"The archive's codes have {existing.bits} bits, not {coding.bits}.",
            remedy=f"Set bits to {existing.bits}, or use another archive.",
            subject="bits",
        )


def _make_searchable(connection: Connection, coding: Coding, deadline: Deadline) -> None:
    # Whoever made the collection may have died before its index; both calls may be repeated.
    name = collection_name(coding)
    index = MilvusClient.prepare_index_params()
    index.add_index(VECTOR, index_type="BIN_FLAT", metric_type="HAMMING")
    if not connection.run(
        _STAGE, deadline, lambda client, timeout: client.list_indexes(name, timeout=timeout)
    ):
        connection.run(
            _STAGE,
            deadline,
            lambda client, timeout: client.create_index(name, index, timeout=timeout),
        )
    connection.run(
        _STAGE, deadline, lambda client, timeout: client.load_collection(name, timeout=timeout)
    )


def _schema(coding: Coding) -> CollectionSchema:
    schema = MilvusClient.create_schema(
        auto_id=False, enable_dynamic_field=False, description=describe(coding)
    )
    for field in FIELDS:
        schema.add_field(
            field.name, _TYPES[field.kind], is_primary=field.name == "id", **_bounds(field, coding)
        )
    return schema


def _bounds(field: Field, coding: Coding) -> dict[str, int]:
    if field.kind is Kind.TEXT:
        return {"max_length": field.max_bytes}
    return {"dim": coding.bits} if field.kind is Kind.CODE else {}
