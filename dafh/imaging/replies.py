"""What a worker says, checked: it has read a stranger's bytes and may no longer be our own.

A reply that breaks a rule of this page is not looked at any further.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, cast

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
)

from dafh.errors import InvalidInput, Reason
from dafh.imaging.image import Image, Metadata
from dafh.imaging.metadata import ALLOWED

#: Bytes of a reply's JSON.
MOST_TEXT = 2**16

#: Fields of `Metadata` that are numbers; the others are texts.
NUMBERS = frozenset(field.name for field in fields(Metadata) if field.type == "int")

#: What a worker may refuse a file for; what comes before parsing is refused by the pool itself.
REFUSALS = frozenset(
    {
        Reason.ARGUMENT_INVALID,
        Reason.BURNED_IN_ANNOTATION,
        Reason.DICOM_MALFORMED,
        Reason.FRAME_OUT_OF_RANGE,
        Reason.LIMIT_EXCEEDED,
        Reason.NO_PIXELS,
        Reason.PHOTOMETRIC_UNSUPPORTED,
        Reason.PIXELS_UNDECODABLE,
        Reason.TRANSFER_SYNTAX_UNSUPPORTED,
        Reason.UID_INVALID,
    }
)


def _only_allowed(told: dict[str, str | int]) -> dict[str, str | int]:
    """Hold metadata against the same allow-list that the worker has made it by."""
    if told.keys() != ALLOWED.keys():
        raise ValueError("other fields than those of the allow-list")
    for name, value in told.items():
        if isinstance(value, int) != (name in NUMBERS):
            raise ValueError("another type")
        if value and not ALLOWED[name].accept(str(value)):
            raise ValueError("not what may leave")
    return told


def _is_refusal(reason: str) -> Reason:
    if reason not in REFUSALS:
        raise ValueError("no reason of a refusal")
    return Reason(reason)


Digest = Annotated[str, StringConstraints(pattern="^([0-9a-f]{64})?$")]
#: Printable, and short.
Words = Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\p{C}]*$")]
Size = Annotated[int, Field(ge=1, lt=2**31)]


class _Checked(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class _Image(_Checked):
    """The fields of `Image` but for the pixels."""

    frame: Size
    content_sha256: Digest
    metadata: Annotated[
        dict[str, Annotated[int, Field(ge=0, lt=2**31)] | Annotated[str, Field(max_length=64)]],
        AfterValidator(_only_allowed),
    ]
    applied: Annotated[list[Words], Field(max_length=100)]
    warnings: Annotated[list[Words], Field(max_length=1000)]


class _Refusal(_Checked):
    reason: Annotated[str, AfterValidator(_is_refusal)]
    message: Words
    remedy: Words
    subject: Words


def read_image(text: bytes, pixels: bytearray, side: int) -> Image:
    """Return the image of a reply.

    Parameters
    ----------
    text
        JSON: the fields of `Image` but for the pixels.
    pixels
        ``side * side`` grey levels.
    side
        Side of the model input.

    Raises
    ------
    ValueError
        The reply breaks a rule.
    """
    told = _Image.model_validate_json(text)
    return Image(
        pixels=np.frombuffer(pixels, np.uint8).reshape(1, side, side),
        frame=told.frame,
        content_sha256=told.content_sha256,
        metadata=Metadata(**cast("dict[str, Any]", told.metadata)),
        applied=tuple(told.applied),
        warnings=tuple(told.warnings),
    )


def read_refusal(text: bytes) -> InvalidInput:
    """Return the refusal of a reply.

    Raises
    ------
    ValueError
        The reply breaks a rule.
    """
    told = _Refusal.model_validate_json(text)
    return InvalidInput(Reason(told.reason), told.message, remedy=told.remedy, subject=told.subject)


def read_defect(text: bytes) -> str:
    """Return where in our own code a worker failed.

    Raises
    ------
    ValueError
        The reply breaks a rule.
    """
    return _PLACE.validate_json(text)


_PLACE: TypeAdapter[str] = TypeAdapter(
    Annotated[
        str, StringConstraints(max_length=200, pattern=r"^[A-Za-z]+ in [A-Za-z0-9_.<>]+:[0-9]+$")
    ]
)
