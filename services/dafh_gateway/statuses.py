"""Errors of ours to gRPC statuses: one table, and ``google.rpc.Status`` details (AIP-193)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, NoReturn, TypeVar, cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from dafh.errors import (
    Conflict,
    DafhError,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidInput,
    Misconfigured,
    NotFound,
    Outdated,
    Overloaded,
    Reason,
    Unavailable,
    Unsupported,
)

DOMAIN = "dafh"
#: What to tell a caller to wait where waiting helps, seconds.
RETRY_AFTER = 1

CODES: dict[type[DafhError], grpc.StatusCode] = {
    InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    Conflict: grpc.StatusCode.ALREADY_EXISTS,
    Outdated: grpc.StatusCode.ABORTED,
    FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    Unsupported: grpc.StatusCode.UNIMPLEMENTED,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    Misconfigured: grpc.StatusCode.INTERNAL,
    Internal: grpc.StatusCode.INTERNAL,
}

_log = logging.getLogger(__name__)


def status_of(error: DafhError) -> status_pb2.Status:
    """Return the status that a caller sees for an error."""
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)
    if error.remedy:
        info.metadata["remedy"] = error.remedy
    if error.subject:
        info.metadata["subject"] = error.subject
    details: list[Message] = [info]
    if isinstance(error, InvalidInput) and error.subject:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.subject, description=error.message, reason=error.reason
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.waiting_helps:
        details.append(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=RETRY_AFTER)))
    status = status_pb2.Status(code=CODES[type(error)].value[0], message=str(error))
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def abort(context: grpc.ServicerContext, error: DafhError) -> NoReturn:
    """End a call with an error's status."""
    context.abort_with_status(rpc_status.to_status(status_of(error)))
    raise AssertionError("abort_with_status raises")


Handler = TypeVar("Handler", bound=Callable[..., Any])


def unary(handler: Handler) -> Handler:
    """Let a handler raise our errors; the caller gets their statuses, and nothing of others."""

    @wraps(handler)
    def guarded(self: object, request: object, context: grpc.ServicerContext) -> object:
        with _Boundary(context):
            return handler(self, request, context)

    return cast("Handler", guarded)


def stream(handler: Handler) -> Handler:
    """Do as `unary` for a handler that yields its answers."""

    @wraps(handler)
    def guarded(self: object, request: object, context: grpc.ServicerContext) -> Iterator[Any]:
        with _Boundary(context):
            yield from handler(self, request, context)

    return cast("Handler", guarded)


class _Boundary:
    """Turns what leaves a handler into a status."""

    def __init__(self, context: grpc.ServicerContext) -> None:
        self._context = context

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if isinstance(error, DafhError):
            abort(self._context, error)
        if isinstance(error, Exception) and self._context.is_active():
            _log.error("a handler failed", exc_info=error)
            defect = Internal(Reason.INTERNAL, "The gateway failed; its log names the place.")
            abort(self._context, defect)


def not_served(method: str) -> Callable[..., Any]:
    """Return a handler for a method of the contract that this version does not serve."""

    def refuse(_self: object, _request: object, context: grpc.ServicerContext) -> NoReturn:
        abort(
            context,
            Unsupported(
                Reason.NOT_YET_IMPLEMENTED,
                f"{method} is part of the contract but not served by this version.",
                subject=method,
            ),
        )

    return refuse
