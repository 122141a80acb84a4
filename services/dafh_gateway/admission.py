"""How much is let in: places at each stage, with a short and fair line, and memory for messages."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from dafh.deadline import Deadline
from dafh.errors import DeadlineExceeded, Overloaded, Reason
from dafh_gateway.line import Line


class Stage:
    """Some places for calls, and a line before them (`dafh_gateway.line`); for many threads.

    Parameters
    ----------
    name
        What is done there, for messages and metrics.
    line
        The places.
    """

    def __init__(self, name: str, line: Line) -> None:
        self.name = name
        self._line = line
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """Calls in line."""
        return self._line.waiting

    @property
    def busy(self) -> int:
        """Places that are taken."""
        return self._line.busy

    @contextmanager
    def place(self, tenant: str, deadline: Deadline, *, patient: bool = False) -> Iterator[None]:
        """Hold a place.

        Parameters
        ----------
        patient
            Wait in line however long it will take.

        Raises
        ------
        Overloaded
            The line is too long.
        DeadlineExceeded
            The deadline passed in line, or the caller gave up.
        """
        self._enter(tenant, deadline, patient=patient)
        try:
            yield
        finally:
            with self._lock:
                self._line.leave()

    def _enter(self, tenant: str, deadline: Deadline, *, patient: bool) -> None:
        deadline.remaining(self.name)
        with self._lock:
            waiter = self._line.arrive(tenant, patient=patient)
        if waiter.admitted:
            return
        # Past the deadline too the line must be left: a place given to nobody never comes back.
        with deadline.stopping(waiter.told.set), suppress(DeadlineExceeded):
            waiter.told.wait(min(deadline.remaining(self.name), threading.TIMEOUT_MAX))
        with self._lock:
            if waiter.admitted:
                return
            self._line.quit(waiter)
        deadline.remaining(self.name)
        raise overloaded(f"too many calls wait for {self.name}")


class Share:
    """A number of things, of which one tenant may never have all; nobody waits.

    Parameters
    ----------
    what
        For messages.
    total
        All of them.
    each
        Most of one tenant.
    """

    def __init__(self, what: str, total: int, each: int) -> None:
        self._what = what
        self._total = total
        self._each = each
        self._lock = threading.Lock()
        self._held: dict[str, int] = {}

    @property
    def held(self) -> int:
        """How many are taken."""
        return sum(self._held.values())

    @contextmanager
    def one(self, tenant: str) -> Iterator[None]:
        """Hold one.

        Raises
        ------
        Overloaded
            There is none left for the tenant.
        """
        with self._lock:
            own = self._held.get(tenant, 0)
            if own >= self._each or self.held >= self._total:
                raise overloaded(f"too many {self._what}")
            self._held[tenant] = own + 1
        try:
            yield
        finally:
            with self._lock:
                self._held[tenant] -= 1
                if not self._held[tenant]:
                    del self._held[tenant]


class Room:
    """Memory that a call was promised."""

    def __init__(self, size: int, give_back: Callable[[int], None]) -> None:
        self._size = size
        self._give_back = give_back

    def shrink(self, size: int) -> None:
        """Give back what is beyond `size` bytes."""
        beyond = self._size - size
        if beyond > 0:
            self._size = size
            self._give_back(beyond)


class Memory:
    """Bytes that messages and uploads may take together; who finds none left waits a while.

    Parameters
    ----------
    size
        All of it, bytes.
    patience
        Seconds that a call waits.
    """

    def __init__(self, size: int, patience: float) -> None:
        #: All of it, bytes.
        self.size = size
        self._left = size
        self._patience = patience
        self._changed = threading.Condition()
        #: Calls that wait, the first come first: a large one is not overtaken for ever.
        self._line: deque[object] = deque()

    @property
    def taken(self) -> int:
        """Bytes that are promised."""
        return self.size - self._left

    @contextmanager
    def room(self, size: int, deadline: Deadline) -> Iterator[Room]:
        """Hold `size` bytes.

        Raises
        ------
        Overloaded
            They did not become free.
        DeadlineExceeded
            The deadline passed before, or the caller gave up.
        """
        room = self.take(size, deadline)
        try:
            yield room
        finally:
            room.shrink(0)

    def take(self, size: int, deadline: Deadline) -> Room:
        """Do as `room`; whoever takes it shrinks it to nothing in the end."""
        size = min(size, self.size)
        self._take(size, deadline)
        return Room(size, self._give_back)

    def _take(self, size: int, deadline: Deadline) -> None:
        with self._changed:
            if not self._line and size <= self._left:
                self._left -= size
                return
            turn = object()
            self._line.append(turn)
            try:
                until = time.monotonic() + self._patience
                while self._line[0] is not turn or size > self._left:
                    left = min(until - time.monotonic(), deadline.remaining("memory was free"))
                    if left <= 0:
                        raise overloaded("no memory is free for the message")
                    # Short, for the caller may give up meanwhile.
                    self._changed.wait(min(left, 0.1))
                self._left -= size
            finally:
                self._line.remove(turn)
                self._changed.notify_all()

    def _give_back(self, size: int) -> None:
        with self._changed:
            self._left += size
            self._changed.notify_all()


def overloaded(what: str) -> Overloaded:
    """Return the error of a call for which there is no place."""
    return Overloaded(
        Reason.OVERLOADED, f"The service is full: {what}.", remedy="Try again a little later."
    )
