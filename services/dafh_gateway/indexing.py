"""A stream of `IndexCases`: some images in hand at once, and no more read while they are.

The stream's own thread hands results out, another one reads. So a caller who waits for each result
before it sends on, and one who sends without pause, are both served.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import TypeAlias

from dafh.deadline import CallDeadline
from dafh.encoding.port import ModelVersion
from dafh.errors import (
    DeadlineExceeded,
    Internal,
    InvalidInput,
    Overloaded,
    Reason,
    Unavailable,
)
from dafh.imaging.image import Image
from dafh.index.live import LiveArchive
from dafh.ingest.ingest import Ingested, Ingester, Item
from dafh.v1 import archive_service_pb2
from dafh_gateway import messages
from dafh_gateway.asking import Asking, require_size
from dafh_gateway.backend import Backend
from dafh_gateway.call import Call, Incoming
from dafh_gateway.names import case_name, check_words, invalid, parse_archive, parse_frame
from dafh_gateway.settings import GatewaySettings
from dafh_gateway.statuses import status_of

#: Images of one stream that are worked on at once.
WINDOW = 4
#: Frames of one object that become cases together, and at most.
BATCH, MOST_FRAMES = 64, 4096

#: Errors of one image; all others end the stream.
OF_ONE_IMAGE = (InvalidInput, Unavailable, Overloaded, Internal)

#: What the reading side leaves for the stream, in order of the images: a result that is being made,
#: the error that ends the stream, or its end.
Left: TypeAlias = Future[archive_service_pb2.IndexCasesResponse] | BaseException | None


class IndexStream:
    """Serves one stream.

    Parameters
    ----------
    backend, asking
        Where images are decoded, encoded and stored.
    settings
        Of the gateway.
    call
        The stream.
    """

    def __init__(
        self, backend: Backend, asking: Asking, settings: GatewaySettings, call: Call
    ) -> None:
        self._backend = backend
        self._asking = asking
        self._settings = settings
        self._call = call
        self._left: SimpleQueue[Left] = SimpleQueue()
        #: Images that may still be read before a result is handed out.
        self._window = threading.Semaphore(WINDOW)

    def run(
        self, requests: Incoming[archive_service_pb2.IndexCasesRequest]
    ) -> Iterator[archive_service_pb2.IndexCasesResponse]:
        """Yield one result for each image, in their order.

        Raises
        ------
        DafhError
            What ends the stream; DEADLINE_EXCEEDED where no image comes for too long.
        """
        threads = ThreadPoolExecutor(WINDOW + 1, thread_name_prefix="index")
        try:
            threads.submit(copy_context().run, self._read, requests, threads)
            while (left := self._next()) is not None:
                if isinstance(left, BaseException):
                    raise left
                response = left.result()
                self._call.count += response.WhichOneof("result") == "indexed"
                yield response
                self._window.release()
        finally:
            # What is in hand need not be finished: nothing was said of it, so it is sent again.
            self._call.deadline.give_up()
            self._window.release(WINDOW)
            threads.shutdown(wait=False, cancel_futures=True)

    def _next(self) -> Left:
        try:
            return self._left.get(timeout=self._settings.idle_stream)
        except Empty:
            raise DeadlineExceeded(
                Reason.DEADLINE_EXCEEDED,
                f"No image came for {self._settings.idle_stream:g} s.",
                remedy="Open a stream when there is something to send.",
            ) from None

    def _read(
        self,
        requests: Incoming[archive_service_pb2.IndexCasesRequest],
        threads: ThreadPoolExecutor,
    ) -> None:
        """Read images and have them worked on, until there are no more."""
        try:
            self._read_all(requests, threads)
            self._left.put(None)
        except Exception as error:  # noqa: BLE001 - the stream's own thread raises it again
            self._left.put(error)

    def _read_all(
        self,
        requests: Incoming[archive_service_pb2.IndexCasesRequest],
        threads: ThreadPoolExecutor,
    ) -> None:
        archive: LiveArchive | None = None
        parent, position = "", 0
        while True:
            self._window.acquire()
            request, room = requests.take()
            if request is None:
                return
            try:
                if archive is None:
                    parent = request.parent
                    archive = self._open(parent)
                elif request.parent not in ("", parent):
                    raise invalid("parent", "parent changed within the stream.")
                work = threads.submit(copy_context().run, self._work, archive, request, position)
            except BaseException:
                room.shrink(0)
                raise
            work.add_done_callback(lambda _, room=room: room.shrink(0))  # type: ignore[misc]  # mypy cannot infer such a lambda
            self._left.put(work)
            position += 1

    def _open(self, parent: str) -> LiveArchive:
        self._call.archive = parse_archive(parent, "parent")
        return self._backend.archive_to_fill(self._call.tenant, self._call.archive, self._soon())

    def _soon(self) -> CallDeadline:
        """Return the deadline of one image."""
        return self._call.deadline.within(self._settings.default_deadline)

    def _work(
        self,
        archive: LiveArchive,
        request: archive_service_pb2.IndexCasesRequest,
        position: int,
    ) -> archive_service_pb2.IndexCasesResponse:
        response = archive_service_pb2.IndexCasesResponse(position=position)
        try:
            response.request_id = check_words("request_id", request.request_id)
            cases = self._store(archive, request, self._soon())
            response.indexed.cases.extend(cases)
        except OF_ONE_IMAGE as error:
            response.error.CopyFrom(status_of(error))
        return response

    def _store(
        self,
        archive: LiveArchive,
        request: archive_service_pb2.IndexCasesRequest,
        deadline: CallDeadline,
    ) -> list[archive_service_pb2.IndexedCase]:
        call = replace(self._call, deadline=deadline)
        source = request.WhichOneof("source")
        if source is None:
            raise InvalidInput(Reason.EMPTY_INPUT, "The message has no image.", subject="source")
        data = request.dicom if source == "dicom" else request.picture
        require_size(data, self._settings.max_indexed_bytes, source)
        label = check_words("label", request.label)
        cancer_type = check_words("cancer_type", request.cancer_type)
        frame = parse_frame(request.frame, every=True)
        live = archive.archive(deadline).live
        model = self._backend.encoder_of(live, deadline).model
        if frame is None:
            images = self._every(call, data, model)
        else:
            images = [self._asking.decode(call, data, frame, model, content_hash=True)]
        items = [Item(image, label, cancer_type) for image in images]
        ingester = Ingester(self._backend.encoder_of, archive)
        stored: list[Ingested] = []
        for start in range(0, len(items), BATCH):
            with self._asking.timed(self._asking.inference, call):
                stored += ingester.ingest(items[start : start + BATCH], deadline)
        metrics = self._asking.observer.metrics
        metrics.batches.labels(call.name).observe(len(items))
        for one in stored:
            metrics.stored.labels(one.outcome.value).inc()
        return [
            archive_service_pb2.IndexedCase(
                name=case_name(self._call.archive, one.case),
                frame=image.frame,
                outcome=messages.OUTCOMES[one.outcome],
                warnings=image.warnings,
            )
            for one, image in zip(stored, images, strict=True)
        ]

    def _every(self, call: Call, data: bytes, model: ModelVersion) -> list[Image]:
        """Decode every frame before the first is stored: of a bad object nothing is."""
        images: list[Image] = []
        with self._asking.timed(self._asking.decoding, call):
            frames = self._backend.decode_all(call.tenant, data, model, call.deadline)
            for image in frames:
                if image.metadata.frames > MOST_FRAMES:
                    raise InvalidInput(
                        Reason.LIMIT_EXCEEDED,
                        f"The object has {image.metadata.frames} frames; all of at most "
                        f"{MOST_FRAMES} are indexed at once.",
                        remedy="Index single frames of it, by number.",
                        subject="frame.rule",
                    )
                images.append(image)
        return images
