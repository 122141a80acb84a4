"""Messages of the contract to our types and back."""

from __future__ import annotations

import re

import numpy as np
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from dafh.encoding.port import ModelVersion
from dafh.errors import InvalidInput, Reason, Unsupported
from dafh.imaging.decode import REPRESENTATIVE
from dafh.index.case import DEFAULT_ARCHIVE, Case, CaseId
from dafh.index.port import Outcome
from dafh.retrieval.retrieve import DEFAULT_TOP_K, Answer, Options, Reading
from dafh.v1 import (
    archive_service_pb2,
    case_pb2,
    image_pb2,
    model_pb2,
    retrieval_service_pb2,
)

ARCHIVE_NAME = re.compile(r"archives/([a-z](?:[a-z0-9-]{0,61}[a-z0-9])?)")
CASE_NAME = re.compile(ARCHIVE_NAME.pattern + r"/cases/([0-9a-f]{32})")
MODEL_NAME = re.compile(r"models/([0-9]{1,9})")

#: Fields of the contract that this version refuses instead of ignoring.
NOT_YET = (
    "page_size",
    "page_token",
    "filter",
    "max_hits_per_patient",
    "max_hits_per_series",
    "explain",
    "read_mask",
)
OUTCOMES = {
    Outcome.ADDED: archive_service_pb2.IndexedCase.OUTCOME_ADDED,
    Outcome.UNCHANGED: archive_service_pb2.IndexedCase.OUTCOME_UNCHANGED,
    Outcome.METADATA_CONFLICT: archive_service_pb2.IndexedCase.OUTCOME_METADATA_CONFLICT,
    Outcome.PIXEL_CONFLICT: archive_service_pb2.IndexedCase.OUTCOME_PIXEL_CONFLICT,
}


def refuse_not_yet(request: Message) -> None:
    """Refuse a request that sets a field which is not served yet.

    Raises
    ------
    Unsupported
        It does.
    """
    for descriptor, _ in request.ListFields():
        if descriptor.name in NOT_YET:
            raise Unsupported(
                Reason.NOT_YET_IMPLEMENTED,
                f"The field {descriptor.name} is part of the contract but not served yet.",
                remedy="Leave it out.",
                subject=descriptor.name,
            )


def parse_archive(name: str, field: str = "archive") -> str:
    """Return the archive's id in a name; the default archive for an empty one."""
    match = ARCHIVE_NAME.fullmatch(name or f"archives/{DEFAULT_ARCHIVE}")
    if match is None:
        raise _malformed(field, "archives/{archive}")
    return match[1]


def parse_case(name: str, field: str = "name") -> tuple[str, CaseId]:
    """Return the archive's id and the case's in a case name."""
    match = CASE_NAME.fullmatch(name)
    if match is None:
        raise _malformed(field, "archives/{archive}/cases/{case}")
    return match[1], CaseId(match[2])


def parse_model(name: str) -> int:
    """Return the version in a model name."""
    match = MODEL_NAME.fullmatch(name)
    if match is None:
        raise _malformed("name", "models/{model}")
    return int(match[1])


def _malformed(field: str, pattern: str) -> InvalidInput:
    return InvalidInput(
        Reason.ARGUMENT_INVALID, f"{field} is not of the form {pattern}.", subject=field
    )


def parse_frame(choice: image_pb2.FrameChoice) -> int:
    """Return the frame number of a choice; the representative frame where none is made."""
    if choice.WhichOneof("choice") == "number":
        if choice.number < 1:
            raise InvalidInput(
                Reason.FRAME_OUT_OF_RANGE, "Frames count from 1.", subject="frame.number"
            )
        return choice.number
    if choice.rule == image_pb2.FrameChoice.RULE_ALL:
        raise Unsupported(
            Reason.NOT_YET_IMPLEMENTED,
            "Taking every frame of an instance is not served yet.",
            remedy="Send one request for each frame, with its number.",
            subject="frame.rule",
        )
    return REPRESENTATIVE


