"""Unary gRPC calls that end as soon as nobody waits for them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import grpc

#: Runs a block, and calls what it is given where the block is to end early.
Stopping = Callable[[Callable[[], object]], AbstractContextManager[None]]


def only_answer(call: Any, stopping: Stopping) -> Any:  # noqa: ANN401 - gRPC's own; stubs lack `cancelled`
    """Wait for the answer of a unary method that was called as one with a stream of answers.

    On the wire the two are the same, and gRPC gives no handle on a blocking unary call. Not on a
    channel with the option SingleThreadedUnaryStream, which saves a thread: each call that is
    cancelled there leaves some 25 kB for good (grpcio 1.85.1).

    Parameters
    ----------
    call
        Of the method, not read yet.
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
            if call.cancelled():
                raise grpc.FutureCancelledError from None
            raise
    return answer
