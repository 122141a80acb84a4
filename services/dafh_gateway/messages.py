"""Our types to messages of the contract."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from dafh.encoding.port import Encoded, ModelVersion
from dafh.errors import Misconfigured, Reason
from dafh.index.archive import Archive
from dafh.index.case import Case, CodingKey
from dafh.index.port import Outcome
from dafh.retrieval.retrieve import Answer, Reading
from dafh.v1 import (
    archive_pb2,
    archive_service_pb2,
    case_pb2,
    model_pb2,
    retrieval_service_pb2,
)
from dafh_gateway.masks import Mask
from dafh_gateway.names import archive_name, case_name, invalid

OUTCOMES = {
    Outcome.ADDED: archive_service_pb2.IndexedCase.OUTCOME_ADDED,
    Outcome.UNCHANGED: archive_service_pb2.IndexedCase.OUTCOME_UNCHANGED,
    Outcome.METADATA_CONFLICT: archive_service_pb2.IndexedCase.OUTCOME_METADATA_CONFLICT,
    Outcome.PIXEL_CONFLICT: archive_service_pb2.IndexedCase.OUTCOME_PIXEL_CONFLICT,
}
#: What a template of `retrieve_uri` may hold.
PLACES = frozenset({"study", "series", "instance", "frame"})


class Addresses:
    """Where a viewer can fetch a frame.

    Parameters
    ----------
    template
        WADO-RS (PS3.18 10.4), with ``{study}``, ``{series}``, ``{instance}``, ``{frame}``; "" for
        none.

    Raises
    ------
    Misconfigured
        It has another place to fill.
    """

    def __init__(self, template: str) -> None:
        if set(re.findall(r"\{(.*?)\}", template)) - PLACES:
            raise Misconfigured(
                Reason.SETTING_INVALID,
                f"The template of retrieve_uri may hold {sorted(PLACES)} in braces only.",
                subject="retrieve_uri",
            )
        self._template = template

    def of(self, case: Case) -> str:
        """Return the address of a case; "" where it has none."""
        if not (case.study_instance_uid and case.series_instance_uid):
            return ""
        return self._template.format(
            study=case.study_instance_uid,
            series=case.series_instance_uid,
            instance=case.sop_instance_uid,
            frame=case.frame,
        )


def case_message(archive: str, case: Case, addresses: Addresses, *, full: bool) -> case_pb2.Case:
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
        retrieve_uri=addresses.of(case),
    )
    if full:
        message.create_time.CopyFrom(moment(case.ingest_time))
        message.content_sha256 = case.content_sha256
        message.code = case.code.packed
    return message


def is_full(
    view: case_pb2.CaseView.ValueType,
    mask: FieldMask,
    default: case_pb2.CaseView.ValueType = case_pb2.CASE_VIEW_BASIC,
) -> bool:
    """Say whether everything is to be answered before a mask is applied.

    Raises
    ------
    InvalidInput
        Both a view and a mask are given, or there is no such view.
    """
    if view not in case_pb2.CaseView.values():
        raise invalid("view", "There is no such view.")
    if mask.paths and view:
        raise invalid("read_mask", "view and read_mask are both given.")
    return bool(mask.paths) or (view or default) == case_pb2.CASE_VIEW_FULL


def answer_message(
    archive: str, answer: Answer, addresses: Addresses, mask: Mask, *, full: bool
) -> retrieval_service_pb2.RetrieveResponse:
    """Return an answer as callers see it, before a mask is applied."""
    query = answer.query
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
            case=case_message(archive, hit.case, addresses, full=full),
            distance=hit.distance,
            score=hit.score,
            probability=probability,
        )
    if answer.reading is not None:
        _describe(response.query, answer.reading)
    if full and mask.names("query.hash_output") and query.hash_output is not None:
        response.query.hash_output.extend(query.hash_output.tolist())
    return response


def _describe(facts: retrieval_service_pb2.QueryFacts, reading: Reading) -> None:
    facts.predicted_class.label = reading.predicted_class
    facts.predicted_class.probability = reading.class_probability
    facts.predicted_class.logit = reading.classes[0][2]
    facts.ood_score = reading.ood_score
    if reading.in_distribution is not None:
        facts.in_distribution = reading.in_distribution
    facts.frame = reading.image.frame
    facts.applied.extend(reading.image.applied)
    facts.warnings.extend(reading.image.warnings)


def encode_message(
    model: ModelVersion, reading: Reading, encoded: Encoded, drawing: bytes
) -> retrieval_service_pb2.EncodeResponse:
    """Return what a model says of an image as callers see it."""
    image = reading.image
    response = retrieval_service_pb2.EncodeResponse(
        model_version=model.version,
        model_hash=model.hash,
        ood_score=reading.ood_score,
        in_distribution=reading.in_distribution,
        frame=image.frame,
        applied=image.applied,
        warnings=image.warnings,
        explanation_png=drawing,
    )
    for bits in sorted(model.bits):
        output = encoded.hashes[bits][0]
        code = encoded.code(0, bits)
        response.hashes.add(bits=bits, hash_output=output.tolist(), code=code.packed)
    for label, probability, logit in reading.classes:
        response.classes.add(label=label, probability=probability, logit=logit)
    return response


def archive_message(
    archive: Archive, counts: Mapping[CodingKey, int], filling: Sequence[CodingKey]
) -> archive_pb2.Archive:
    """Return an archive as callers see it.

    Parameters
    ----------
    counts
        Cases in each coding.
    filling
        Codings that are not complete.
    """
    live = archive.live
    message = archive_pb2.Archive(
        name=archive_name(archive.name),
        bits=live.bits,
        model_version=live.model_version,
        etag=archive.etag,
    )
    if archive.created:
        message.create_time.CopyFrom(moment(archive.created))
    for one in archive.codings:
        key = one.coding.key
        state = archive_pb2.Coding.STATE_STANDBY
        if key == live.key:
            state = archive_pb2.Coding.STATE_LIVE
        elif key in filling:
            state = archive_pb2.Coding.STATE_FILLING
        coding = message.codings.add(
            model_version=one.coding.model_version,
            model_hash=one.coding.model_hash,
            bits=one.coding.bits,
            state=state,
            case_count=counts[key],
        )
        if one.created:
            coding.create_time.CopyFrom(moment(one.created))
    return message


def model_message(model: ModelVersion, *, loaded: bool, preferred: bool) -> model_pb2.Model:
    """Return a model version as callers see it."""
    boundary = model.calibration.out_of_distribution
    return model_pb2.Model(
        name=f"models/{model.version}",
        version=model.version,
        hash=model.hash,
        imaging_version=model.imaging_version,
        side=model.side,
        bits=sorted(model.bits),
        classes=model.classes,
        calibrated_bits=sorted(model.calibration.relevance),
        ood_threshold=boundary.threshold if boundary else None,
        state=model_pb2.Model.STATE_LOADED if loaded else model_pb2.Model.STATE_UNLOADED,
        preferred=preferred,
    )


def moment(microseconds: int) -> Timestamp:
    """Return a time of ours, microseconds since the epoch, as a message."""
    seconds, micros = divmod(microseconds, 1_000_000)
    return Timestamp(seconds=seconds, nanos=micros * 1000)


def hash_output_array(values: Sequence[float], bits: int) -> NDArray[np.float32]:
    """Return a caller's hash output, float32 ``[bits]``.

    Raises
    ------
    InvalidInput
        It has another length, or a value outside [-1, 1].
    """
    array = np.asarray(values, np.float32)
    if array.shape != (bits,) or not (np.abs(array) <= 1).all():
        raise invalid("query.code.hash_output", f"hash_output must hold {bits} values in [-1, 1].")
    return array
