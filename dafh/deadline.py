"""A point in time by which a call must have answered, handed from stage to stage."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
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
