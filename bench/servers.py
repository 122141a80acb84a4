"""Sync or asyncio: what one core of a gRPC server does, and what a blocking call costs each.

    python -m bench.servers

Prints calls per second and processor microseconds per call for a server with threads and one on
asyncio, at two message sizes, with and without a blocking call of a millisecond (a decoder, Milvus:
neither has an asyncio client), which asyncio must hand to threads. The client runs in a process of
its own; both are bound to one core each.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

import grpc
from grpc import aio

METHOD = "/bench.Echo/Call"
IN_FLIGHT = 32
SECONDS = 4.0
SIZES = (64, 600_000)
BLOCKING_S = 0.001
OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0))


def _answer(_request: bytes, _context: object, blocking: float) -> bytes:
    if blocking:
        time.sleep(blocking)
    return b"x" * 2000


def serve_threads(pipe: Connection, blocking: float) -> None:
    """Serve with threads until told to stop."""
    server = grpc.server(ThreadPoolExecutor(IN_FLIGHT), options=OPTIONS)
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
        lambda r, c: _answer(r, c, blocking)
    )
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("bench.Echo", {"Call": handler})]
    )
    pipe.send(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    _until_told(pipe)
    server.stop(0).wait()


def serve_asyncio(pipe: Connection, blocking: float) -> None:
    """Serve on asyncio until told to stop."""

    async def main() -> None:
        pool = ThreadPoolExecutor(IN_FLIGHT)
        loop = asyncio.get_running_loop()

        async def call(request: bytes, context: object) -> bytes:
            if not blocking:
                return _answer(request, context, 0)
            return await loop.run_in_executor(pool, _answer, request, context, blocking)

        server = aio.server(options=OPTIONS)
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(call)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("bench.Echo", {"Call": handler}),)
        )
        pipe.send(server.add_insecure_port("127.0.0.1:0"))
        await server.start()
        await loop.run_in_executor(None, _until_told, pipe)
        await server.stop(0)

    asyncio.run(main())


SERVERS: dict[str, Callable[[Connection, float], None]] = {
    "threads": serve_threads,
    "asyncio": serve_asyncio,
}


def _until_told(pipe: Connection) -> None:
    while pipe.recv() != "stop":
        used = resource.getrusage(resource.RUSAGE_SELF)
        pipe.send(used.ru_utime + used.ru_stime)


def measure(kind: str, size: int, blocking: float, seconds: float = SECONDS) -> tuple[float, float]:
    """Return calls per second and processor microseconds of the server per call."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(
        target=SERVERS[kind], args=(theirs, blocking)
    )
    process.start()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(process.pid or 0, cores[:1])
    port = ours.recv()
    body = bytes(size)
    with grpc.insecure_channel(f"127.0.0.1:{port}", OPTIONS) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)

        def ask(until: float) -> int:
            done = 0
            while time.monotonic() < until:
                call(body)
                done += 1
            return done

        with ThreadPoolExecutor(IN_FLIGHT) as clients:
            list(clients.map(ask, [time.monotonic() + seconds / 4] * IN_FLIGHT))
            before, began = _used(ours), time.monotonic()
            done = sum(clients.map(ask, [began + seconds] * IN_FLIGHT))
            took, spent = time.monotonic() - began, _used(ours) - before
    ours.send("stop")
    process.join(10)
    return done / took, 1e6 * spent / done


def _used(pipe: Connection) -> float:
    pipe.send("used")
    seconds: float = pipe.recv()
    return seconds


def main(words: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.servers", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each measurement")
    seconds: float = parser.parse_args(words).seconds
    sys.stdout.write("| message | blocking | server | calls/s | µs of processor a call |\n")
    sys.stdout.write("|---|---|---|---|---|\n")
    for size in SIZES:
        for blocking in (0.0, BLOCKING_S):
            for kind in SERVERS:
                rate, spent = measure(kind, size, blocking, seconds)
                row = (f"{size} B", f"{1000 * blocking:g} ms", kind, f"{rate:.0f}", f"{spent:.0f}")
                sys.stdout.write(f"| {' | '.join(row)} |\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
