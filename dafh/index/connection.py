"""A connection to Milvus that keeps deadlines and speaks our errors.

pymilvus retries a failed call with the full timeout again, sleeps between retries, reconnects under
a lock that all connections share, and logs filter expressions. So the channel is ours: an
interceptor under pymilvus cuts every call, the hidden ones too, at the caller's deadline, and turns
a transport fault into an error that pymilvus does not retry. The channel itself reconnects.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import dotenv
import grpc

from dafh.calls import WITHOUT_THREADS
from dafh.deadline import Deadline
from dafh.errors import (
    DafhError,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    NotFound,
    Overloaded,
    Reason,
    Unavailable,
)
from dafh.index.channel import GivenUpWithCaller
from dafh.index.endpoint import Endpoint
from dafh.index.turns import turn

if TYPE_CHECKING:
    from grpc import _CallFuture


@contextmanager
def _without_dotenv() -> Iterator[None]:
    """Keep an import from reading whatever ``.env`` file it finds into our environment."""
    load = dotenv.load_dotenv
    dotenv.load_dotenv = _load_nothing
    try:
        yield
    finally:
        dotenv.load_dotenv = load


def _load_nothing(*_arguments: object, **_options: object) -> bool:
    return False


with _without_dotenv():
    from pymilvus import CollectionSchema, DataType, MilvusClient, MilvusException

__all__ = ["CollectionSchema", "Connection", "DataType", "MilvusClient"]

# Its error log holds expressions, and patient keys with them; every error is raised here anyway.
for _name in ("pymilvus", "pymilvus.milvus_client"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)

Answer = TypeVar("Answer")
Request = TypeVar("Request")

#: No single call takes longer, whatever the deadline: a hung server is noticed even by batch work.
LONGEST_CALL_S = 60.0

CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A peer that vanished without a word is noticed.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # Back within a second once the server is back.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Codes go to Milvus, never to a proxy that the environment names.
    ("grpc.enable_http_proxy", 0),
    # Connections that closed cannot be found again.
    ("grpc.use_local_subchannel_pool", 1),
    WITHOUT_THREADS,
)

_WAIT = "Try again a little later; `dafh status` says whether Milvus runs."

#: Codes of Milvus's own status (pkg/util/merr of Milvus).
_NOT_FOUND = frozenset({100, 1600})  # collection, alias
_OVERLOADED = frozenset({3, 4, 8, 9})  # memory, request limit, rate limit, denied
_NOT_READY = frozenset({2, 101, 106, 500, 502, 503, 700})  # service, not loaded, channel, index
_NO_DATABASE = 800
_NO_MORE_COLLECTIONS = 102
_AWAY = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)
#: What a server says while it starts, loads or releases, under codes that may mean anything: Milvus
#: Lite as an internal error, the standalone server as an unknown one.
_PASSING = (
    "has not been init",
    "is not ready",
    "service unavailable",
    "reason=collection not found",
    "reason=channel",
    "reason=segment",
    "find no available",
)
#: What pymilvus and the server say where the time that they were given came to an end: for a
#: collection to be loaded, between two tries, in the proxy's queue, behind the proxy.
_WAITED = ("wait for loading", "Retry timeout", "TaskCondition context Done", "deadline exceeded")
#: What Milvus Lite says of an index that it does not have.
_NOT_OFFERED = ("invalid index type",)
#: What gRPC says where two certificates do not go together.
_DISTRUST = ("CERTIFICATE", "Verification", "TSI_DATA_CORRUPTED")


@dataclass(slots=True)
class _Underway:
    """The call that a thread is in."""

    stage: str
    deadline: Deadline
    #: What the guard raised; pymilvus wraps it and loses it where its own calls nest.
    fault: DafhError | None = None


_UNDERWAY: ContextVar[_Underway] = ContextVar("underway")

# pymilvus connects under a lock of its own without a deadline; nobody waits behind it but here.
_CONNECTING = threading.Lock()


class Connection:
    """A connection to one Milvus server; may be used by several threads.

    Parameters
    ----------
    server
        Where it is; a bare URI is a server on this machine that asks nobody who they are.
    deadline
        By which the server must have answered.

    Raises
    ------
    Misconfigured
        The URI would send plaintext beyond this machine, or a file is missing or unsafe.
    FailedPrecondition
        The server does not accept our credentials.
    Unavailable, DeadlineExceeded
        The server does not answer.
    """

    def __init__(self, server: Endpoint | str, deadline: Deadline) -> None:
        endpoint = Endpoint(server) if isinstance(server, str) else server
        guard = _Guard(endpoint.authorization())
        channel = GivenUpWithCaller(endpoint.channel(CHANNEL_OPTIONS), _stopping)
        # Once the channel has found the URI to be one.
        self._local_port = endpoint.local_port
        self._channel = grpc.intercept_channel(channel, guard)
        self._closed = False
        stage = "connecting to the index"
        try:
            with holding(_CONNECTING, deadline, stage):
                self._client = _run(
                    stage,
                    deadline,
                    lambda timeout: MilvusClient(
                        endpoint.uri,
                        db_name=endpoint.database,
                        dedicated=True,
                        channel=self._channel,
                        timeout=timeout,
                    ),
                )
        except DafhError:
            self._channel.close()
            raise

    def run(
        self, stage: str, deadline: Deadline, call: Callable[[MilvusClient, float], Answer]
    ) -> Answer:
        """Call pymilvus.

        Parameters
        ----------
        stage
            What is being done, for error messages.
        call
            Gets the client and the timeout in seconds to pass on.

        Raises
        ------
        Unavailable, DeadlineExceeded, Overloaded
            The server does not answer in time; waiting helps.
        NotFound
            The collection does not exist.
        Internal
            The server refused something that should have worked.
        """
        if self._closed:
            raise Unavailable(
                Reason.INDEX_UNAVAILABLE,
                "The connection to Milvus was closed.",
                remedy="Open another one: this program is being ended, or has let go of the index.",
            )
        return _run(stage, deadline, lambda timeout: call(self._client, timeout))

    def call(
        self,
        stage: str,
        deadline: Deadline,
        name: str,
        *arguments: Any,  # noqa: ANN401 - pymilvus's own
        **named: Any,  # noqa: ANN401 - as well
    ) -> Any:  # noqa: ANN401 - as well
        """Call a method of pymilvus's client by name; all else is as in `run`."""
        return self.run(
            stage,
            deadline,
            lambda client, timeout: getattr(client, name)(*arguments, timeout=timeout, **named),
        )

    def alone(self, stage: str, deadline: Deadline) -> AbstractContextManager[None]:
        """Return what keeps other writers away from a server on this machine (`turn`)."""
        if self._local_port is None:
            return nullcontext()
        return turn(self._local_port, deadline, stage)

    def close(self) -> None:
        """Let go of the connection."""
        self._closed = True
        self._client.close()
        self._channel.close()


