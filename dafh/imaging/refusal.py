"""The refusals of this package, each worded once; none carries a value of a text element."""

from __future__ import annotations

from dafh.errors import InvalidInput, Reason


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


def limit_exceeded(subject: str, limit: str, allowed: int, value: int) -> InvalidInput:
    """Return the error for a file beyond the named field of `Limits`."""
    return InvalidInput(
        Reason.LIMIT_EXCEEDED,
        f"{subject} exceeds the limit {limit}: {value} > {allowed}.",
        remedy="Send a smaller object, or have the operator raise the limit.",
        subject=subject,
    )


def undecodable(fault: str, subject: str = "(7FE0,0010)") -> InvalidInput:
    """Return the error for pixel data that no codec can turn into the image the header promises."""
    return InvalidInput(
        Reason.PIXELS_UNDECODABLE,
        f"The pixel data cannot be decoded: {fault}.",
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
