"""The refusals of this package, each worded once; none carries a value of a text element."""

from __future__ import annotations

from dafh.errors import InvalidInput, Reason
from dafh.imaging.limits import Limits


def tag_name(tag: int) -> str:
    """Return a tag as the standard writes it.

    Examples
    --------
    >>> tag_name(0x7FE00010)
    '(7FE0,0010)'
    """
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def malformed(tag: int, fault: str) -> InvalidInput:
    """Return the error for an element that breaks the encoding rules (DICOM PS3.5)."""
    subject = tag_name(tag)
    return InvalidInput(
        Reason.DICOM_MALFORMED,
        f"The DICOM data set is malformed at {subject}: {fault}.",
        remedy="Send the complete file as it was first stored.",
        subject=subject,
    )


def limit_exceeded(tag: int, what: str, limit: str, allowed: int, value: int) -> InvalidInput:
    """Return the error for a file beyond the named field of `Limits`, noticed at an element."""
    subject = tag_name(tag)
    named = what if subject in what else f"{what} at {subject}"
    return InvalidInput(
        Reason.LIMIT_EXCEEDED,
        f"{named} exceeds the limit {limit}: {value} > {allowed}.",
        remedy="Send a smaller object, or have the operator raise the limit.",
        subject=subject,
    )


def memory_exceeded(limits: Limits) -> InvalidInput:
    """Return the error for a file that no memory is left for."""
    return InvalidInput(
        Reason.LIMIT_EXCEEDED,
        f"Decoding the file exceeds the limit memory_bytes: > {limits.memory_bytes}.",
        remedy="Send a smaller object, or have the operator raise the limit.",
        subject="memory_bytes",
    )


def undecodable(fault: str, subject: str = "(7FE0,0010)") -> InvalidInput:
    """Return the error for pixel data that no codec can turn into the image the header promises."""
    return InvalidInput(
        Reason.PIXELS_UNDECODABLE,
        f"The pixel data {subject} cannot be decoded: {fault}.",
        remedy="Send the complete file; if it is, export it again in another transfer syntax.",
        subject=subject,
    )


def photometric_unsupported(fault: str) -> InvalidInput:
    """Return the error for a colour model that is not understood."""
    return InvalidInput(
        Reason.PHOTOMETRIC_UNSUPPORTED,
        f"Photometric Interpretation (0028,0004) {fault}.",
        remedy="Export the image as MONOCHROME2 or RGB.",
        subject="(0028,0004)",
    )