def parse_options(request: retrieval_service_pb2.RetrieveRequest) -> Options:
    """Return how a query wants to be answered."""
    refuse_not_yet(request)
    return Options(
        top_k=request.top_k or DEFAULT_TOP_K,
        max_distance=request.max_distance if request.HasField("max_distance") else None,
        include_same_patient=request.include_same_patient,
    )


def case_name(archive: str, case: CaseId) -> str:
    """Return the public name of a case."""
    return f"archives/{archive}/cases/{case}"


def case_message(archive: str, case: Case, view: case_pb2.CaseView.ValueType) -> case_pb2.Case:
    """Return a case as callers see it."""
    message = case_pb2.Case(
        name=case_name(archive, case.id),
        study_instance_uid=case.study_instance_uid,
        series_instance_uid=case.series_instance_uid,
        sop_instance_uid=case.sop_instance_uid,
        frame=case.frame,
        modality=case.modality,
        body_part=case.body_part,
        label=case.label,
        cancer_type=case.cancer_type,
    )
    if view == case_pb2.CASE_VIEW_FULL:
        seconds, micros = divmod(case.ingest_time, 1_000_000)
        message.create_time.CopyFrom(Timestamp(seconds=seconds, nanos=micros * 1000))
        message.content_sha256 = case.content_sha256
        message.code = case.code.packed
    return message


def answer_message(
    archive: str, answer: Answer, view: case_pb2.CaseView.ValueType
) -> retrieval_service_pb2.RetrieveResponse:
    """Return an answer as callers see it."""
    response = retrieval_service_pb2.RetrieveResponse(
        query=retrieval_service_pb2.QueryFacts(
            code=answer.code.packed,
            bits=answer.code.bits,
            model_version=answer.model.version,
            model_hash=answer.model.hash,
        ),
        ties_truncated=answer.found.ties_truncated,
        approximate=answer.found.approximate,
    )
    response.index_time.GetCurrentTime()
    for hit, probability in zip(answer.found.hits, answer.probabilities, strict=True):
        response.hits.add(
            case=case_message(archive, hit.case, view),
            distance=hit.distance,
            score=hit.score,
            probability=probability,
        )
    if answer.reading is not None:
        _describe(response.query, answer.reading)
    return response


def _describe(facts: retrieval_service_pb2.QueryFacts, reading: Reading) -> None:
    facts.hash_output.extend(reading.hash_output.tolist())
    facts.predicted_class.label = reading.predicted_class
    facts.predicted_class.probability = reading.class_probability
    facts.predicted_class.logit = reading.classes[0][2]
    facts.ood_score = reading.ood_score
    if reading.in_distribution is not None:
        facts.in_distribution = reading.in_distribution
    facts.frame = reading.image.frame
    facts.applied.extend(reading.image.applied)
    facts.warnings.extend(reading.image.warnings)


def model_message(model: ModelVersion) -> model_pb2.Model:
    """Return a served model version as callers see it."""
    boundary = model.calibration.out_of_distribution
    return model_pb2.Model(
        name=f"models/{model.version}",
        version=model.version,
        hash=model.hash,
        imaging_version=model.imaging_version,
        side=model.side,
        bits=model.bits,
        classes=model.classes,
        calibrated_bits=sorted(model.calibration.relevance),
        ood_threshold=boundary.threshold if boundary else None,
        state=model_pb2.Model.STATE_LOADED,
        preferred=True,
    )


def hash_output_array(
    values: list[float], bits: int
) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Return a caller's hash output, float32 ``[bits]``.

    Raises
    ------
    InvalidInput
        It has another length, or a value outside [-1, 1].
    """
    array = np.asarray(values, np.float32)
    if array.shape != (bits,) or not (np.abs(array) <= 1).all():
        raise InvalidInput(
            Reason.ARGUMENT_INVALID,
            f"hash_output must hold {bits} values in [-1, 1].",
            subject="query.code.hash_output",
        )
    return array
