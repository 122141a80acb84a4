"""`RetrievalService`: questions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

from dafh.errors import DafhError, InvalidInput, Reason
from dafh.retrieval.retrieve import read
from dafh.v1 import retrieval_service_pb2
from dafh_gateway import messages
from dafh_gateway.admission import Memory
from dafh_gateway.asking import Asking, draw, require_size
from dafh_gateway.backend import Backend
from dafh_gateway.call import Call, Incoming
from dafh_gateway.names import invalid, parse_frame
from dafh_gateway.settings import GatewaySettings
from dafh_gateway.statuses import status_of
from dafh_gateway.uploads import read_chunks, read_header

#: Most questions of a batch.
MOST_QUESTIONS = 64


class RetrievalService:
    """Answers questions."""

    def __init__(
        self, backend: Backend, asking: Asking, memory: Memory, settings: GatewaySettings
    ) -> None:
        self._backend = backend
        self._asking = asking
        self._memory = memory
        self._settings = settings
        # As many questions of batches are worked on at once as of anybody.
        self._batches = ThreadPoolExecutor(settings.max_queries, thread_name_prefix="batch")

    def Retrieve(
        self, request: retrieval_service_pb2.RetrieveRequest, call: Call
    ) -> retrieval_service_pb2.RetrieveResponse:
        """Answer one question."""
        self._require_size(request.query, "query")
        response = self._asking.answer(request, call)
        call.count = len(response.hits)
        return response

    def RetrieveUpload(
        self, requests: Incoming[retrieval_service_pb2.RetrieveUploadRequest], call: Call
    ) -> retrieval_service_pb2.RetrieveUploadResponse:
        """Answer a question whose image comes in chunks."""
        with requests.held() as first:
            header = read_header(first, self._settings.max_upload_bytes)
        if header.request.page_token:
            raise invalid("header.request.page_token", "Ask for further pages with Retrieve.")
        # What has come, and beside it the chunk that comes or, for a moment, the whole.
        beside = max(header.size_bytes, self._settings.max_message)
        with self._memory.room(header.size_bytes + beside, call.deadline) as room:
            data = read_chunks(requests.inside(), header)
            room.shrink(len(data))
            response = self._asking.answer(header.request, call, data)
        call.count = len(response.hits)
        return retrieval_service_pb2.RetrieveUploadResponse(response=response)

    def BatchRetrieve(
        self, request: retrieval_service_pb2.BatchRetrieveRequest, call: Call
    ) -> retrieval_service_pb2.BatchRetrieveResponse:
        """Answer several questions, each with its own status."""
        if not 1 <= len(request.requests) <= MOST_QUESTIONS:
            raise invalid("requests", f"A batch has 1 to {MOST_QUESTIONS} questions.")
        total = sum(_size(one.query) for one in request.requests)
        if total > self._settings.max_batch_bytes:
            raise InvalidInput(
                Reason.TOO_LARGE,
                f"The images of the batch have {total} bytes together; at most "
                f"{self._settings.max_batch_bytes} are taken.",
                remedy="Send them in several batches.",
                subject="requests",
            )
        self._asking.observer.metrics.batches.labels(call.name).observe(len(request.requests))
        context = copy_context()
        # The batch was let in: its questions wait for each other.
        call.patient = True
        results = list(
            self._batches.map(
                lambda one: context.copy().run(self._result, one, call), request.requests
            )
        )
        call.count = sum(len(one.response.hits) for one in results)
        return retrieval_service_pb2.BatchRetrieveResponse(results=results)

    def Encode(
        self, request: retrieval_service_pb2.EncodeRequest, call: Call
    ) -> retrieval_service_pb2.EncodeResponse:
        """Return the hash outputs and codes of an image."""
        source = request.WhichOneof("source")
        if source is None:
            raise InvalidInput(Reason.EMPTY_INPUT, "The request has no image.", subject="source")
        data = request.dicom if source == "dicom" else request.picture
        require_size(data, self._settings.limits.request_bytes, source)
        frame = parse_frame(request.frame) or 0
        if request.model_version < 0:
            raise invalid("model_version", "model_version is negative.")
        asking = self._asking
        with asking.queries.place(call.tenant, call.deadline):
            version = request.model_version or self._backend.preferred
            encoder = self._backend.encoder(version, call.deadline)
            model = encoder.model
            image, encoded = asking.encode(call, data, frame, encoder, saliency=request.explain)
        reading = read(image, encoded, 0, model.bits[0], model)
        drawing = draw(image, encoded) if request.explain else b""
        return messages.encode_message(model, reading, encoded, drawing)

    def close(self) -> None:
        """Let go of the threads."""
        self._batches.shutdown(wait=False, cancel_futures=True)

    def _result(
        self, request: retrieval_service_pb2.RetrieveRequest, call: Call
    ) -> retrieval_service_pb2.BatchRetrieveResult:
        try:
            self._require_size(request.query, "query")
            response = self._asking.answer(request, call)
        except DafhError as error:
            return retrieval_service_pb2.BatchRetrieveResult(error=status_of(error))
        return retrieval_service_pb2.BatchRetrieveResult(response=response)

    def _require_size(self, query: retrieval_service_pb2.Query, field: str) -> None:
        source = query.WhichOneof("source")
        if source in ("dicom", "picture"):
            data = query.dicom if source == "dicom" else query.picture
            require_size(data, self._settings.limits.request_bytes, f"{field}.{source}")


def _size(query: retrieval_service_pb2.Query) -> int:
    return len(query.dicom) + len(query.picture)
