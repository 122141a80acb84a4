from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TypeAlias

import grpc
import pytest

from dafh.calls import WITHOUT_THREADS, only_answer

METHOD = "/test.Calls/Answer"


class Answering(grpc.GenericRpcHandler):
    """Answers; to b"slow" late, to b"wait" only when the call is over, to b"fail" never."""

    def __init__(self) -> None:
        self.begun, self.over = threading.Event(), threading.Event()
        self.threads: set[threading.Thread] = set()

    def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        return grpc.unary_unary_rpc_method_handler(self.answer)

    def answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.threads = set(threading.enumerate())
        if request == b"fail":
            context.abort(grpc.StatusCode.DATA_LOSS, "on purpose")
        if request == b"slow":
            time.sleep(0.005)
        if request == b"wait":
            context.add_callback(self.over.set)
            self.begun.set()
            self.over.wait(30)
        return request


Method: TypeAlias = "grpc.UnaryStreamMultiCallable[bytes, bytes]"


@pytest.fixture
def served() -> Iterator[tuple[Method, Answering]]:
    handler = Answering()
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}", (WITHOUT_THREADS,)) as channel:
        yield channel.unary_stream(METHOD), handler
    handler.over.set()
    server.stop(0).wait(5)


def unstopped(_: Callable[[], object]) -> nullcontext[None]:
    return nullcontext()


def memory() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def test_an_answer_comes_without_a_thread_of_its_own(served: tuple[Method, Answering]) -> None:
    method, handler = served
    # The server starts its thread with the first call.
    assert only_answer(method(b"a"), unstopped) == b"a"
    before = set(threading.enumerate())
    assert only_answer(method(b"b"), unstopped) == b"b"
    assert handler.threads <= before


@pytest.mark.parametrize("after_s", [0.0, 0.001], ids=["at-once", "while-waiting"])
def test_calls_that_are_stopped_leave_no_memory(
    served: tuple[Method, Answering], after_s: float
) -> None:
    method, handler = served
    handler.over.set()

    @contextmanager
    def stopping(cancel: Callable[[], object]) -> Iterator[None]:
        if not after_s:
            cancel()
            yield
            return
        timer = threading.Timer(after_s, cancel)
        timer.start()
        yield
        timer.join()

    def stop(times: int) -> int:
        for _ in range(times):
            with suppress(grpc.FutureCancelledError):
                only_answer(method(b"slow", timeout=30), stopping)
        return memory()

    before = stop(1_000)
    assert stop(2_000) - before < 2_000 * 5_000


@pytest.mark.parametrize("request_", [b"answer", b"fail", b"slow"])
def test_calls_that_end_by_themselves_leave_no_memory(
    served: tuple[Method, Answering], request_: bytes
) -> None:
    method, handler = served
    handler.over.set()

    def ask(times: int) -> int:
        for _ in range(times):
            with suppress(grpc.RpcError):
                # What is slow meets its deadline.
                only_answer(
                    method(request_, timeout=0.002 if request_ == b"slow" else 30), unstopped
                )
        return memory()

    before = ask(1_000)
    assert ask(2_000) - before < 2_000 * 5_000


def test_a_call_that_is_stopped_ends_at_once_and_at_the_server(
    served: tuple[Method, Answering],
) -> None:
    method, handler = served
    cancels: list[Callable[[], object]] = []

    @contextmanager
    def stopping(cancel: Callable[[], object]) -> Iterator[None]:
        cancels.append(cancel)
        yield

    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(only_answer, method(b"wait", timeout=30), stopping)
        assert handler.begun.wait(10)
        cancels[0]()
        with pytest.raises(grpc.FutureCancelledError):
            call.result(5)
    assert handler.over.wait(5)


def test_a_failure_keeps_its_code(served: tuple[Method, Answering]) -> None:
    call = served[0](b"fail")
    with pytest.raises(grpc.RpcError):
        only_answer(call, unstopped)
    assert call.code() is grpc.StatusCode.DATA_LOSS
    assert call.details() == "on purpose"
