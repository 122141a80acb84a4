"""Batches on their way into the archive: several in flight, as large as they go well."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import NamedTuple

from dafh.deadline import Deadline
from dafh.errors import DafhError, InvalidInput, Reason
from dafh.index.port import Outcome
from dafh.ingest.ingest import Item
from dafh_jobs.decoding import Work
from dafh_jobs.stopping import Abandoned

#: Stores a batch; returns what the index said of each.
Store = Callable[[Sequence[Item], Deadline], Sequence[Outcome]]

#: Smallest and largest batch, images.
LEAST, MOST = 128, 512
#: Seconds that a batch should take: long enough to be worth its overhead, short enough to stop.
TARGET_S = 1.0
#: Seconds that one attempt may take.
ATTEMPT_S = 60.0
#: Seconds between attempts: the first, and the longest.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
_GLANCE = 0.1


class Stored(NamedTuple):
    """A batch that is through."""

    batch: list[tuple[Work, Item]]
    #: What became of each: what the index said, or why it cannot be stored.
    results: list[Outcome | InvalidInput]


class Storing:
    """Stores batches, a few at a time, and waits for servers that are away.

    Parameters
    ----------
    store
        Stores one batch.
    abreast
        Batches in flight.
    patience
        Seconds for which a server may be away before the job gives up.
    stops
        One is set when the job is to end: then nobody waits any more.
    tell
        Is told in a sentence that the job waits, and that it goes on.
    """

    def __init__(
        self,
        store: Store,
        *,
        abreast: int,
        patience: float,
        stops: Sequence[threading.Event],
        tell: Callable[[str], None],
    ) -> None:
        self._store, self._patience, self._stops, self._tell = store, patience, stops, tell
        self._abreast = abreast
        self._senders = ThreadPoolExecutor(abreast, thread_name_prefix="sender")
        self._flying: set[Future[Stored]] = set()
        self._waiting = threading.Lock()
        self._pressed = False
        #: Images that the next batch should have.
        self.size = LEAST

    @property
    def full(self) -> bool:
        """Whether as many batches are in flight as may be."""
        return len(self._flying) >= self._abreast

    @property
    def busy(self) -> bool:
        """Whether any batch is in flight."""
        return bool(self._flying)

    def send(self, batch: list[tuple[Work, Item]]) -> None:
        """Send a batch off."""
        # The last one to fit: servers are slower than decoders, and larger batches are worth it.
        self._pressed = len(self._flying) + 1 >= self._abreast
        self._flying.add(self._senders.submit(self._send, batch))

    def landed(self, timeout: float) -> Iterator[Stored]:
        """Yield batches that are through; wait for one.

        Raises
        ------
        DafhError
            A server was away for too long, or cannot do what is asked; nothing is known of a batch.
        """
        if not timeout and not any(future.done() for future in self._flying):
            # Asked after each message: `wait` would cost more than all else that is done with it.
            return
        done, self._flying = wait(self._flying, timeout, FIRST_COMPLETED)
        for future in done:
            yield future.result()

    def close(self) -> None:
        """Let go of what is not sent yet, and wait for what is."""
        self._senders.shutdown(wait=True, cancel_futures=True)

    def _send(self, batch: list[tuple[Work, Item]]) -> Stored:
        items = [item for _, item in batch]
        results = self._results(items)
        return Stored(batch, results)

    def _results(self, items: Sequence[Item]) -> list[Outcome | InvalidInput]:
        try:
            return list(self._patiently(items))
        except InvalidInput as error:
            # Nothing of the batch is stored, for the sake of one: it is found by halves.
            if len(items) == 1:
                return [error]
            half = len(items) // 2
            return self._results(items[:half]) + self._results(items[half:])

    def _patiently(self, items: Sequence[Item]) -> Sequence[Outcome]:
        until = time.monotonic() + self._patience
        pause, told = FIRST_PAUSE_S, False
        try:
            while True:
                began = time.monotonic()
                try:
                    outcomes = self._store(items, Deadline.after(ATTEMPT_S))
                except DafhError as error:
                    if not _may_pass(error) or time.monotonic() > until:
                        raise
                    # One sentence, however many batches wait.
                    if not told and self._waiting.acquire(blocking=False):
                        told = True
                        self._tell(f"waiting: {error.message}")
                else:
                    self._learn(len(items), time.monotonic() - began)
                    if told:
                        self._tell("going on")
                    return outcomes
                self._pause(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
        finally:
            if told:
                self._waiting.release()

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if any(stop.is_set() for stop in self._stops):
                raise Abandoned
            time.sleep(_GLANCE)

    def _learn(self, count: int, seconds: float) -> None:
        """Let the next batch take about `TARGET_S`, where all senders are busy; else keep it small.

        By factors of two at most. A large batch that nobody waits for only comes late.
        """
        factor = min(2.0, max(0.5, TARGET_S / max(seconds, 1e-6))) if self._pressed else 0.5
        # A half-filled last one says nothing.
        if count >= self.size:
            self.size = int(min(MOST, max(LEAST, self.size * factor)))


def _may_pass(error: DafhError) -> bool:
    """Say whether waiting may help; a Triton that starts has not loaded its models yet."""
    return error.waiting_helps or error.reason is Reason.MODEL_NOT_LOADED
