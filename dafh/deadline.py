"""A point in time by which a call must have answered, handed from stage to stage."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

from dafh.errors import DeadlineExceeded, Reason


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock, in seconds."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        """Return the deadline `seconds` from now."""
        return cls(time.monotonic() + seconds)

    @classmethod
    def never(cls) -> Self:
        """Return a deadline that never passes; for batch work that a person can interrupt."""
        return cls(math.inf)

    def remaining(self, stage: str) -> float:
        """Return the seconds left for `stage`, more than zero.

        Raises
        ------
        DeadlineExceeded
            None are left.
        """
        left = self.at - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded(
                Reason.DEADLINE_EXCEEDED,
                f"The deadline passed before {stage}.",
                remedy="Give the call more time, or try again when the service is less busy.",
            )
        return left

    @contextmanager
    def stopping(self, stop: Callable[[], object]) -> Iterator[None]:
        """Have `stop` called where the caller gives up while the block runs; here nobody does."""
        del stop
        yield


@dataclass(slots=True)
class _Underway:
    """What is to be stopped when the caller gives up."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    given_up: bool = False
    stops: list[Callable[[], object]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class CallDeadline(Deadline):
    """The deadline of a call whose caller may give up before it passes."""

    _underway: _Underway = field(default_factory=_Underway, repr=False)

    @property
    def given_up(self) -> bool:
        """Whether the caller no longer waits."""
        return self._underway.given_up

    def within(self, seconds: float) -> CallDeadline:
        """Return a deadline at most `seconds` from now, that is given up with this one."""
        return CallDeadline(min(self.at, time.monotonic() + seconds), self._underway)

    def give_up(self) -> None:
        """Stop what is underway, and let nothing begin any more."""
        # Under the lock: once a block has ended, what would have stopped it may serve another call.
        with self._underway.lock:
            self._underway.given_up = True
            for stop in list(self._underway.stops):
                stop()

    def remaining(self, stage: str) -> float:
        """Return the seconds left for `stage`, more than zero.

        Raises
        ------
        DeadlineExceeded
            None are left, or the caller gave up.
        """
        if self.given_up:
            raise DeadlineExceeded(Reason.DEADLINE_EXCEEDED, f"The caller gave up before {stage}.")
        # A dataclass with slots is made anew, which `super()` without arguments does not bear.
        return super(CallDeadline, self).remaining(stage)

    @contextmanager
    def stopping(self, stop: Callable[[], object]) -> Iterator[None]:
        """Call `stop` where the caller gives up while the block runs, or has done so before.

        `stop` must not wait for anything.
        """
        with self._underway.lock:
            given_up = self.given_up
            self._underway.stops.append(stop)
        if given_up:
            stop()
        try:
            yield
        finally:
            with self._underway.lock:
                self._underway.stops.remove(stop)
