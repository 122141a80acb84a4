"""The collections that codings lie in: made from the table of fields, found by name, removed.

A coding has a collection of its own, or shares one with those of other archives and tenants that
the same model made at the same length. In a shared one every expression names tenant and archive,
and that alone keeps them apart; a partition key, which is a hash and no border, only makes it
faster. Milvus 2.3.5 offers one, but an upsert there puts the row into a partition where no
expression on the tenant finds it. So it is used where a trial shows that it holds.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Collection, Sequence

from dafh.deadline import Deadline
from dafh.errors import DeadlineExceeded, Unavailable
from dafh.index.capabilities import PREFIX as PROBE
from dafh.index.capabilities import capabilities
from dafh.index.case import CaseId, Coding
from dafh.index.collection import (
    VECTOR,
    archive_prefix,
    collection_name,
    describe,
    read_description,
)
from dafh.index.connection import CollectionSchema, Connection, DataType, MilvusClient
from dafh.index.filters.milvus import literal
from dafh.index.indexing import Indexing
from dafh.index.rows import BATCH, Rows, broken
from dafh.index.schema import Field, Kind, fields_of

#: How Milvus stores each kind of field.
FIELD_TYPES = {
    Kind.TEXT: DataType.VARCHAR,
    Kind.INTEGER: DataType.INT64,
    Kind.CODE: DataType.BINARY_VECTOR,
    Kind.CODE_WORD: DataType.INT64,
}

#: Name of a collection that is one coding's own; the key of its archive.
_OWN = re.compile(r"dafh_([0-9a-f]{32})_[0-9a-f]{16}")

_STAGE = "opening the archive"
_REMOVING = "removing a coding"
#: How often cases are erased until a read finds none of them.
_ROUNDS = 5
#: Seconds that dropping the trial's collection may take.
_SWEEPING_S = 5.0
#: Tenants of the trial: by chance alone all their rows would hardly lie where they should.
_TENANTS = [f"tenant-{number}" for number in range(8)]


def milvus_schema(
    fields: Sequence[Field], bits: int, description: str, *, partition_key: str = ""
) -> CollectionSchema:
    """Return the schema of a collection with these fields.

    Parameters
    ----------
    bits
        Length of the vector.
    partition_key
        Name of the field whose hash parts the rows; "" for none.
    """
    schema = MilvusClient.create_schema(
        auto_id=False, enable_dynamic_field=False, description=description
    )
    for field in fields:
        bounds = {Kind.TEXT: {"max_length": field.max_bytes}, Kind.CODE: {"dim": bits}}
        key = {"is_partition_key": True} if field.name == partition_key else {}
        schema.add_field(
            field.name,
            FIELD_TYPES[field.kind],
            is_primary=field.name == "id",
            **bounds.get(field.kind, {}),
            **key,
        )
    return schema


def own_codings(
    connection: Connection, tenant: str, archive: str, deadline: Deadline
) -> list[Coding]:
    """Return the codings of an archive that have a collection of their own, by name."""
    prefix = archive_prefix(tenant, archive)
    names = sorted(connection.call(_STAGE, deadline, "list_collections"))
    return [_described(connection, name, deadline) for name in names if name.startswith(prefix)]


def own_archives(
    connection: Connection, tenant: str, known: Collection[str], deadline: Deadline
) -> list[str]:
    """Return the names of a tenant's archives that have collections of their own.

    Parameters
    ----------
    known
        Keys of archives, of whatever tenant, that are left out.
    """
    names = connection.call(_STAGE, deadline, "list_collections")
    unknown = [name for name in names if (own := _OWN.fullmatch(name)) and own[1] not in known]
    codings = [_described(connection, name, deadline) for name in unknown]
    return sorted({coding.archive for coding in codings if coding.tenant == tenant})


def _described(connection: Connection, name: str, deadline: Deadline) -> Coding:
    facts = connection.call(_STAGE, deadline, "describe_collection", name)
    return read_description(facts["description"])


def make(connection: Connection, coding: Coding, deadline: Deadline) -> None:
    """Make a coding's collection unless it exists, and make it searchable; may be repeated."""
    name = collection_name(coding)
    if not connection.call(_STAGE, deadline, "has_collection", name):
        key = "tenant" if coding.shared and _partition_key_holds(connection, deadline) else ""
        schema = milvus_schema(fields_of(coding), coding.bits, describe(coding), partition_key=key)
        connection.call(_STAGE, deadline, "create_collection", name, schema=schema)
    Indexing(connection, coding).make_searchable(deadline)


