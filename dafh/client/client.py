"""A thin client of the contract: a channel, deadlines, retries, and errors as exceptions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar, Unpack

import grpc
from google.protobuf.message import Message

from dafh.client.channel import Target
from dafh.client.errors import translated
from dafh.client.requests import (
    Options,
    fill,
    is_large,
    next_page,
    question,
    upload,
    with_parent,
)
from dafh.v1 import (
    archive_pb2,
    archive_service_pb2,
    archive_service_pb2_grpc,
    case_pb2,
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    retrieval_service_pb2,
    retrieval_service_pb2_grpc,
)

DEFAULT_TIMEOUT = 30.0

Response = TypeVar("Response")


class Client:
    """Talks to a gateway. Safe to use from several threads.

    Every method raises `dafh.errors.DafhError` with the reason that the gateway gave.

    Parameters
    ----------
    target
        The gateway: ``host:port`` on this machine, or a `Target` with TLS and a token.
    timeout
        Seconds that a call may take, its retries included.

    Examples
    --------
    >>> with Client("127.0.0.1:50051") as client:  # doctest: +SKIP
    ...     answer = client.retrieve(dicom=open("slice.dcm", "rb").read(), top_k=5)
    ...     for hit in answer.hits:
    ...         print(hit.case.name, hit.distance, hit.case.retrieve_uri)
    """

    def __init__(self, target: Target | str, timeout: float = DEFAULT_TIMEOUT) -> None:
        to = Target(target) if isinstance(target, str) else target
        self._timeout = timeout
        if to.credentials is None:
            self._channel = grpc.insecure_channel(to.address, to.options)
        else:
            self._channel = grpc.secure_channel(to.address, to.credentials, to.options)
        #: The stubs, for what this class does not wrap.
        self.retrieval = retrieval_service_pb2_grpc.RetrievalServiceStub(self._channel)
        self.archives = archive_service_pb2_grpc.ArchiveServiceStub(self._channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def retrieve(
        self,
        *,
        dicom: bytes | None = None,
        picture: bytes | None = None,
        case: str | None = None,
        code: retrieval_service_pb2.CodeQuery | None = None,
        frame: int | None = None,
        **options: Unpack[Options],
    ) -> retrieval_service_pb2.RetrieveResponse:
        """Return the cases most similar to a DICOM object, a PNG or JPEG, a case or a code.

        An image that is too large for one message is sent in chunks.
        """
        request = question(options, dicom=dicom, picture=picture, case=case, code=code, frame=frame)
        return self.ask(request)

    def retrieve_pages(
        self, request: retrieval_service_pb2.RetrieveRequest
    ) -> Iterator[retrieval_service_pb2.RetrieveResponse]:
        """Yield the pages of an answer; the image of the question is sent once."""
        response = self.ask(request)
        yield response
        while response.next_page_token:
            response = self.ask(next_page(request, response.next_page_token))
            yield response

    def ask(
        self, request: retrieval_service_pb2.RetrieveRequest
    ) -> retrieval_service_pb2.RetrieveResponse:
        """Return the answer to a question that was made already."""
        if not is_large(request):
            return self._call(self.retrieval.Retrieve, request)
        with translated():
            return self.retrieval.RetrieveUpload(upload(request), timeout=self._timeout).response

    def retrieve_batch(
        self, requests: Iterable[retrieval_service_pb2.RetrieveRequest]
    ) -> Sequence[retrieval_service_pb2.BatchRetrieveResult]:
        """Return answers to at most 64 questions, each a response or an error."""
        batch = retrieval_service_pb2.BatchRetrieveRequest(requests=requests)
        return self._call(self.retrieval.BatchRetrieve, batch).results

    def encode(
        self,
        *,
        dicom: bytes | None = None,
        picture: bytes | None = None,
        model_version: int = 0,
        explain: bool = False,
    ) -> retrieval_service_pb2.EncodeResponse:
        """Return the hash outputs and codes of an image."""
        request = retrieval_service_pb2.EncodeRequest(model_version=model_version, explain=explain)
        return self._call(self.retrieval.Encode, fill(request, dicom=dicom, picture=picture))

    def index(
        self,
        requests: Iterable[archive_service_pb2.IndexCasesRequest],
        timeout: float | None = None,
    ) -> Iterator[archive_service_pb2.IndexCasesResponse]:
        """Send images to be indexed; yield one result each.

        Parameters
        ----------
        requests
            The images; the first one names the archive, or `archives/default` is meant.
        timeout
            Seconds that the whole stream may take; by default those of a call.
        """
        with translated():
            yield from self.archives.IndexCases(
                with_parent(requests), timeout=timeout or self._timeout
            )

    def get_case(
        self, name: str, view: case_pb2.CaseView.ValueType = case_pb2.CASE_VIEW_FULL
    ) -> case_pb2.Case:
        """Return one case."""
        request = archive_service_pb2.GetCaseRequest(name=name, view=view)
        return self._call(self.archives.GetCase, request)

    def list_cases(
        self,
        archive: str,
        filter: str = "",  # noqa: A002 - the contract's word
        page_size: int = 0,
    ) -> Iterator[case_pb2.Case]:
        """Yield the cases of an archive in order of name."""
        request = archive_service_pb2.ListCasesRequest(
            parent=archive, filter=filter, page_size=page_size
        )
        while True:
            response = self._call(self.archives.ListCases, request)
            yield from response.cases
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    def delete_cases(self, request: archive_service_pb2.DeleteCasesRequest) -> int:
        """Erase cases; return how many there were."""
        return self._call(self.archives.DeleteCases, request).deleted_count

    def create_archive(
        self, archive_id: str, *, bits: int = 0, model_version: int = 0
    ) -> archive_pb2.Archive:
        """Create an empty archive."""
        archive = archive_pb2.Archive(bits=bits, model_version=model_version)
        request = archive_service_pb2.CreateArchiveRequest(archive_id=archive_id, archive=archive)
        return self._call(self.archives.CreateArchive, request)

    def get_archive(self, name: str) -> archive_pb2.Archive:
        """Return one archive."""
        request = archive_service_pb2.GetArchiveRequest(name=name)
        return self._call(self.archives.GetArchive, request)

    def list_archives(self) -> Iterator[archive_pb2.Archive]:
        """Yield the archives in order of name."""
        request = archive_service_pb2.ListArchivesRequest()
        while True:
            response = self._call(self.archives.ListArchives, request)
            yield from response.archives
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    def delete_archive(
        self, name: str, *, force: bool = False, allow_missing: bool = False, etag: str = ""
    ) -> None:
        """Delete an archive with all its codings."""
        request = archive_service_pb2.DeleteArchiveRequest(
            name=name, force=force, allow_missing=allow_missing, etag=etag
        )
        self._call(self.archives.DeleteArchive, request)

    def switch_archive(
        self,
        name: str,
        model_version: int,
        *,
        allow_missing_cases: bool = False,
        validate_only: bool = False,
        etag: str = "",
    ) -> archive_service_pb2.SwitchArchiveResponse:
        """Make another coding of an archive the live one."""
        request = archive_service_pb2.SwitchArchiveRequest(
            name=name,
            model_version=model_version,
            allow_missing_cases=allow_missing_cases,
            validate_only=validate_only,
            etag=etag,
        )
        return self._call(self.archives.SwitchArchive, request)

    def get_model(self, name: str) -> model_pb2.Model:
        """Return one model version."""
        request = model_service_pb2.GetModelRequest(name=name)
        return self._call(self.models.GetModel, request)

    def list_models(self) -> Sequence[model_pb2.Model]:
        """Return the model versions, the newest first."""
        request = model_service_pb2.ListModelsRequest(page_size=1000)
        return self._call(self.models.ListModels, request).models

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

    def _call(self, method: Callable[..., Response], request: Message) -> Response:
        with translated():
            return method(request, timeout=self._timeout)
