"""Errors of ours to ``google.rpc.Status`` (AIP-193), and the tables that docs/errors.md is of."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from dafh import errors
from dafh.errors import DafhError, Internal, InvalidInput, Reason

DOMAIN = "dafh"
#: What to tell a caller to wait where waiting helps, seconds.
RETRY_AFTER = 1
#: The trailer by which gRPC's own retries are told to wait, milliseconds (gRFC A6).
PUSHBACK = "grpc-retry-pushback-ms"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a class of errors becomes."""

    code: grpc.StatusCode
    #: Who must act, in a sentence.
    who: str


#: What a caller cannot change is one thing to the caller, a wrong set-up or a defect.
_OURS = "An operator: the service is set up wrongly or has a defect; its log names the place."
CODES: dict[type[DafhError], Kind] = {
    errors.InvalidInput: Kind(
        grpc.StatusCode.INVALID_ARGUMENT, "The caller: the same call never works."
    ),
    errors.Unauthenticated: Kind(
        grpc.StatusCode.UNAUTHENTICATED, "The caller: it must prove who it is."
    ),
    errors.Denied: Kind(
        grpc.StatusCode.PERMISSION_DENIED, "An administrator: the caller lacks a role."
    ),
    errors.NotFound: Kind(grpc.StatusCode.NOT_FOUND, "The caller: it names what it does not have."),
    errors.Conflict: Kind(
        grpc.StatusCode.ALREADY_EXISTS, "The caller: it contradicts what is stored."
    ),
    errors.Outdated: Kind(
        grpc.StatusCode.ABORTED, "The caller: look again, then repeat if it is still wanted."
    ),
    errors.FailedPrecondition: Kind(
        grpc.StatusCode.FAILED_PRECONDITION, "An operator: the system is not in the needed state."
    ),
    errors.Unsupported: Kind(
        grpc.StatusCode.UNIMPLEMENTED, "The caller: it speaks another version of the contract."
    ),
    errors.Overloaded: Kind(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "The caller: repeat it after the delay in `RetryInfo`."
    ),
    errors.Unavailable: Kind(
        grpc.StatusCode.UNAVAILABLE, "The caller: repeat it after the delay in `RetryInfo`."
    ),
    errors.DeadlineExceeded: Kind(
        grpc.StatusCode.DEADLINE_EXCEEDED, "The caller: repeat it, with more time if need be."
    ),
    errors.Misconfigured: Kind(grpc.StatusCode.INTERNAL, _OURS),
    errors.Internal: Kind(grpc.StatusCode.INTERNAL, _OURS),
}

#: Every reason that a caller can be given, and what it means.
REASONS: dict[Reason, str] = {
    Reason.EMPTY_INPUT: "No image was sent.",
    Reason.TOO_LARGE: "The image, or all images of a batch together, are over the limit in bytes.",
    Reason.EXECUTABLE_PREAMBLE: "The file begins like a program or an archive.",
    Reason.NOT_AN_IMAGE: "The bytes are neither DICOM nor PNG nor JPEG.",
    Reason.DICOM_MALFORMED: "The DICOM object breaks the standard; the message names the element.",
    Reason.NO_PIXELS: "The DICOM object has no pixel data.",
    Reason.LIMIT_EXCEEDED: "The image is beyond a limit; the message names the limit.",
    Reason.TRANSFER_SYNTAX_UNSUPPORTED: "The transfer syntax is not decoded.",
    Reason.PHOTOMETRIC_UNSUPPORTED: "The photometric interpretation is not decoded.",
    Reason.PIXELS_UNDECODABLE: "The pixel data cannot be decoded.",
    Reason.DECODER_CRASHED: "The image ended its decoder; other calls do not notice.",
    Reason.DECODE_TIMEOUT: "The image took its decoder too long.",
    Reason.BURNED_IN_ANNOTATION: "The object says that text is burned into its pixels, and the "
    "operator has such images refused.",
    Reason.FRAME_OUT_OF_RANGE: "The image has no such frame.",
    Reason.UID_INVALID: "A UID is missing or malformed.",
    Reason.ARGUMENT_INVALID: "A field of the request cannot be used; `BadRequest` names it.",
    Reason.UNAUTHENTICATED: "The caller did not prove who it is.",
    Reason.PERMISSION_DENIED: "The caller's roles do not allow this method.",
    Reason.ARCHIVE_NOT_FOUND: "The tenant has no such archive.",
    Reason.ARCHIVE_EXISTS: "There is an archive of this name with other bits or another model.",
    Reason.ARCHIVE_NOT_EMPTY: "The archive holds cases, and `force` is not set.",
    Reason.ARCHIVE_CHANGED: "The archive is no longer the one that `etag` tells.",
    Reason.CODING_NOT_FOUND: "The archive has no coding of that model.",
    Reason.CODING_INCOMPLETE: "The coding lacks cases of the live one, or is being filled.",
    Reason.CASE_NOT_FOUND: "The archive has no such case.",
    Reason.MODEL_NOT_FOUND: "There is no such version of the model.",
    Reason.MODEL_NOT_LOADED: "The version of the model that is needed is not served.",
    Reason.PATIENT_KEY_MISMATCH: "The archive was made with another patient key.",
    Reason.CODE_LENGTH_MISMATCH: "The code is not as long as the archive's.",
    Reason.ENCODER_UNAVAILABLE: "The model server does not answer.",
    Reason.INDEX_UNAVAILABLE: "The index does not answer, or does not let the service in.",
    Reason.INDEX_INCAPABLE: "The index server cannot do what is asked.",
    Reason.OVERLOADED: "The service is full.",
    Reason.DEADLINE_EXCEEDED: "The call's time ran out.",
    Reason.ENCODER_WRONG: "The model server said what cannot be right.",
    Reason.INDEX_WRONG: "The index contradicts itself.",
    Reason.INTERNAL: "The service has a defect.",
}


def status_of(error: DafhError) -> status_pb2.Status:
    """Return the status that a caller sees for an error.

    A reason that is no caller's business becomes INTERNAL, without the message.
    """
    if error.reason not in REASONS:
        error = defect()
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
    status = status_pb2.Status(code=CODES[type(error)].code.value[0], message=str(error))
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def pushback_of(status: status_pb2.Status) -> tuple[tuple[str, str], ...]:
    """Return the trailers by which gRPC's own retries wait as long as a `RetryInfo` says."""
    retry = error_details_pb2.RetryInfo()
    if not any(detail.Unpack(retry) for detail in status.details):
        return ()
    return ((PUSHBACK, str(retry.retry_delay.ToMilliseconds())),)


def defect() -> Internal:
    """Return the error of a fault of our own, of which a caller learns nothing."""
    return Internal(Reason.INTERNAL, "The gateway failed; its log names the place.")
