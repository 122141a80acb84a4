from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from dafh.deadline import CallDeadline
from dafh.errors import DeadlineExceeded
from dafh.index.connection import Connection


class Stalled(grpc.GenericRpcHandler):
    """Answers what pymilvus asks while it connects, and then never again."""

    def __init__(self) -> None:
        self.stalled, self.begun, self.ended = False, threading.Event(), threading.Event()

    def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        return grpc.unary_unary_rpc_method_handler(self.answer)

    def answer(self, _: bytes, context: grpc.ServicerContext) -> bytes:
        if self.stalled:
            context.add_callback(self.ended.set)
            self.begun.set()
            self.ended.wait(30)
        return b""


@pytest.fixture
def server() -> Iterator[tuple[str, Stalled]]:
    handler = Stalled()
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}", handler
    handler.ended.set()
    server.stop(0).wait(5)


def test_a_caller_who_gives_up_ends_the_call_at_milvus(server: tuple[str, Stalled]) -> None:
    uri, handler = server
    deadline = CallDeadline(time.monotonic() + 30)
    connection = Connection(uri, deadline)
    handler.stalled = True
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(connection.call, "searching", deadline, "has_collection", "a")
        assert handler.begun.wait(10)
        deadline.give_up()
        with pytest.raises(DeadlineExceeded, match="gave up before searching"):
            call.result(5)
    assert handler.ended.wait(5), "the server still works for nobody"
    connection.close()
