"""A call in hand: who makes it, until when, and what is to be told of it afterwards."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from dafh.deadline import CallDeadline
from dafh.errors import InvalidInput, Reason
from dafh.security.identity import Identity
from dafh_gateway.admission import Memory, Room

Request = TypeVar("Request", bound=Message)

#: A caller's own id for its request: random digits and nothing that could name a patient.
REQUEST_ID = re.compile(r"[0-9a-f-]{16,64}")
#: gRPC's word for a call without a deadline is one in the far future.
FAR_S = 365 * 24 * 3600.0


#: Whoever has not said yet who it is.
NOBODY = Identity("", "", frozenset())


@dataclass(slots=True)
class Call:
    """A call."""

    #: Full name, as ``dafh.v1.RetrievalService.Retrieve``.
    method: str
    request_id: str
    #: Nobody, until it is known.
    identity: Identity = NOBODY
    deadline: CallDeadline = field(default_factory=lambda: CallDeadline(0.0))
    #: Whether it waits in line for as long as its deadline lets it, rather than be refused.
    patient: bool = False
    #: What it was about, once that is known; "" where about no archive.
    archive: str = ""
    #: Hits, cases or archives that it answered with, stored or erased.
    count: int = 0
    #: Seconds that each stage took.
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def tenant(self) -> str:
        """Whose archives it is about."""
        return self.identity.tenant

    @property
    def name(self) -> str:
        """Name of the method, as ``Retrieve``."""
        return self.method.rpartition(".")[2]


def read_request_id(metadata: dict[str, str]) -> str:
    """Return the caller's id of a request (``x-request-id``), or a new one."""
    given = metadata.get("x-request-id", "")
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def time_left(context: grpc.ServicerContext, default: float) -> float:
    """Return the seconds that a call has; `default` where its client has set no deadline."""
    left = context.time_remaining()
    return default if left > FAR_S else left


class Incoming(Generic[Request]):
    """The messages of a call, read one at a time within the memory that there is.

    Parameters
    ----------
    messages
        From gRPC, which reads each when it is asked for; bytes.
    kind
        What they are.
    most
        Bytes of a message.
    """

    def __init__(
        self,
        messages: Iterator[bytes],
        kind: type[Request],
        memory: Memory,
        most: int,
        deadline: CallDeadline,
    ) -> None:
        self._messages = messages
        self._kind = kind
        self._memory = memory
        self._most = most
        self._deadline = deadline

    def inside(self) -> Iterator[Request]:
        """Yield the messages, for which the caller holds memory already.

        Whoever held some and waited for more could wait for others who do the same.
        """
        return map(self._parsed, self._messages)

    @contextmanager
    def held(self) -> Iterator[Request | None]:
        """Read a message and hold its memory; ``None`` where no more comes."""
        message, room = self.take()
        try:
            yield message
        finally:
            room.shrink(0)

    def take(self) -> tuple[Request | None, Room]:
        """Do as `held`; whoever takes the room shrinks it to nothing in the end."""
        room = self._memory.take(self._most, self._deadline)
        try:
            data = next(self._messages, None)
            room.shrink(len(data or b""))
            return None if data is None else self._parsed(data), room
        except BaseException:
            room.shrink(0)
            raise

    def _parsed(self, data: bytes) -> Request:
        try:
            return self._kind.FromString(data)
        except DecodeError:
            raise InvalidInput(
                Reason.ARGUMENT_INVALID,
                f"The bytes are no {self._kind.DESCRIPTOR.name}.",
            ) from None
