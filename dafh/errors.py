"""Every error that crosses a package border: its class says who must act, its reason what happened.

Messages never carry patient identity or key material. File paths of this machine are in those of
`Misconfigured` only, which goes to whoever starts a program and not out to callers.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class Reason(StrEnum):
    """Stable names of what can go wrong; part of the public contract, never renamed."""

    # The image.
    EMPTY_INPUT = "EMPTY_INPUT"
    TOO_LARGE = "TOO_LARGE"
    EXECUTABLE_PREAMBLE = "EXECUTABLE_PREAMBLE"
    NOT_AN_IMAGE = "NOT_AN_IMAGE"
    DICOM_MALFORMED = "DICOM_MALFORMED"
    NO_PIXELS = "NO_PIXELS"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    TRANSFER_SYNTAX_UNSUPPORTED = "TRANSFER_SYNTAX_UNSUPPORTED"
    PHOTOMETRIC_UNSUPPORTED = "PHOTOMETRIC_UNSUPPORTED"
    PIXELS_UNDECODABLE = "PIXELS_UNDECODABLE"
    DECODER_CRASHED = "DECODER_CRASHED"
    DECODE_TIMEOUT = "DECODE_TIMEOUT"
    BURNED_IN_ANNOTATION = "BURNED_IN_ANNOTATION"
    FRAME_OUT_OF_RANGE = "FRAME_OUT_OF_RANGE"
    UID_INVALID = "UID_INVALID"
    # Where images are read from.
    SOURCE_UNREADABLE = "SOURCE_UNREADABLE"
    NOT_A_FILE = "NOT_A_FILE"
    CONTAINER_DAMAGED = "CONTAINER_DAMAGED"
    CONTAINER_ENCRYPTED = "CONTAINER_ENCRYPTED"
    CONTAINER_UNSUPPORTED = "CONTAINER_UNSUPPORTED"
    SELECTION_INVALID = "SELECTION_INVALID"
    # The request.
    ARGUMENT_INVALID = "ARGUMENT_INVALID"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    METHOD_UNKNOWN = "METHOD_UNKNOWN"
    # What is stored.
    ARCHIVE_NOT_FOUND = "ARCHIVE_NOT_FOUND"
    ARCHIVE_EXISTS = "ARCHIVE_EXISTS"
    ARCHIVE_NOT_EMPTY = "ARCHIVE_NOT_EMPTY"
    ARCHIVE_CHANGED = "ARCHIVE_CHANGED"
    CODING_NOT_FOUND = "CODING_NOT_FOUND"
    CODING_INCOMPLETE = "CODING_INCOMPLETE"
    CODING_IN_USE = "CODING_IN_USE"
    DUMP_UNREADABLE = "DUMP_UNREADABLE"
    DUMP_EXISTS = "DUMP_EXISTS"
    CASE_NOT_FOUND = "CASE_NOT_FOUND"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    MODEL_NOT_LOADED = "MODEL_NOT_LOADED"
    PATIENT_KEY_MISMATCH = "PATIENT_KEY_MISMATCH"
    CODE_LENGTH_MISMATCH = "CODE_LENGTH_MISMATCH"
    # What we stand on.
    ENCODER_UNAVAILABLE = "ENCODER_UNAVAILABLE"
    INDEX_UNAVAILABLE = "INDEX_UNAVAILABLE"
    INDEX_INCAPABLE = "INDEX_INCAPABLE"
    GATEWAY_UNAVAILABLE = "GATEWAY_UNAVAILABLE"
    OVERLOADED = "OVERLOADED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    ENCODER_WRONG = "ENCODER_WRONG"
    INDEX_WRONG = "INDEX_WRONG"
    INTERNAL = "INTERNAL"
    # Starting up.
    SETTING_INVALID = "SETTING_INVALID"
    INSECURE_ADDRESS = "INSECURE_ADDRESS"
    ALREADY_RUNNING = "ALREADY_RUNNING"
    NOT_RUNNING = "NOT_RUNNING"
    NOT_INSTALLED = "NOT_INSTALLED"
    PORT_IN_USE = "PORT_IN_USE"
    LIBRARY_MISSING = "LIBRARY_MISSING"
    DISK_FULL = "DISK_FULL"
    START_FAILED = "START_FAILED"
    KEY_UNSAFE = "KEY_UNSAFE"


class DafhError(Exception):
    """Base of all errors that DAFH raises on purpose.

    Parameters
    ----------
    reason
        What happened, for programs.
    message
        What happened, for a person: one sentence that names the element, the limit and the value.
    remedy
        What the one who must act can do; empty where the message already says it.
    subject
        The request field, DICOM element ``(gggg,eeee)`` or setting at fault, where there is one.
    """

    #: Whether the same call may succeed later without any change.
    waiting_helps: ClassVar[bool] = False

    def __init__(
        self, reason: Reason, message: str, *, remedy: str = "", subject: str = ""
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.remedy = remedy
        self.subject = subject

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".rstrip()

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments need this to cross a process border.
        return _rebuild, (type(self), self.reason, self.message, self.remedy, self.subject)


def _rebuild(
    kind: type[DafhError], reason: Reason, message: str, remedy: str, subject: str
) -> DafhError:
    return kind(reason, message, remedy=remedy, subject=subject)


class InvalidInput(DafhError):
    """The caller sent something that can never work; they must change it."""


class Unauthenticated(DafhError):
    """The caller did not prove who they are."""


class Denied(DafhError):
    """The caller may not do this; an administrator must let them."""


class NotFound(DafhError):
    """The caller named something that does not exist for them."""


class Conflict(DafhError):
    """What the caller sent contradicts what is stored."""


class Outdated(DafhError):
    """What the caller knew is no longer so; they must look again and decide anew."""


class FailedPrecondition(DafhError):
    """The system is not in the state that the call needs; an operator must act."""


class Unsupported(DafhError):
    """Part of a contract of another version."""


class Misconfigured(DafhError):
    """A program cannot start as it is set up; whoever starts it must act."""


class Overloaded(DafhError):
    """A bounded queue is full; the same call may succeed a little later."""

    waiting_helps = True


class Unavailable(DafhError):
    """Something we stand on does not answer; the same call may succeed later."""

    waiting_helps = True


class DeadlineExceeded(DafhError):
    """The caller's time ran out."""

    waiting_helps = True


class Internal(DafhError):
    """A broken promise of our own; whoever runs the service must look."""
