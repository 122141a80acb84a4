"""SIGTERM and Ctrl-C end a job in good order; a second Ctrl-C at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: Exit code of a job that was told to stop: run it again, it goes on (EX_TEMPFAIL of sysexits.h).
RESUME = 75
INTERRUPTED = 130


class Abandoned(BaseException):
    """The job is over; nobody wants what was to be had.

    No `Exception`: whoever takes a library's errors for what they are does not mean this.
    """


#: Whom signals tell at present: they are for the whole program.
_listening: list[Stopping] = []


def told_to_stop() -> bool:
    """Say whether the program was told to stop."""
    return any(one.event.is_set() for one in _listening)


class Stopping:
    """Whether a job was told to stop, and what it then says to whoever started it.

    Until it has begun there is nothing to end in good order: told to stop, it ends at once.
    """

    def __init__(self) -> None:
        self.event = threading.Event()
        self.exit_code = RESUME
        self.begun = False

    @contextmanager
    def by_signals(self) -> Iterator[None]:
        """Be told by signals inside the block."""
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

        def told(number: int, frame: object) -> None:
            del frame
            self.exit_code = INTERRUPTED if number == signal.SIGINT else RESUME
            self.event.set()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if not self.begun:
                raise SystemExit(self.exit_code)

        _listening.append(self)
        try:
            for number in before:
                signal.signal(number, told)
            yield
        finally:
            _listening.remove(self)
            for number, handler in before.items():
                signal.signal(number, handler)
