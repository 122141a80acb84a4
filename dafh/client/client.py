"""A thin client of the contract: a channel, deadlines, and errors as exceptions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from dafh.errors import (
    Conflict,
    DafhError,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidInput,
    NotFound,
    Outdated,
    Overloaded,
    Reason,
    Unavailable,
    Unsupported,
)
from dafh.v1 import (
    archive_service_pb2,
    archive_service_pb2_grpc,
    case_pb2,
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    retrieval_service_pb2,
    retrieval_service_pb2_grpc,
)

MAX_MESSAGE = 64 * 1024 * 1024
DEFAULT_TIMEOUT = 30.0

Response = TypeVar("Response")
Filled = TypeVar("Filled", bound=Message)

KINDS: dict[int, type[DafhError]] = {
    code_pb2.INVALID_ARGUMENT: InvalidInput,
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
}


class Client:
    """Talks to one gateway. Safe to use from several threads.

    Parameters
    ----------
    address
        ``host:port`` of the gateway.
    timeout
        Seconds that a call may take.

    Examples
    --------
    >>> with Client("127.0.0.1:50051") as client:  # doctest: +SKIP
    ...     answer = client.retrieve(dicom=open("slice.dcm", "rb").read(), top_k=5)
    ...     for hit in answer.hits:
    ...         print(hit.case.name, hit.distance)
    """

    def __init__(self, address: str, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._timeout = timeout
        self._channel = grpc.insecure_channel(
            address,
            options=[
                # Images go to the gateway and to nobody between.
                ("grpc.enable_http_proxy", 0),
                ("grpc.max_receive_message_length", MAX_MESSAGE),
                ("grpc.max_send_message_length", MAX_MESSAGE),
            ],
        )
        self._retrieval = retrieval_service_pb2_grpc.RetrievalServiceStub(self._channel)
        self._archives = archive_service_pb2_grpc.ArchiveServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def retrieve(
        self,
        *,
        dicom: bytes | None = None,
        picture: bytes | None = None,
        case: str | None = None,
        archive: str = "",
        top_k: int = 10,
        include_same_patient: bool = False,
        max_distance: int | None = None,
    ) -> retrieval_service_pb2.RetrieveResponse:
        """Return the cases most similar to a DICOM object, a PNG or JPEG, or a case.

        Raises
        ------
        DafhError
            With the reason that the gateway gave.
        """
        request = retrieval_service_pb2.RetrieveRequest(
            archive=archive,
            query=_fill(retrieval_service_pb2.Query(), dicom=dicom, picture=picture, case=case),
            top_k=top_k,
            include_same_patient=include_same_patient,
            max_distance=max_distance,
        )
        return _call(self._retrieval.Retrieve, request, self._timeout)

    def encode(
        self, *, dicom: bytes | None = None, picture: bytes | None = None
    ) -> retrieval_service_pb2.EncodeResponse:
        """Return the hash outputs and codes of an image."""
        request = _fill(retrieval_service_pb2.EncodeRequest(), dicom=dicom, picture=picture)
        return _call(self._retrieval.Encode, request, self._timeout)

    def index(
        self,
        requests: Iterable[archive_service_pb2.IndexCasesRequest],
        timeout: float | None = None,
    ) -> Iterator[archive_service_pb2.IndexCasesResponse]:
        """Send images to be indexed; yield one result each.

        Parameters
        ----------
        requests
            The images; the first one may name the archive.
        timeout
            Seconds that the whole stream may take; by default those of a call.
        """
        with _translated():
            yield from self._archives.IndexCases(iter(requests), timeout=timeout or self._timeout)

    def get_case(
        self, name: str, view: case_pb2.CaseView.ValueType = case_pb2.CASE_VIEW_FULL
    ) -> case_pb2.Case:
        """Return one case."""
        request = archive_service_pb2.GetCaseRequest(name=name, view=view)
        return _call(self._archives.GetCase, request, self._timeout)

    def get_model(self, name: str) -> model_pb2.Model:
        """Return one model version."""
        request = model_service_pb2.GetModelRequest(name=name)
        return _call(self._models.GetModel, request, self._timeout)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _fill(message: Filled, **fields: bytes | str | None) -> Filled:
    for name, value in fields.items():
        if value is not None:
            setattr(message, name, value)
    return message


def _call(method: Callable[..., Response], request: Message, timeout: float) -> Response:
    with _translated():
        return method(request, timeout=timeout)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise error_of(error) from None


def error_of(error: grpc.RpcError) -> DafhError:
    """Return the error of ours that a failed call carries."""
    assert isinstance(error, grpc.Call)  # noqa: S101 - what a stub raises is a call as well
    status = rpc_status.from_call(error) or status_pb2.Status(
        code=error.code().value[0], message=error.details() or ""
    )
    kind = KINDS.get(status.code, Internal)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info):
            break
    if info.reason not in set(Reason):
        # Of the transport, not of a gateway: its words are about sockets.
        return kind(
            TRANSPORT.get(kind, Reason.INTERNAL),
            f"The gateway gave no answer ({error.code().name}).",
            remedy="Look whether it runs (`dafh status`) and where (--server).",
        )
    return kind(Reason(info.reason), status.message, subject=info.metadata.get("subject", ""))
