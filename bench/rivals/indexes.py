"""Where rivals keep vectors: faiss in the process, or Milvus Lite beside it; all exact."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from dafh.deadline import Deadline
from dafh.evaluation.metrics import TOP
from dafh.index.connection import Connection, DataType, MilvusClient
from tests.index.servers import LiteServer

Vectors = NDArray[np.float32]

#: Rows of one insert; Milvus Lite does not come back from ten megabytes of vectors.
_BATCH = 2_000
_NAME = "floats"


class VectorIndex(Protocol):
    """Vectors, numbered in the order in which they came."""

    def add(self, vectors: Vectors) -> None:
        """Take ``[N, F]``."""

    def search(self, vector: Vectors) -> list[int]:
        """Return the numbers of the nearest."""

    def save(self) -> None:
        """Keep all on disk."""

    def close(self) -> None:
        """Let go of everything."""


class Faiss:
    """An index of faiss, in this process.

    Parameters
    ----------
    folder
        Where it is kept.
    kind
        `faiss.IndexFlatIP` for unit vectors, `faiss.IndexBinaryFlat` for the signs of vectors.
    """

    def __init__(self, folder: Path, kind: Callable[[int], Any]) -> None:
        faiss.omp_set_num_threads(1)
        self._kind, self._file = kind, folder / "index"
        self._binary = kind is faiss.IndexBinaryFlat
        read = faiss.read_index_binary if self._binary else faiss.read_index
        self._index: Any = read(str(self._file)) if self._file.exists() else None

    def add(self, vectors: Vectors) -> None:
        """Take ``[N, F]``."""
        if self._index is None:
            self._index = self._kind(vectors.shape[1])
        self._index.add(self._rows(vectors))

    def search(self, vector: Vectors) -> list[int]:
        """Return the numbers of the nearest."""
        _, places = self._index.search(self._rows(vector[None]), TOP)
        return [int(place) for place in places[0]]

    def save(self) -> None:
        """Keep all on disk."""
        write: Any = faiss.write_index_binary if self._binary else faiss.write_index
        write(self._index, str(self._file))

    def close(self) -> None:
        """Nothing is held open."""

    def _rows(self, vectors: Vectors) -> NDArray[np.generic]:
        return np.packbits(vectors > 0, axis=1) if self._binary else vectors


class MilvusFloats:
    """Unit vectors in Milvus Lite, searched one by one; a key and nothing else beside them."""

    def __init__(self, folder: Path) -> None:
        with ExitStack() as end:
            server = end.enter_context(LiteServer(folder))
            self._connection = Connection(server.endpoint, Deadline.after(60))
            end.callback(self._connection.close)
            self._end = end.pop_all()
        self._count = 0
        if self._call("has_collection", _NAME):
            self._call("load_collection", _NAME)

    def add(self, vectors: Vectors) -> None:
        """Take ``[N, F]``."""
        if not self._count:
            schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("id", DataType.INT64, is_primary=True)
            schema.add_field("vector", DataType.FLOAT_VECTOR, dim=vectors.shape[1])
            index = MilvusClient.prepare_index_params()
            index.add_index("vector", index_type="FLAT", metric_type="IP")
            self._call("create_collection", _NAME, schema=schema, index_params=index)
        for start in range(0, len(vectors), _BATCH):
            batch = [
                {"id": self._count + n, "vector": vector}
                for n, vector in enumerate(vectors[start : start + _BATCH])
            ]
            self._call("insert", _NAME, batch)
            self._count += len(batch)

    def search(self, vector: Vectors) -> list[int]:
        """Return the numbers of the nearest."""
        (hits,) = self._call("search", _NAME, data=[vector], limit=TOP)
        return [int(hit["id"]) for hit in hits]

    def save(self) -> None:
        """Milvus has kept all already."""

    def close(self) -> None:
        """End the server."""
        self._end.close()

    def _call(self, name: str, *arguments: object, **options: object) -> Any:  # noqa: ANN401 - of Milvus
        return self._connection.call("rival", Deadline.after(60), name, *arguments, **options)
