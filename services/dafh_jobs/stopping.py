"""SIGTERM and Ctrl-C end a job in good order; a second Ctrl-C at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: Exit code of a job that was told to stop: run it again, it goes on (EX_TEMPFAIL of sysexits.h).
RESUME = 75
INTERRUPTED = 130


class Stopping:
    """Whether a job was told to stop, and what it then says to whoever started it."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.exit_code = RESUME

    @contextmanager
    def by_signals(self) -> Iterator[None]:
        """Be told by signals inside the block."""
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

        def told(number: int, frame: object) -> None:
            del frame
            self.exit_code = INTERRUPTED if number == signal.SIGINT else RESUME
            self.event.set()
            signal.signal(signal.SIGINT, signal.default_int_handler)

        try:
            for number in before:
                signal.signal(number, told)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