@contextmanager
def holding(lock: threading.Lock, deadline: Deadline, stage: str) -> Iterator[None]:
    """Hold a lock, or raise `DeadlineExceeded` where it is not free in time."""
    while not lock.acquire(timeout=min(deadline.remaining(stage), LONGEST_CALL_S)):
        continue
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class _Details(grpc.ClientCallDetails):
    """A call's details, with a timeout of ours."""

    method: str
    timeout: float | None
    metadata: Any
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class _Guard(grpc.UnaryUnaryClientInterceptor):
    """Keeps the deadline of the call underway; raises our errors instead of gRPC's.

    Parameters
    ----------
    authorization
        Header that says who calls; pymilvus, which would keep it in what it logs, never sees it.
    """

    def __init__(self, authorization: str) -> None:
        self._headers = (("authorization", authorization),) if authorization else ()

    def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.ClientCallDetails, Request], _CallFuture[Answer]],
        client_call_details: grpc.ClientCallDetails,
        request: Request,
    ) -> _CallFuture[Answer]:
        underway = _UNDERWAY.get()
        try:
            return self._guarded(underway, continuation, client_call_details, request)
        except DafhError as fault:
            underway.fault = fault
            raise

    def _guarded(
        self,
        underway: _Underway,
        continuation: Callable[[grpc.ClientCallDetails, Request], _CallFuture[Answer]],
        client_call_details: grpc.ClientCallDetails,
        request: Request,
    ) -> _CallFuture[Answer]:
        stage = underway.stage
        left = underway.deadline.remaining(stage)
        details = _Details(
            method=client_call_details.method,
            timeout=min(left, LONGEST_CALL_S),
            metadata=(*(client_call_details.metadata or ()), *self._headers),
            credentials=client_call_details.credentials,
            wait_for_ready=False,
            compression=client_call_details.compression,
        )
        call = continuation(details, request)
        fault = call.exception()
        if isinstance(fault, DafhError):
            raise fault
        if fault is not None:
            raise _transport_error(
                call.code(), call.details() or "", stage, cut_short=left > LONGEST_CALL_S
            )
        # pymilvus sleeps and repeats on these, past the deadline.
        status = getattr(call.result(), "status", call.result())
        if getattr(status, "code", 0) in _OVERLOADED:
            raise _overloaded(stage)
        return call


