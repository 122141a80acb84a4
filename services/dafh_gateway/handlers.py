"""The handlers of the contract's three services."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

import grpc

from dafh.codes import BITS, HashCode
from dafh.deadline import Deadline
from dafh.errors import FailedPrecondition, InvalidInput, NotFound, Reason, Unsupported
from dafh.imaging.image import Image
from dafh.ingest.ingest import Ingester, Item
from dafh.retrieval.retrieve import Answer, Options, Retriever, read
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
from dafh_gateway import messages
from dafh_gateway.backend import Backend
from dafh_gateway.statuses import not_served, status_of, stream, unary


class _Service:
    """What the services share: the backend and how a call's deadline is found."""

    def __init__(self, backend: Backend, default_deadline: float) -> None:
        self._backend = backend
        self._default_deadline = default_deadline

    def _deadline(self, context: grpc.ServicerContext) -> Deadline:
        # A client without a deadline has, to gRPC, one in the far future.
        remaining = context.time_remaining()
        return Deadline.after(min(remaining, self._default_deadline))


class RetrievalService(_Service, retrieval_service_pb2_grpc.RetrievalServiceServicer):
    """Queries."""

    @unary
    def Retrieve(
        self,
        request: retrieval_service_pb2.RetrieveRequest,
        context: grpc.ServicerContext,
    ) -> retrieval_service_pb2.RetrieveResponse:
        """Answer one query."""
        deadline = self._deadline(context)
        archive = messages.parse_archive(request.archive)
        options = messages.parse_options(request)
        retriever = self._backend.retriever(archive, deadline)
        query, source = request.query, request.query.WhichOneof("source")
        if source == "case":
            home, case = messages.parse_case(query.case, "query.case")
            if home != archive:
                raise NotFound(
                    Reason.CASE_NOT_FOUND, "The case belongs to another archive.", subject="query"
                )
            answer = retriever.by_case(case, options, deadline)
        elif source == "code":
            answer = self._by_code(retriever, query.code, options, deadline)
        else:
            data = query.dicom if source == "dicom" else query.picture
            frame = messages.parse_frame(query.frame)
            decode = partial(self._backend.decode, data, frame, deadline=deadline)
            answer = retriever.by_image(decode, options, deadline)
        return messages.answer_message(archive, answer, request.view)

    def _by_code(
        self,
        retriever: Retriever,
        query: retrieval_service_pb2.CodeQuery,
        options: Options,
        deadline: Deadline,
    ) -> Answer:
        model = self._backend.encoder.describe(deadline)
        if query.model_version != model.version:
            raise FailedPrecondition(
                Reason.MODEL_NOT_LOADED,
                f"The code is of model version {query.model_version}; "
                f"the archive is of {model.version}.",
                subject="query.code.model_version",
            )
        if query.bits not in BITS or len(query.code) * 8 != query.bits:
            raise InvalidInput(
                Reason.CODE_LENGTH_MISMATCH,
                f"{len(query.code)} bytes are not a code of {query.bits} bits.",
                subject="query.code.code",
            )
        output = None
        if query.hash_output:
            output = messages.hash_output_array(list(query.hash_output), query.bits)
        return retriever.by_code(HashCode(query.code), output, options, deadline)

    @unary
    def Encode(
        self, request: retrieval_service_pb2.EncodeRequest, context: grpc.ServicerContext
    ) -> retrieval_service_pb2.EncodeResponse:
        """Return the hash outputs of an image."""
        messages.refuse_not_yet(request)
        deadline = self._deadline(context)
        model = self._backend.encoder.describe(deadline)
        if request.model_version not in (0, model.version):
            raise FailedPrecondition(
                Reason.MODEL_NOT_LOADED,
                f"Model version {request.model_version} is not loaded.",
                subject="model_version",
            )
        data = request.dicom if request.WhichOneof("source") == "dicom" else request.picture
        frame = messages.parse_frame(request.frame)
        image = self._backend.decode(data, frame, model, deadline=deadline)
        encoded = self._backend.encoder.encode(image.pixels[None], deadline)
        reading = read(image, encoded, 0, model.bits[0], model)
        response = retrieval_service_pb2.EncodeResponse(
            model_version=model.version,
            model_hash=model.hash,
            ood_score=reading.ood_score,
            in_distribution=reading.in_distribution,
            frame=image.frame,
            applied=image.applied,
            warnings=image.warnings,
        )
        for bits in model.bits:
            output = encoded.hashes[bits][0]
            response.hashes.add(
                bits=bits, hash_output=output.tolist(), code=HashCode.of(output).packed
            )
        for label, probability, logit in reading.classes:
            response.classes.add(label=label, probability=probability, logit=logit)
        return response

    RetrieveUpload = not_served("RetrieveUpload")
    BatchRetrieve = not_served("BatchRetrieve")


