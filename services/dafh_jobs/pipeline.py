"""A job's heart: entries are read, decoded, gathered into batches, stored, written down.

One thread, the caller's, decides all this; others read, wait and send. Nothing grows with the
source: so many files are read at a time, so many images wait, so many batches fly.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from dafh.encoding.triton import MAX_BATCH
from dafh.errors import InvalidInput
from dafh.index import port
from dafh.ingest.ingest import Item
from dafh_jobs.decoding import Decoding, Message, Work
from dafh_jobs.journal import Journal, Outcome, Record
from dafh_jobs.pace import Pace
from dafh_jobs.sources import Entry
from dafh_jobs.stopping import Abandoned
from dafh_jobs.storing import Storing

#: Files without images that are written down together.
_RECORDS = 256
_GLANCE = 0.2


class Pipeline:
    """Takes entries through; may be cut off anywhere.

    Parameters
    ----------
    decoding, storing
        The stages.
    journal
        Where files are written down that are done.
    pace
        Counts.
    stop
        Set by whoever wants the job to end in good order.
    show
        Called now and then, to show the pace.
    on_unreadable
        Called after a file that could not be read; may raise to end the job.
    """

    def __init__(
        self,
        decoding: Decoding,
        storing: Storing,
        journal: Journal,
        pace: Pace,
        stop: threading.Event,
        show: Callable[[], None],
        on_unreadable: Callable[[], None] = lambda: None,
    ) -> None:
        self._decoding, self._storing, self._journal = decoding, storing, journal
        self._pace, self._stop, self._show = pace, stop, show
        self._on_unreadable = on_unreadable
        self._batch: list[tuple[Work, Item]] = []
        self._done: list[Record] = []

    def run(self, entries: Iterable[Entry]) -> bool:
        """Take all entries through; say whether it came to the end, or was told to stop.

        Raises
        ------
        DafhError
            The job cannot go on; what was acknowledged is written down.
        """
        try:
            for entry in entries:
                if self._stop.is_set():
                    break
                self._begin(entry)
            while self._decoding.reading and not self._stop.is_set():
                self._step()
            # In pieces that go abreast: nothing more comes that they could wait with.
            rest = self._batch
            for start in range(0, len(rest), MAX_BATCH):
                self._batch = rest[start : start + MAX_BATCH]
                self._flush()
            while self._storing.busy:
                self._land(_GLANCE)
        except Abandoned:
            # Told to stop while a server was away: the batch is sent again by the next run.
            pass
        finally:
            self._write()
        return not self._stop.is_set()

    def _begin(self, entry: Entry) -> None:
        record = self._journal.record_of(entry)
        if self._journal.knows(record):
            self._pace.files += 1
            self._pace.known += 1
            self._show()
            return
        self._decoding.begin(entry, record)
        while self._decoding.reading >= self._decoding.window and not self._stop.is_set():
            self._step()

    def _step(self) -> None:
        message = self._decoding.message()
        if message is not None:
            self._take(message)
        if self._storing.busy:
            self._land(0)
        self._show()

    def _take(self, message: Message) -> None:
        work = message.work
        if message.item is not None:
            work.outstanding += 1
            self._batch.append((work, message.item))
        if message.last:
            work.ended = True
            self._end(work)
        if len(self._batch) >= self._storing.size:
            self._flush()

    def _flush(self) -> None:
        if not self._batch:
            return
        while self._storing.full:
            self._land(_GLANCE)
            self._show()
        self._storing.send(self._batch)
        self._batch = []

    def _land(self, timeout: float) -> None:
        for batch, results in self._storing.landed(timeout):
            for (work, _), result in zip(batch, results, strict=True):
                work.outstanding -= 1
                _note(work.record, result)
            self._pace.images += len(batch)
            for work in {id(work): work for work, _ in batch}.values():
                self._end(work)
            self._write()

    def _end(self, work: Work) -> None:
        """Write a file down that is done: read to its end, and all of it acknowledged."""
        if not work.ended or work.outstanding:
            return
        record = work.record
        if record.metadata_conflict + record.pixel_conflict and record.outcome is Outcome.INDEXED:
            record.outcome = Outcome.CONFLICT
        self._done.append(record)
        self._pace.files += 1
        self._pace.left_out += record.outcome.left_out
        if record.outcome is Outcome.UNREADABLE:
            self._on_unreadable()
        if len(self._done) >= _RECORDS:
            self._write()

    def _write(self) -> None:
        done, self._done = self._done, []
        self._journal.write(done)


def _note(record: Record, result: port.Outcome | InvalidInput) -> None:
    if isinstance(result, InvalidInput):
        record.outcome, record.reason = Outcome.REFUSED, result.reason
        return
    column = result.value
    setattr(record, column, getattr(record, column) + 1)
