"""A rival as a process of its own: made of an encoding and an index, asked through a pipe.

It runs what it is sent, in itself: so a rival that is a library is measured without a wire. One
that serves gRPC is asked over its port instead.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

import faiss
import grpc
import imagehash
import numpy as np
from numpy.typing import NDArray

from bench.codes import varied
from bench.load import Ask, Connect
from bench.rivals.encodings import Encode, fused, naive, pixel_hash
from bench.rivals.indexes import Faiss, MilvusFloats, VectorIndex

METHOD = "/rival.Retrieval/Retrieve"
#: Threads of a server of the tutorial's kind.
THREADS = 10

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a rival is made of."""

    encode: Callable[[], Encode]
    index: Callable[[Path], VectorIndex]
    #: Bytes of a vector.
    vector_bytes: int
    #: Whether it is asked over gRPC; else in its own process.
    served: bool = False


CODES, FLOATS = (partial(Faiss, kind=kind) for kind in (faiss.IndexBinaryFlat, faiss.IndexFlatIP))
RECIPES = {
    "floats, faiss": Recipe(fused, FLOATS, 2048),
    "floats, Milvus": Recipe(fused, MilvusFloats, 2048),
    "codes, served naively": Recipe(naive, CODES, 8, served=True),
    "pHash": Recipe(partial(pixel_hash, imagehash.phash), CODES, 8),
    "dHash": Recipe(partial(pixel_hash, imagehash.dhash), CODES, 8),
    "average hash": Recipe(partial(pixel_hash, imagehash.average_hash), CODES, 8),
}


class Rival:
    """In its process: an encoding and an index."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.encode, self.index = recipe.encode(), recipe.index(folder)
        #: Of the images that it took, ``[N, F]``.
        self.vectors = np.empty((0, 0), np.float32)

    def ask(self, data: bytes) -> list[int]:
        """Return the numbers of the most similar images."""
        return self.index.search(self.encode(data))

    @contextmanager
    def connect(self) -> Iterator[Ask]:
        """Yield what one client in this process asks with."""
        yield self.ask


def take(images: list[bytes], rival: Rival) -> float:
    """Index images; return the seconds."""
    began = time.perf_counter()
    rival.vectors = np.stack([rival.encode(data) for data in images])
    rival.index.add(rival.vectors)
    return time.perf_counter() - began


def pad(classes: NDArray[np.int64], count: int, rival: Rival) -> None:
    """Index more vectors of the kind that was taken, so many, and keep all."""
    for some in varied(rival.vectors, classes, count, 1):
        lengths = np.linalg.norm(some, axis=1, keepdims=True)
        rival.index.add((some / np.maximum(lengths, 1e-12)).astype(np.float32))
    rival.index.save()


def work(name: str, folder: Path, pipe: Connection) -> None:
    """Be a rival until told to stop."""
    recipe = RECIPES[name]
    rival = Rival(recipe, folder)
    server = _server(rival) if recipe.served else None
    pipe.send(server[1] if server else 0)
    while (told := pipe.recv()) is not None:
        pipe.send(told(rival))
    if server:
        server[0].stop(0).wait()
    rival.index.close()


def _server(rival: Rival) -> tuple[grpc.Server, int]:
    def answer(request: bytes, _context: object) -> bytes:
        return json.dumps(rival.ask(request)).encode()

    server = grpc.server(ThreadPoolExecutor(THREADS))
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)
    service, method = METHOD.strip("/").split("/")
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, {method: handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


class Process:
    """A rival's process, from outside."""

    def __init__(self, name: str, pid: int, port: int, pipe: Connection) -> None:
        self.pids = {name: pid}
        self._pipe = pipe
        self._port = port

    def tell(self, told: Callable[[Rival], Result]) -> Result:
        """Have it run something in itself."""
        self._pipe.send(told)
        result: Result = self._pipe.recv()
        return result

    def run(self, work: Callable[[Connect], Result]) -> Result:
        """Run clients: over its port where it has one, else in itself."""
        return work(self._connect) if self._port else self.tell(partial(_inside, work))

    @contextmanager
    def _connect(self) -> Iterator[Ask]:
        with grpc.insecure_channel(f"127.0.0.1:{self._port}") as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
            yield lambda data: json.loads(call(data))


def _inside(work: Callable[[Connect], Result], rival: Rival) -> Result:
    return work(rival.connect)


@contextmanager
def started(name: str, folder: Path) -> Iterator[Process]:
    """Run a rival in a fresh process, with what its folder holds."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=work, args=(name, folder, theirs))
    process.start()
    theirs.close()
    try:
        yield Process(name, process.pid or 0, ours.recv(), ours)
    finally:
        # Where it ended by itself, it has said why.
        with suppress(BrokenPipeError):
            ours.send(None)
        process.join(30)
