"""From a question to an answer: the stages that a query goes through, each with its places."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from dafh.codes import BITS, HashCode
from dafh.encoding.port import Encoded, Encoder, ModelVersion
from dafh.errors import FailedPrecondition, InvalidInput, NotFound, Reason
from dafh.imaging.image import Image, PatientKey
from dafh.index.case import CaseId, Coding
from dafh.index.filters.parse import parse
from dafh.index.port import MAX_TOP_K, CaseIndex, Exclude, Position
from dafh.retrieval.explain import explanation
from dafh.retrieval.retrieve import DEFAULT_TOP_K, Answer, Options, Retriever
from dafh.v1 import retrieval_service_pb2
from dafh_gateway import messages
from dafh_gateway.admission import Stage
from dafh_gateway.backend import Backend
from dafh_gateway.call import Call
from dafh_gateway.line import Line
from dafh_gateway.masks import Mask
from dafh_gateway.names import invalid, parse_archive, parse_case, parse_frame
from dafh_gateway.observer import Observer
from dafh_gateway.pages import AnswerPage, PageTokens, fingerprint, wrong_token
from dafh_gateway.settings import GatewaySettings
from dafh_gateway.sharing import Shared

#: Fields of a question that may differ from page to page.
PAGING = ("query", "page_size", "page_token")


@dataclass(frozen=True, slots=True)
class Question:
    """A request, read."""

    archive: str
    request: retrieval_service_pb2.RetrieveRequest
    options: Options
    #: Length of this page, and of all that may still come with it.
    page: int
    left: int
    mask: Mask
    full: bool


class Asking:
    """Answers questions.

    Parameters
    ----------
    backend
        What it stands on.
    pages
        Makes page tokens.
    settings
        How much is done at once.
    observer
        Is told of what it sees.
    """

    def __init__(
        self,
        backend: Backend,
        pages: PageTokens,
        settings: GatewaySettings,
        observer: Observer,
    ) -> None:
        self._backend = backend
        self.observer = observer
        self._pages = pages
        self._addresses = messages.Addresses(settings.retrieve_uri)

        def stage(name: str, places: int) -> Stage:
            return Stage(name, Line(places, settings.max_waiting, settings.patience))

        self.queries = stage("a query", settings.max_queries)
        self.decoding = stage("decoding", settings.decode_workers)
        self.inference = stage("inference", settings.max_inferences)
        self.searching = stage("searching", settings.max_searches)
        self._encoded: Shared[tuple[Image, Encoded]] = Shared()

    def answer(
        self,
        request: retrieval_service_pb2.RetrieveRequest,
        call: Call,
        upload: bytes | None = None,
    ) -> retrieval_service_pb2.RetrieveResponse:
        """Answer one question.

        Parameters
        ----------
        upload
            The image, where it came apart from the question.
        """
        archive = call.archive = parse_archive(request.archive, default=True)
        page = self._read_page(request, call) if request.page_token else None
        question = self._question(archive, request, page)
        with self.queries.place(call.tenant, call.deadline, patient=call.patient):
            live = self._backend.archive(call.tenant, archive, call.deadline)
            index = live.index(call.deadline)
            encoder = self._backend.encoder_of(index.coding, call.deadline)
            drawing = b""
            if page is not None:
                answer = self._next(question, page, Retriever(encoder, index), index.coding, call)
            elif upload is not None or request.query.WhichOneof("source") in ("dicom", "picture"):
                data = upload if upload is not None else _image_bytes(request.query)
                answer, drawing = self._by_image(question, data, encoder, index, call)
            else:
                answer = self._by_reference(question, Retriever(encoder, index), index.coding, call)
        # One more than the page was asked for says whether another page follows.
        more = len(answer.found.hits) > question.page
        answer = _cut(answer, question.page)
        response = messages.answer_message(
            archive, answer, self._addresses, question.mask, full=question.full
        )
        response.explanation_png = drawing
        self._count(answer, first=page is None)
        if more:
            response.next_page_token = self._token(question, answer, index.coding, call, page)
        question.mask.apply(response)
        return response

    def encode(
        self, call: Call, data: bytes, frame: int, encoder: Encoder, *, saliency: bool
    ) -> tuple[Image, Encoded]:
        """Decode an image and run a model over it; the same asked twice at once is done once."""
        model = encoder.model
        key = (call.tenant, hashlib.sha256(data).digest(), frame, model.hash, saliency)

        def work() -> tuple[Image, Encoded]:
            image = self.decode(call, data, frame, model)
            with self.timed(self.inference, call):
                return image, encoder.encode(image.pixels[None], call.deadline, saliency=saliency)

        encoded, own = self._encoded.get(key, work, call.deadline)
        self.observer.metrics.shared.labels(str(not own).lower()).inc()
        return encoded

    def decode(
        self,
        call: Call,
        data: bytes,
        frame: int,
        model: ModelVersion,
        *,
        content_hash: bool = False,
    ) -> Image:
        """Turn a caller's bytes into a model's input; a case that is stored needs its hash."""
        with self.timed(self.decoding, call):
            return self._backend.decode(
                data,
                frame,
                model,
                tenant=call.tenant,
                content_hash=content_hash,
                deadline=call.deadline,
            )

    @contextmanager
    def timed(self, stage: Stage, call: Call) -> Iterator[None]:
        """Hold a place of a stage, and note how long it was held."""
        with (
            # Refused at the entrance or not at all: work that was begun is not thrown away.
            stage.place(call.tenant, call.deadline, patient=True),
            self.observer.traces.stage(stage.name),
        ):
            began = time.monotonic()
            try:
                yield
            finally:
                spent = time.monotonic() - began
                call.stages[stage.name] = call.stages.get(stage.name, 0.0) + spent

    def _count(self, answer: Answer, *, first: bool) -> None:
        metrics = self.observer.metrics
        if answer.reading is not None:
            known = answer.reading.in_distribution
            metrics.queries.labels("unknown" if known is None else str(known).lower()).inc()
        if first and answer.found.hits:
            metrics.distances.observe(answer.found.hits[0].distance / answer.code.bits)

    def _question(
        self,
        archive: str,
        request: retrieval_service_pb2.RetrieveRequest,
        page: AnswerPage | None,
    ) -> Question:
        mask = Mask(request.read_mask, retrieval_service_pb2.RetrieveResponse.DESCRIPTOR)
        full = messages.is_full(request.view, request.read_mask)
        total = _top_k(request.top_k)
        left = total if page is None else page.left
        if request.page_size < 0:
            raise invalid("page_size", "page_size is negative.")
        length = min(request.page_size or total, left)
        after = (
            None if page is None else Position(page.after[0], page.after[1], CaseId(page.after[2]))
        )
        options = Options(
            top_k=min(length + 1, left),
            max_distance=request.max_distance if request.HasField("max_distance") else None,
            include_same_patient=request.include_same_patient,
            filter=parse(request.filter),
            max_hits_per_patient=_cap("max_hits_per_patient", request.max_hits_per_patient),
            max_hits_per_series=_cap("max_hits_per_series", request.max_hits_per_series),
            after=after,
        )
        return Question(archive, request, options, length, left, mask, full)

    def _by_image(
        self, question: Question, data: bytes, encoder: Encoder, index: CaseIndex, call: Call
    ) -> tuple[Answer, bytes]:
        frame = parse_frame(question.request.query.frame)
        explain = question.request.explain
        image, encoded = self.encode(call, data, frame or 0, encoder, saliency=explain)
        with self.timed(self.searching, call):
            answer = Retriever(encoder, index).by_encoded(
                image, encoded, question.options, call.deadline
            )
        return answer, draw(image, encoded) if explain else b""

    def _by_reference(
        self, question: Question, retriever: Retriever, coding: Coding, call: Call
    ) -> Answer:
        """Answer for what is no image: a case or a code."""
        query = question.request.query
        if question.request.explain:
            raise invalid("explain", "Only what a model sees in an image can be explained.")
        if query.HasField("frame"):
            raise invalid("query.frame", "Only an image has frames.")
        if query.WhichOneof("source") == "case":
            home, case = parse_case(query.case, "query.case")
            if home != question.archive:
                raise NotFound(
                    Reason.CASE_NOT_FOUND,
                    "The case belongs to another archive.",
                    subject="query.case",
                )
            with self.timed(self.searching, call):
                return retriever.by_case(case, question.options, call.deadline)
        if query.WhichOneof("source") != "code":
            raise invalid("query", "The question has no query.")
        code = _checked_code(query.code, coding)
        output = None
        if query.code.hash_output:
            output = messages.hash_output_array(query.code.hash_output, code.bits)
        with self.timed(self.searching, call):
            return retriever.by_code(code, output, question.options, call.deadline)

    def _read_page(self, request: retrieval_service_pb2.RetrieveRequest, call: Call) -> AnswerPage:
        page = self._pages.read(
            AnswerPage, request.page_token, call.tenant, fingerprint(request, *PAGING)
        )
        if request.HasField("query") and fingerprint(request.query) != page.query:
            raise wrong_token("belongs to another query")
        return page

    def _next(
        self,
        question: Question,
        page: AnswerPage,
        retriever: Retriever,
        coding: Coding,
        call: Call,
    ) -> Answer:
        if page.coding != coding.key:
            raise wrong_token("belongs to a coding that is no longer the live one")
        output = None
        if page.hash_output:
            output = np.frombuffer(base64.b64decode(page.hash_output), np.float32)
        instance, study, patient = page.exclude
        exclude = Exclude(instance, study, PatientKey(patient))
        code = HashCode.from_hex(page.code)
        with self.timed(self.searching, call):
            return retriever.by_code(code, output, question.options, call.deadline, exclude)

    def _token(
        self,
        question: Question,
        answer: Answer,
        coding: Coding,
        call: Call,
        page: AnswerPage | None,
    ) -> str:
        query, end = answer.query, answer.found.hits[-1].position
        output = b"" if query.hash_output is None else query.hash_output.tobytes()
        asked = question.request
        named = fingerprint(asked.query) if asked.query.WhichOneof("source") else ""
        return self._pages.write(
            AnswerPage(
                tenant=call.tenant,
                request=fingerprint(asked, *PAGING),
                coding=coding.key,
                query=named if page is None else page.query,
                code=query.code.hex(),
                hash_output=base64.b64encode(output).decode(),
                exclude=(
                    query.exclude.sop_instance_uid,
                    query.exclude.study_instance_uid,
                    query.exclude.patient_key,
                ),
                after=(end.distance, end.score, end.id),
                left=question.left - len(answer.found.hits),
            )
        )


def draw(image: Image, encoded: Encoded) -> bytes:
    """Return the picture that explains an encoding.

    Raises
    ------
    FailedPrecondition
        The model gives no attention.
    """
    if encoded.saliency is None:
        raise FailedPrecondition(Reason.MODEL_NOT_LOADED, "The model does not say where it looked.")
    return explanation(image.pixels, encoded.saliency[0])


def require_size(data: bytes, most: int, field: str) -> bytes:
    """Return an image that is not too large for its method.

    Raises
    ------
    InvalidInput
        It is.
    """
    if len(data) > most:
        raise InvalidInput(
            Reason.TOO_LARGE,
            f"The image has {len(data)} bytes; at most {most} are taken here.",
            remedy="Send it with RetrieveUpload.",
            subject=field,
        )
    return data


def _image_bytes(query: retrieval_service_pb2.Query) -> bytes:
    return query.dicom if query.WhichOneof("source") == "dicom" else query.picture


def _top_k(asked: int) -> int:
    if not 0 <= asked <= MAX_TOP_K:
        raise invalid("top_k", f"top_k is {asked}; it must lie between 1 and {MAX_TOP_K}.")
    return asked or DEFAULT_TOP_K


def _cap(name: str, asked: int) -> int | None:
    if asked < 0:
        raise invalid(name, f"{name} is negative.")
    return asked or None


def _cut(answer: Answer, length: int) -> Answer:
    found = replace(answer.found, hits=answer.found.hits[:length])
    return replace(answer, found=found, probabilities=answer.probabilities[:length])


def _checked_code(query: retrieval_service_pb2.CodeQuery, coding: Coding) -> HashCode:
    if query.model_version != coding.model_version:
        raise FailedPrecondition(
            Reason.MODEL_NOT_LOADED,
            f"The code is of model version {query.model_version}; the archive's are of "
            f"{coding.model_version}.",
            subject="query.code.model_version",
        )
    if query.bits not in BITS or len(query.code) * 8 != query.bits or query.bits != coding.bits:
        raise InvalidInput(
            Reason.CODE_LENGTH_MISMATCH,
            f"A code of {len(query.code)} bytes for {query.bits} bits; the archive's codes have "
            f"{coding.bits} bits.",
            subject="query.code.code",
        )
    return HashCode(query.code)
