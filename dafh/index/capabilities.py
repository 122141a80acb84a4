"""What a Milvus server can do, found out by asking it, not by its version.

Milvus Lite takes a partition key and makes no partitions of it, and other servers leave out other
things. So each capability is tried on an empty collection, which is dropped again.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from dafh.deadline import Deadline
from dafh.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    NotFound,
    Reason,
    Unavailable,
)
from dafh.index.connection import Connection, DataType, MilvusClient, holding

_STAGE = "asking Milvus what it can do"
PREFIX = "dafh_probe_"
#: A collection older than this, seconds, is of a program that died while it asked.
_ABANDONED_S = 600
#: Seconds that dropping it may take.
_SWEEPING_S = 5.0

_KNOWN: WeakKeyDictionary[Connection, Capabilities] = WeakKeyDictionary()
_ASKING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a server can do for this user."""

    #: Another name for a collection, moved from one to the next at once.
    aliases: bool
    #: Databases beside the default one.
    databases: bool
    #: Rows of a collection kept apart by the hash of a field.
    partition_key: bool
    #: The approximate index over binary vectors.
    bin_ivf_flat: bool
    #: Properties of ours at a collection.
    properties: bool

    def require(self, name: str) -> None:
        """Refuse what the server cannot do.

        Parameters
        ----------
        name
            Of one of the fields.

        Raises
        ------
        FailedPrecondition
            The server cannot do it, or does not let this user.
        """
        if not getattr(self, name):
            raise FailedPrecondition(
                Reason.INDEX_INCAPABLE,
                f"This Milvus does not offer {name}, or not to this user.",
                remedy="Use a standalone or cluster Milvus, and give the user its role "
                "(`dafh.index.privileges`).",
                subject=name,
            )


def capabilities(connection: Connection, deadline: Deadline) -> Capabilities:
    """Return what the server of a connection can do; it is asked once, unless it failed to answer.

    Raises
    ------
    Unavailable, DeadlineExceeded, Overloaded
        The server does not answer.
    """
    with holding(_ASKING, deadline, _STAGE):
        if connection in _KNOWN:
            return _KNOWN[connection]
        with _collection(connection, deadline) as name:
            answers = {asked: _try(connection, deadline, name, asked) for asked in _QUESTIONS}
        able = Capabilities(**{asked: bool(answer) for asked, answer in answers.items()})
        if None not in answers.values():
            _KNOWN[connection] = able
        return able


def _try(connection: Connection, deadline: Deadline, name: str, asked: str) -> bool | None:
    """Say whether the server can do something; ``None`` where it failed to say."""
    try:
        return connection.run(
            _STAGE, deadline, lambda client, timeout: _QUESTIONS[asked](client, name, timeout)
        )
    except (FailedPrecondition, NotFound):
        # Not served, not permitted, or without effect.
        return False
    except Internal:
        return None


@contextmanager
def _collection(connection: Connection, deadline: Deadline) -> Iterator[str]:
    """Make an empty collection for the time of the block; sweep up those of programs that died."""
    names = connection.run(
        _STAGE, deadline, lambda client, timeout: client.list_collections(timeout=timeout)
    )
    for name in names:
        if name.startswith(PREFIX) and _is_abandoned(name):
            _drop(connection, deadline, name)
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=32)
    schema.add_field("code", DataType.BINARY_VECTOR, dim=8)
    schema.add_field("tenant", DataType.VARCHAR, max_length=64, is_partition_key=True)
    name, answers = f"{PREFIX}{int(time.time())}_{secrets.token_hex(8)}", True
    try:
        connection.run(
            _STAGE,
            deadline,
            lambda client, timeout: client.create_collection(
                name, schema=schema, num_partitions=2, timeout=timeout
            ),
        )
        yield name
    except (Unavailable, DeadlineExceeded):
        # Nobody waits for it again: whoever asks later sweeps up.
        answers = False
        raise
    finally:
        if answers:
            _drop(connection, Deadline.after(_SWEEPING_S), name)


def _drop(connection: Connection, deadline: Deadline, name: str) -> None:
    connection.run(
        _STAGE, deadline, lambda client, timeout: client.drop_collection(name, timeout=timeout)
    )


def _is_abandoned(name: str) -> bool:
    born = name.removeprefix(PREFIX).partition("_")[0]
    return born.isdigit() and int(born) < time.time() - _ABANDONED_S


def _ivf_index() -> Any:  # noqa: ANN401 - pymilvus is not typed
    index = MilvusClient.prepare_index_params()
    index.add_index("code", index_type="BIN_IVF_FLAT", metric_type="HAMMING", params={"nlist": 1})
    return index


def _alias_is_found(client: MilvusClient, name: str, timeout: float) -> bool:
    """Say whether an alias is found again; in a database of its own Milvus 2.3.5 does not."""
    alias = f"{name}_alias"
    client.create_alias(name, alias, timeout=timeout)
    try:
        return bool(client.describe_alias(alias, timeout=timeout).get("collection_name") == name)
    finally:
        client.drop_alias(alias, timeout=timeout)


#: How each capability is tried, given the empty collection and the seconds left.
_QUESTIONS: dict[str, Callable[[MilvusClient, str, float], bool]] = {
    "aliases": _alias_is_found,
    "databases": lambda client, _, timeout: bool(client.list_databases(timeout=timeout)),
    # A server that knows partition keys has made several partitions of the one field.
    "partition_key": lambda client, name, timeout: (
        len(client.list_partitions(name, timeout=timeout)) > 1
    ),
    "bin_ivf_flat": lambda client, name, timeout: (
        client.create_index(name, _ivf_index(), timeout=timeout) is None
    ),
    "properties": lambda client, name, timeout: (
        client.alter_collection_properties(name, {"dafh.probe": "1"}, timeout=timeout) is None
    ),
}
