from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import pytest

from dafh.calls import WITHOUT_THREADS, only_answer

METHOD = "/test.Calls/Answer"


class Answering(grpc.GenericRpcHandler):
    """Answers; to b"slow" late, to b"wait" only when the call is over, to b"fail" never."""

    #: Of the client that is tested.
    channel: grpc.Channel

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
            # Not for who has gone: a line of them would be memory as well.
            time.sleep(0.005 * context.is_active())
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
        handler.channel = channel
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

    # What is stopped later may have been answered before.
    ends = suppress(grpc.FutureCancelledError) if after_s else None

    def stop(times: int) -> int:
        for _ in range(times):
            with ends or pytest.raises(grpc.FutureCancelledError):
                only_answer(method(b"slow", timeout=30), stopping)
        return memory()

    before = stop(1_000)
    assert stop(2_000) - before < 2_000 * 5_000


def unread(call: Any) -> set[object]:  # noqa: ANN401 - gRPC's own
    """Return what gRPC still has of a call: memory for good, once the call is let go."""
    return set(call._state.due)


@pytest.mark.parametrize(
    ("sent", "timeout"), [(b"answer", 30), (b"fail", 30), (b"slow", 0.002)], ids=lambda x: str(x)
)
def test_of_a_call_that_ends_by_itself_nothing_is_left(
    served: tuple[Method, Answering], sent: bytes, timeout: float
) -> None:
    call = served[0](sent, timeout=timeout)
    with suppress(grpc.RpcError):
        only_answer(call, unstopped)
    assert not unread(call)


def test_of_calls_to_nobody_nothing_is_left() -> None:
    with socket.socket() as taken:
        # Bound and not listening: whoever connects is refused.
        taken.bind(("127.0.0.1", 0))
        for _ in range(20):
            target = f"127.0.0.1:{taken.getsockname()[1]}"
            with grpc.insecure_channel(target, (WITHOUT_THREADS,)) as channel:
                method: Method = channel.unary_stream(METHOD)
                call = method(b"a", timeout=5)
                with pytest.raises(grpc.RpcError):
                    only_answer(call, unstopped)
                assert call.code() is grpc.StatusCode.UNAVAILABLE
                assert not unread(call)


def test_of_an_answer_that_cannot_be_read_nothing_is_left(
    served: tuple[Method, Answering],
) -> None:
    def refuse(_: bytes) -> bytes:
        raise ValueError

    method: Method = served[1].channel.unary_stream(METHOD, response_deserializer=refuse)
    call = method(b"a", timeout=30)
    with pytest.raises(grpc.RpcError):
        only_answer(call, unstopped)
    assert not unread(call)


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