def remove(
    connection: Connection,
    coding: Coding,
    deadline: Deadline,
    *,
    require_still: Callable[[], object],
) -> None:
    """Remove all cases of a coding, and its collection if it is its own; may be repeated.

    Parameters
    ----------
    require_still
        Raises where they are to be removed no more; asked before every removal.
    """
    name = collection_name(coding)
    if not coding.shared:
        require_still()
        connection.call(_REMOVING, deadline, "drop_collection", name)
        return
    if not connection.call(_REMOVING, deadline, "has_collection", name):
        return
    rows = Rows(connection, coding)
    while keys := rows.keys("", BATCH, deadline):
        require_still()
        erase(rows, keys, deadline)


def erase(rows: Rows, ids: Sequence[CaseId], deadline: Deadline) -> list[CaseId]:
    """Erase cases; return those that existed. On return no read finds them.

    Raises
    ------
    Internal
        They do not go.
    """
    known = left = list(rows.lookup(ids, deadline, strong=True))
    for _ in range(_ROUNDS):
        if not left:
            return known
        rows.erase(left, deadline)
        left = list(rows.lookup(left, deadline, strong=True))
    raise broken(f"Cases were still there after they were erased {_ROUNDS} times.")


def erase_unless_in(
    live: Rows, other: Rows, ids: Sequence[CaseId], deadline: Deadline
) -> list[CaseId]:
    """Erase those of the cases from another coding that the live one has not; return which."""
    present = live.lookup(ids, deadline, strong=True)
    return erase(other, [key for key in ids if key not in present], deadline)


def _partition_key_holds(connection: Connection, deadline: Deadline) -> bool:
    """Say whether rows that are upserted under a partition key are found by it."""
    if not capabilities(connection, deadline).partition_key:
        return False
    # A row of a case needs more, but this is about the tenant.
    trial = Coding("trial", "trial", "0", 0, 16, "trial")
    fields = [field for field in fields_of(trial) if field.name in {"id", "code", "tenant"}]
    schema = milvus_schema(fields, trial.bits, "", partition_key="tenant")
    name = f"{PROBE}{int(time.time())}_{secrets.token_hex(8)}"
    index = MilvusClient.prepare_index_params()
    index.add_index(VECTOR, index_type="BIN_FLAT", metric_type="HAMMING")
    answers = True
    try:
        connection.call(_STAGE, deadline, "create_collection", name, schema=schema)
        connection.call(_STAGE, deadline, "create_index", name, index)
        connection.call(_STAGE, deadline, "load_collection", name)
        # Milvus 2.3.5 parts upserted rows by their primary key: it is no tenant's name here.
        rows = [{"id": _row_of(tenant), "code": b"\0\0", "tenant": tenant} for tenant in _TENANTS]
        connection.call(_STAGE, deadline, "upsert", name, rows)
        return all(_finds(connection, name, tenant, deadline) for tenant in _TENANTS)
    except (Unavailable, DeadlineExceeded):
        # Nobody waits for it again: whoever asks what the server can do sweeps up.
        answers = False
        raise
    finally:
        if answers:
            connection.call(_STAGE, Deadline.after(_SWEEPING_S), "drop_collection", name)


def _finds(connection: Connection, name: str, tenant: str, deadline: Deadline) -> bool:
    found = connection.call(
        _STAGE,
        deadline,
        "query",
        name,
        filter=f"tenant == {literal(tenant)}",
        output_fields=["id"],
        consistency_level="Strong",
    )
    return [row["id"] for row in found] == [_row_of(tenant)]


def _row_of(tenant: str) -> str:
    return f"of-{tenant}"
