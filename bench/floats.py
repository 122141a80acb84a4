"""The same archive as float vectors, in the same server: what hashing saves.

512 numbers a case, as networks of this kind give before the hash layer, drawn around centres as
classes lie; no scalar fields but the key and the modality, so that the vectors alone are compared.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.stock import MODALITIES, grown, memory_of
from dafh.deadline import Deadline
from dafh.index.connection import Connection, DataType, MilvusClient
from tests.index.servers import StandaloneServer

DIMENSIONS = 512
CENTRES = 2_000
TOP = 10
QUERIES = 200
_BATCH = 5_000
_NAME = "floats"

#: How each index is built, and searched at growing cost until recall is enough.
INDEXES: dict[str, tuple[dict[str, Any], str, tuple[int, ...]]] = {
    "ivf": (
        {"index_type": "IVF_FLAT", "params": {"nlist": 1024}},
        "nprobe",
        (1, 2, 4, 8, 16, 32, 64),
    ),
    "hnsw": (
        {"index_type": "HNSW", "params": {"M": 16, "efConstruction": 100}},
        "ef",
        (10, 20, 40, 80, 160, 320),
    ),
}
#: The same bar that codes have.
RECALL = 0.99


def vectors(count: int, seed: int) -> NDArray[np.float32]:
    """Return unit vectors float32 ``[count, 512]`` around common centres."""
    centres = np.random.default_rng(0).standard_normal((CENTRES, DIMENSIONS), np.float32)
    random = np.random.default_rng(seed)
    made = centres[random.integers(CENTRES, size=count)]
    made += 0.5 * random.standard_normal(made.shape, np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made


def floats_step(kind: str, rows: int) -> dict[str, Any]:
    """Build one float index in a standalone server; search it at the recall that codes have."""
    build, parameter, values = INDEXES[kind]
    never = Deadline.never()
    with tempfile.TemporaryDirectory() as folder, StandaloneServer(Path(folder)) as server:
        connection = Connection(server.endpoint, Deadline.after(60))
        empty = memory_of(server.pid, server.folder)
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIMENSIONS)
        schema.add_field("modality", DataType.VARCHAR, max_length=16)
        connection.call("making", never, "create_collection", _NAME, schema=schema)
        asking = vectors(QUERIES, 1_000_000)
        best = np.full((QUERIES, TOP), -np.inf, np.float32)
        began = time.perf_counter()
        for start in range(0, rows, _BATCH):
            some = vectors(min(_BATCH, rows - start), start)
            best = np.sort(np.concatenate([best, asking @ some.T], axis=1), axis=1)[:, -TOP:]
            batch = [
                {"id": start + n, "vector": vector, "modality": MODALITIES[n % len(MODALITIES)]}
                for n, vector in enumerate(some)
            ]
            connection.call("stocking", never, "insert", _NAME, batch)
        connection.call("sealing", never, "flush", _NAME)
        filled = time.perf_counter() - began
        began = time.perf_counter()
        index = MilvusClient.prepare_index_params()
        index.add_index("vector", metric_type="IP", **build)
        connection.call("building", never, "create_index", _NAME, index, sync=False)
        while int(
            connection.call("waiting", never, "describe_index", _NAME, "vector")[
                "pending_index_rows"
            ]
        ):
            time.sleep(0.5)
        built = time.perf_counter() - began
        connection.call("loading", never, "load_collection", _NAME)
        full = memory_of(server.pid, server.folder)
        searches = [_search(connection, asking, best[:, 0], parameter, value) for value in values]
        connection.close()
    enough = [one for one in searches if one["recall"] >= RECALL] or searches[-1:]
    return {
        "index": kind,
        "rows": rows,
        "dimensions": DIMENSIONS,
        "build": build,
        "fill_seconds": round(filled, 1),
        "build_seconds": round(built, 1),
        "memory": grown(empty, full),
        "searches": searches,
        "chosen": enough[0],
    }


def _search(
    connection: Connection,
    asking: NDArray[np.float32],
    border: NDArray[np.float32],
    parameter: str,
    value: int,
) -> dict[str, float]:
    spent: list[float] = []
    near = 0
    # The first round warms up.
    for _ in range(2):
        spent, near = [], 0
        for query, least in zip(asking, border, strict=True):
            began = time.perf_counter()
            (hits,) = connection.call(
                "searching",
                Deadline.never(),
                "search",
                _NAME,
                data=[query],
                limit=TOP,
                search_params={"metric_type": "IP", "params": {parameter: value}},
            )
            spent.append(1000 * (time.perf_counter() - began))
            near += sum(hit["distance"] >= least - 1e-5 for hit in hits)
    return {
        parameter: value,
        "p50_ms": round(median(spent), 3),
        "recall": round(near / (TOP * len(asking)), 4),
    }
