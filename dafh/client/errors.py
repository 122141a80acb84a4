"""Failed calls as errors of ours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, cast

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2

from dafh.errors import (
    Conflict,
    DafhError,
    DeadlineExceeded,
    Denied,
    FailedPrecondition,
    Internal,
    InvalidInput,
    NotFound,
    Outdated,
    Overloaded,
    Reason,
    Unauthenticated,
    Unavailable,
    Unsupported,
)

KINDS: dict[int, type[DafhError]] = {
    code_pb2.INVALID_ARGUMENT: InvalidInput,
    code_pb2.UNAUTHENTICATED: Unauthenticated,
    code_pb2.PERMISSION_DENIED: Denied,
    code_pb2.NOT_FOUND: NotFound,
    code_pb2.ALREADY_EXISTS: Conflict,
    code_pb2.ABORTED: Outdated,
    code_pb2.FAILED_PRECONDITION: FailedPrecondition,
    code_pb2.UNIMPLEMENTED: Unsupported,
    code_pb2.RESOURCE_EXHAUSTED: Overloaded,
    code_pb2.UNAVAILABLE: Unavailable,
    code_pb2.DEADLINE_EXCEEDED: DeadlineExceeded,
}
#: Reasons of errors that carry none: they come from the transport, not from a gateway.
TRANSPORT: dict[type[DafhError], Reason] = {
    Unavailable: Reason.GATEWAY_UNAVAILABLE,
    DeadlineExceeded: Reason.DEADLINE_EXCEEDED,
    Overloaded: Reason.OVERLOADED,
    Unsupported: Reason.METHOD_UNKNOWN,
}
#: Where gRPC carries a ``google.rpc.Status``.
DETAILS = "grpc-status-details-bin"


class FailedCall(Protocol):
    """What a failed call of either kind of channel tells."""

    def code(self) -> grpc.StatusCode:
        """Return its status code."""

    def details(self) -> str | None:
        """Return its message."""

    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """Return what came after the answer."""


@contextmanager
def translated() -> Iterator[None]:
    """Raise the errors of ours that failed calls carry.

    Raises
    ------
    DafhError
        With the reason that the gateway gave.
    """
    try:
        yield
    except grpc.RpcError as error:
        raise error_of(error) from None


def error_of(error: grpc.RpcError) -> DafhError:
    """Return the error of ours that a failed call carries."""
    # What a stub raises is a call as well.
    call = cast("FailedCall", error)
    status = _status(call)
    found = error_in(status)
    if found is not None:
        return found
    # Of the transport, not of a gateway: its words are about sockets.
    kind = KINDS.get(status.code, Internal)
    return kind(
        TRANSPORT.get(kind, Reason.INTERNAL),
        f"The gateway gave no answer ({call.code().name}).",
        remedy="Look whether it runs (`dafh status`) and where (--server).",
    )


def error_in(status: status_pb2.Status) -> DafhError | None:
    """Return the error of ours in a status, such as that of one item of a batch."""
    info = error_details_pb2.ErrorInfo()
    if not any(detail.Unpack(info) for detail in status.details):
        return None
    if info.reason not in set(Reason):
        return None
    kind = KINDS.get(status.code, Internal)
    return kind(Reason(info.reason), status.message, subject=info.metadata.get("subject", ""))


def _status(call: FailedCall) -> status_pb2.Status:
    for key, value in call.trailing_metadata() or ():
        if key == DETAILS and isinstance(value, bytes):
            return status_pb2.Status.FromString(value)
    return status_pb2.Status(code=call.code().value[0], message=call.details() or "")
