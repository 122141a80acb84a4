"""What kind of file the first bytes promise, and which bytes are refused at once."""

from __future__ import annotations

from enum import StrEnum

from dafh.errors import InvalidInput, Reason
from dafh.imaging.limits import Policy

PREAMBLE = 128
MAGIC = b"DICM"

#: PS3.10 7.1 leaves the preamble to the application, so a DICOM file can also be a program: the
#: starts that some system would run or unpack.
EXECUTABLE_STARTS = {
    b"MZ": "Windows program",
    b"\x7fELF": "ELF program",
    b"\xfe\xed\xfa\xce": "Mach-O program",
    b"\xfe\xed\xfa\xcf": "Mach-O program",
    b"\xce\xfa\xed\xfe": "Mach-O program",
    b"\xcf\xfa\xed\xfe": "Mach-O program",
    # For several processors; the first is a Java class as well.
    b"\xca\xfe\xba\xbe": "Mach-O program",
    b"\xbe\xba\xfe\xca": "Mach-O program",
    b"\xca\xfe\xba\xbf": "Mach-O program",
    b"\xbf\xba\xfe\xca": "Mach-O program",
    b"#!": "script",
    b"PK": "archive",
}

#: First group of a data set sent without preamble: command, file meta information, identification.
FIRST_GROUPS = (0x0000, 0x0002, 0x0004, 0x0008)


class Kind(StrEnum):
    """A file format that is understood."""

    DICOM = "DICOM"
    PNG = "PNG"
    JPEG = "JPEG"


def sniff(data: bytes, policy: Policy) -> Kind:
    """Say what `data` is.

    Raises
    ------
    InvalidInput
        EMPTY_INPUT, TOO_LARGE, EXECUTABLE_PREAMBLE, or NOT_AN_IMAGE.
    """
    if not data:
        raise InvalidInput(Reason.EMPTY_INPUT, "The file is empty.", remedy="Send an image.")
    most = policy.limits.request_bytes
    if len(data) > most:
        raise InvalidInput(
            Reason.TOO_LARGE,
            f"The file exceeds the limit request_bytes: {len(data)} > {most}.",
            remedy="Send a single image, or have the operator raise the limit.",
            subject="request_bytes",
        )
    for start, what in EXECUTABLE_STARTS.items():
        if data.startswith(start) and not policy.allow_executable_preamble:
            raise InvalidInput(
                Reason.EXECUTABLE_PREAMBLE,
                f"The file starts like a {what}.",
                remedy="Clear the 128 bytes before 'DICM' if this is a DICOM file (PS3.10 7.1).",
                subject="preamble",
            )
    # A preamble may make a DICOM file a picture as well, for programs that know no DICOM.
    if data[PREAMBLE : PREAMBLE + 4] == MAGIC:
        return Kind.DICOM
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return Kind.PNG
    if data.startswith(b"\xff\xd8\xff"):
        return Kind.JPEG
    if _looks_like_data_set(data):
        return Kind.DICOM
    raise InvalidInput(
        Reason.NOT_AN_IMAGE,
        "The file is neither DICOM, PNG nor JPEG.",
        remedy="Send a DICOM Part 10 file, or a PNG or JPEG image.",
    )


def _looks_like_data_set(data: bytes) -> bool:
    """Say whether the first eight bytes can be the header of a data set's first element."""
    if len(data) < 8 or not any(data[:8]):
        return False
    if data[4:6].isalpha() and data[4:6].isupper():
        groups = (int.from_bytes(data[:2], "little"), int.from_bytes(data[:2], "big"))
        return any(group in FIRST_GROUPS for group in groups)
    # Implicit VR: a first value is short.
    group, element = int.from_bytes(data[:2], "little"), int.from_bytes(data[2:4], "little")
    length = int.from_bytes(data[4:8], "little")
    return group in FIRST_GROUPS and length <= 1024 and element <= 0x1500
