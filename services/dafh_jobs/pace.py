"""How fast a job goes, and what holds it up: for people who watch, and for the report."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum


class Stage(StrEnum):
    """What a file goes through."""

    READ = "read"
    DECODE = "decode"
    ENCODE = "encode"
    INDEX = "index"


class Pace:
    """Counts files, and how long each stage was busy; for several threads.

    Parameters
    ----------
    abreast
        How many of each stage may be busy at the same time.
    """

    def __init__(self, abreast: dict[Stage, int]) -> None:
        self._abreast = abreast
        self._busy = dict.fromkeys(Stage, 0.0)
        self._began = time.monotonic()
        self._lock = threading.Lock()
        #: Files that are done, those among them that a former run had done, images stored, files
        #: left out.
        self.files = self.known = self.images = self.left_out = 0
        #: Files in all, where it is known.
        self.total: int | None = None

    @contextmanager
    def busy(self, stage: Stage) -> Iterator[None]:
        """Count the time inside the block for a stage."""
        began = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._busy[stage] += time.monotonic() - began

    def begin(self) -> None:
        """Count time from now on: the first file comes."""
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    @property
    def rate(self) -> float:
        """Files per second, those not counted that were known."""
        return (self.files - self.known) / max(self.seconds, 1e-9)

    @property
    def shares(self) -> dict[str, float]:
        """Stage -> share of its time that it was busy, 0 to 1."""
        seconds = max(self.seconds, 1e-9)
        return {
            stage.value: min(1.0, busy / seconds / self._abreast[stage])
            for stage, busy in self._busy.items()
        }

    @property
    def slowest(self) -> str:
        """The stage that the others wait for."""
        shares = self.shares
        return max(shares, key=lambda stage: shares[stage])

    def __str__(self) -> str:
        of = f" of {self.total}" if self.total is not None else ""
        return (
            f"{self.files}{of} files, {self.images} images stored, {self.left_out} left out, "
            f"{self.rate:.0f} files/s, slowest: {self.slowest}"
        )