class ArchiveService(_Service, archive_service_pb2_grpc.ArchiveServiceServicer):
    """What is in an archive."""

    def __init__(self, backend: Backend, default_deadline: float, idle_stream: float) -> None:
        super().__init__(backend, default_deadline)
        self._idle_stream = idle_stream

    @stream
    def IndexCases(
        self,
        requests: Iterator[archive_service_pb2.IndexCasesRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[archive_service_pb2.IndexCasesResponse]:
        """Store images as they arrive; one answer each, in their order."""
        parent: str | None = None
        for position, request in enumerate(self._while_busy(requests, context)):
            if parent is None:
                parent = request.parent
                archive = messages.parse_archive(parent, "parent")
                # What fails here concerns the archive, not the image: it ends the stream.
                ingester = self._backend.ingester(archive, self._deadline(context))
            elif request.parent not in ("", parent):
                raise InvalidInput(
                    Reason.ARGUMENT_INVALID, "parent changed within the stream.", subject="parent"
                )
            response = archive_service_pb2.IndexCasesResponse(
                request_id=request.request_id, position=position
            )
            try:
                stored = self._store(archive, ingester, request, self._deadline(context))
                response.indexed.cases.append(stored)
            except (InvalidInput, Unsupported) as error:
                response.error.CopyFrom(status_of(error))
            yield response

    def _while_busy(
        self,
        requests: Iterator[archive_service_pb2.IndexCasesRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[archive_service_pb2.IndexCasesRequest]:
        """Yield requests; end a stream that sends none for too long, since it holds a thread."""
        while True:
            idle = threading.Timer(self._idle_stream, context.cancel)
            idle.daemon = True
            idle.start()
            try:
                request = next(requests, None)
            finally:
                idle.cancel()
            if request is None:
                return
            yield request

    def _store(
        self,
        archive: str,
        ingester: Ingester,
        request: archive_service_pb2.IndexCasesRequest,
        deadline: Deadline,
    ) -> archive_service_pb2.IndexedCase:
        model = self._backend.encoder.describe(deadline)
        data = request.dicom if request.WhichOneof("source") == "dicom" else request.picture
        frame = messages.parse_frame(request.frame)
        image: Image = self._backend.decode(
            data, frame, model, content_hash=True, deadline=deadline
        )
        item = Item(image, request.label, request.cancer_type)
        (stored,) = ingester.ingest([item], deadline)
        return archive_service_pb2.IndexedCase(
            name=messages.case_name(archive, stored.case),
            frame=image.frame,
            outcome=messages.OUTCOMES[stored.outcome],
            warnings=image.warnings,
        )

    @unary
    def GetCase(
        self, request: archive_service_pb2.GetCaseRequest, context: grpc.ServicerContext
    ) -> case_pb2.Case:
        """Return one case."""
        messages.refuse_not_yet(request)
        deadline = self._deadline(context)
        archive, case = messages.parse_case(request.name)
        stored = self._backend.index(archive, deadline).get([case], deadline).get(case)
        if stored is None:
            raise NotFound(Reason.CASE_NOT_FOUND, "There is no such case.", subject="name")
        return messages.case_message(archive, stored, request.view)

    ListCases = not_served("ListCases")
    DeleteCases = not_served("DeleteCases")
    CreateArchive = not_served("CreateArchive")
    GetArchive = not_served("GetArchive")
    ListArchives = not_served("ListArchives")
    DeleteArchive = not_served("DeleteArchive")
    SwitchArchive = not_served("SwitchArchive")


class ModelService(_Service, model_service_pb2_grpc.ModelServiceServicer):
    """What encodes."""

    @unary
    def GetModel(
        self, request: model_service_pb2.GetModelRequest, context: grpc.ServicerContext
    ) -> model_pb2.Model:
        """Return one model version."""
        version = messages.parse_model(request.name)
        model = self._backend.encoder.describe(self._deadline(context))
        if version != model.version:
            raise NotFound(
                Reason.MODEL_NOT_FOUND, f"Model version {version} is not served.", subject="name"
            )
        return messages.model_message(model)

    ListModels = not_served("ListModels")
