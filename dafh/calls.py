"""Unary gRPC calls that end as soon as nobody waits for them, without a thread for each."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import grpc
from grpc.experimental import ChannelOptions

#: Runs a block, and calls what it is given where the block is to end early.
Stopping = Callable[[Callable[[], object]], AbstractContextManager[None]]

#: Option of a channel: who reads a stream of answers waits for them in the own thread.
WITHOUT_THREADS = (ChannelOptions.SingleThreadedUnaryStream, 1)


def only_answer(call: Any, stopping: Stopping) -> Any:  # noqa: ANN401 - gRPC's own; stubs lack `cancelled`
    """Wait for the answer of a unary method that was called as one with a stream of answers.

    On the wire the two are the same. gRPC gives no handle on a blocking unary call, and a future
    costs a thread that is started and ended with it (`bench.parts` measures what that takes).

    Parameters
    ----------
    call
        Made on a channel with the option `WITHOUT_THREADS`, not read yet.
    stopping
        Entered with the call's `cancel`.

    Raises
    ------
    grpc.FutureCancelledError
        The call was cancelled.
    grpc.RpcError
        It failed.
    """
    with stopping(call.cancel):
        try:
            (answer,) = call
        except grpc.RpcError:
            stopped = call.cancelled()
            _forget(call)
            if stopped:
                raise grpc.FutureCancelledError from None
            raise
        _forget(call)
    return answer


def _forget(call: Any) -> None:  # noqa: ANN401 - gRPC's own
    """Read the last events of a call that has ended, which come at once.

    gRPC (grpcio 1.85.1) reads no more of a call once it knows how it ended, and keeps some 25 kB
    for events that nobody reads, for good: of cancelled calls always, of failed ones sometimes. It
    offers no other way to read them. Where a signal ends the wait it loses them itself.
    """
    while call._state.due:
        call._consume_next_event()
