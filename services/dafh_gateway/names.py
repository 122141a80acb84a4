"""Resource names and plain fields of requests, read and checked (AIP-122)."""

from __future__ import annotations

import re

from dafh.errors import InvalidInput, Reason
from dafh.imaging.decode import REPRESENTATIVE
from dafh.index.case import DEFAULT_ARCHIVE, CaseId
from dafh.v1 import image_pb2

ARCHIVE_ID = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
ARCHIVE_NAME = re.compile(rf"archives/({ARCHIVE_ID.pattern})")
CASE_NAME = re.compile(ARCHIVE_NAME.pattern + r"/cases/([0-9a-f]{32})")
MODEL_NAME = re.compile(r"models/([0-9]{1,9})")

#: Pages of lists: where a caller does not say, and at most.
DEFAULT_PAGE, MOST_PAGE = 50, 1000
#: Bytes of a caller's own words about an image.
MOST_WORDS = 128


def archive_name(archive: str) -> str:
    """Return the public name of an archive."""
    return f"archives/{archive}"


def case_name(archive: str, case: CaseId) -> str:
    """Return the public name of a case."""
    return f"archives/{archive}/cases/{case}"


def parse_archive(name: str, field: str = "archive", *, default: bool = False) -> str:
    """Return the archive's id in a name.

    Parameters
    ----------
    default
        Whether no name is the default archive's.
    """
    if default and not name:
        return DEFAULT_ARCHIVE
    match = ARCHIVE_NAME.fullmatch(name)
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


def parse_frame(choice: image_pb2.FrameChoice, *, every: bool = False) -> int | None:
    """Return the frame number of a choice; ``None`` for every frame.

    Parameters
    ----------
    every
        Whether every frame may be asked for.
    """
    if choice.WhichOneof("choice") == "number":
        if choice.number < 1:
            raise InvalidInput(
                Reason.FRAME_OUT_OF_RANGE, "Frames count from 1.", subject="frame.number"
            )
        return choice.number
    if choice.rule not in image_pb2.FrameChoice.Rule.values():
        raise invalid("frame.rule", "There is no such rule.")
    if choice.rule == image_pb2.FrameChoice.RULE_ALL:
        if not every:
            raise invalid("frame.rule", "A query is one frame.")
        return None
    return REPRESENTATIVE


def parse_page_size(size: int) -> int:
    """Return the length of a page of a list."""
    if size < 0:
        raise invalid("page_size", "page_size is negative.")
    return min(size or DEFAULT_PAGE, MOST_PAGE)


def check_words(field: str, text: str) -> str:
    """Return a caller's own words about an image, which may not be long."""
    if len(text.encode()) > MOST_WORDS:
        raise invalid(field, f"{field} has more than {MOST_WORDS} bytes.")
    return text


def invalid(field: str, message: str) -> InvalidInput:
    """Return the error of a field that cannot be used."""
    return InvalidInput(Reason.ARGUMENT_INVALID, message, subject=field)


def _malformed(field: str, pattern: str) -> InvalidInput:
    return invalid(field, f"{field} is not of the form {pattern}.")