@contextmanager
def _stopping(cancel: Callable[[], object]) -> Iterator[None]:
    """Cancel the call underway where the one who waits for it gives up."""
    underway = _UNDERWAY.get()
    try:
        with underway.deadline.stopping(cancel):
            yield
    except grpc.FutureCancelledError:
        underway.deadline.remaining(underway.stage)
        raise Unavailable(
            Reason.INDEX_UNAVAILABLE, f"A call was cancelled while {underway.stage}."
        ) from None


def _run(stage: str, deadline: Deadline, call: Callable[[float], Answer]) -> Answer:
    left = deadline.remaining(stage)
    timeout = min(left, LONGEST_CALL_S)
    underway = _Underway(stage, deadline)
    token = _UNDERWAY.set(underway)
    try:
        return call(timeout)
    except MilvusException as error:
        if underway.fault is None and left <= LONGEST_CALL_S and _says(error.message, _WAITED):
            raise _too_late(stage) from None
        raise underway.fault or _translated(error, stage) from None
    finally:
        _UNDERWAY.reset(token)


def _translated(error: MilvusException, stage: str) -> DafhError:
    if error.code in _NOT_FOUND:
        return NotFound(
            Reason.ARCHIVE_NOT_FOUND,
            f"The archive's collection was gone while {stage}.",
            remedy="Create the archive again, or restore it.",
        )
    if error.code in _OVERLOADED:
        return _overloaded(stage)
    if error.code == _NO_MORE_COLLECTIONS:
        return FailedPrecondition(
            Reason.INDEX_INCAPABLE,
            f"Milvus has as many collections as it is set up for while {stage}.",
            remedy="Delete archives or drop codings, or raise maxCollectionNum and "
            "maxCollectionNumPerDB of the server.",
            subject="milvus_database",
        )
    if error.code == _NO_DATABASE:
        return FailedPrecondition(
            Reason.INDEX_UNAVAILABLE,
            f"Milvus does not have the database while {stage}.",
            remedy="The administrator makes it, and gives the service's user its role there.",
            subject="milvus_database",
        )
    if _says(error.message, _NOT_OFFERED):
        return _not_offered(stage)
    if error.code in _NOT_READY or error.retriable or _says(error.message, _PASSING + _WAITED):
        return Unavailable(
            Reason.INDEX_UNAVAILABLE, f"Milvus was not ready while {stage}.", remedy=_WAIT
        )
    # Its message may quote the request: only the code goes on.
    return Internal(Reason.INDEX_WRONG, f"Milvus answered with code {error.code} while {stage}.")


def _too_late(stage: str) -> DeadlineExceeded:
    return DeadlineExceeded(
        Reason.DEADLINE_EXCEEDED,
        f"The deadline passed while {stage}.",
        remedy="Give the call more time, or try again when the service is less busy.",
    )


def _not_offered(stage: str) -> FailedPrecondition:
    return FailedPrecondition(
        Reason.INDEX_INCAPABLE,
        f"This Milvus does not offer what {stage} needs.",
        remedy="Use a Milvus server that does; Milvus Lite does less than the others.",
    )


def _overloaded(stage: str) -> Overloaded:
    return Overloaded(
        Reason.OVERLOADED, f"Milvus has too much to do while {stage}.", remedy="Try again later."
    )


def _transport_error(
    code: grpc.StatusCode, details: str, stage: str, *, cut_short: bool
) -> DafhError:
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and not cut_short:
        return _too_late(stage)
    if code is grpc.StatusCode.UNAVAILABLE and _says(details, _DISTRUST):
        return FailedPrecondition(
            Reason.INDEX_UNAVAILABLE,
            f"Milvus and this program do not trust each other's certificates while {stage}.",
            remedy="Check the CA, the certificate and the server name that were set for Milvus.",
            subject="milvus_ca",
        )
    if code in _AWAY or _says(details, _PASSING):
        return Unavailable(
            Reason.INDEX_UNAVAILABLE, f"Milvus did not answer while {stage}.", remedy=_WAIT
        )
    match code:
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return _overloaded(stage)
        case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
            return FailedPrecondition(
                Reason.INDEX_UNAVAILABLE,
                f"Milvus does not let us in while {stage}.",
                remedy="Check the credentials and the role that Milvus was given for this service.",
                subject="milvus_credentials",
            )
        case grpc.StatusCode.UNIMPLEMENTED:
            return _not_offered(stage)
        case _:
            return Internal(Reason.INDEX_WRONG, f"Milvus answered with {code.name} while {stage}.")


def _says(text: str, phrases: tuple[str, ...]) -> bool:
    return any(phrase in text for phrase in phrases)
