"""From entries to images: threads read and wait, the processes of `DecoderPool` decode."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from dafh.deadline import Deadline
from dafh.errors import InvalidInput, Overloaded, Reason
from dafh.imaging.decode import REPRESENTATIVE
from dafh.imaging.image import Image
from dafh.imaging.outline import Outline, outline
from dafh.imaging.pool import DecoderPool
from dafh.ingest.ingest import Item
from dafh_jobs.journal import Journal, Outcome, Record
from dafh_jobs.pace import Pace, Stage
from dafh_jobs.selection import Choice, Frames, Selection, Survey
from dafh_jobs.shard import WHOLE, Shard
from dafh_jobs.sources import Content, Entry
from dafh_jobs.stopping import Abandoned

#: Images that may wait for a batch.
MOST_WAITING = 64
#: Seconds after which a thread that waits looks whether all is over.
_GLANCE = 0.2
#: What befalls a decoder. It may be the file's doing, or that of a machine without memory, or of
#: whoever stopped or ended the process.
_MISHAPS = frozenset({Reason.DECODER_CRASHED, Reason.DECODE_TIMEOUT})


@dataclass(slots=True, eq=False)
class Work:
    """A file on its way."""

    record: Record
    #: Frames that are decoded and not yet acknowledged.
    outstanding: int = 0
    #: No more frames come.
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """What a reader tells: an image of a file, that no more come of it, or both."""

    work: Work
    item: Item | None = None
    last: bool = False


@dataclass(slots=True)
class Decoding:
    """Reads and decodes entries, several at a time, and hands out their images.

    Parameters
    ----------
    decoders
        The processes.
    journal
        Knows the bytes that were met before.
    side
        Of the model input, pixels.
    workers
        Processes in the pool; a few more files are read meanwhile.
    """

    decoders: DecoderPool
    journal: Journal
    side: int
    workers: int
    #: Bytes of a file that are taken.
    most: int
    pace: Pace
    selection: Selection = field(default_factory=Selection)
    survey: Survey | None = None
    shard: Shard = WHOLE
    over: threading.Event = field(default_factory=threading.Event)
    #: Entries that were handed in and have not ended.
    reading: int = 0
    _messages: queue.Queue[Message | BaseException] = field(
        default_factory=lambda: queue.Queue(MOST_WAITING)
    )
    _readers: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        """Start the threads."""
        self._readers = ThreadPoolExecutor(self.window, thread_name_prefix="reader")

    @property
    def window(self) -> int:
        """Files that are read and decoded at a time."""
        return self.workers + 2

    def begin(self, entry: Entry, record: Record) -> None:
        """Hand an entry in."""
        self.reading += 1
        self._readers.submit(self._run, entry, record)

    def message(self) -> Message | None:
        """Return what comes next; ``None`` where nothing came for a moment."""
        try:
            told = self._messages.get(timeout=_GLANCE)
        except queue.Empty:
            return None
        if isinstance(told, BaseException):
            raise told
        if told.last:
            self.reading -= 1
        return told

    def close(self) -> None:
        """Abandon what is not done."""
        self.over.set()
        self._readers.shutdown(wait=True, cancel_futures=True)

    def _run(self, entry: Entry, record: Record) -> None:
        work, began = Work(record), time.monotonic()
        # An image is told with what is known after it: one message, of most files, is cheaper.
        held: Item | None = None
        try:
            for item in self._items(entry, record):
                if held is not None:
                    self._tell(Message(work, held))
                held = item
            record.seconds = time.monotonic() - began
            self._tell(Message(work, held, last=True))
        except Abandoned:
            pass
        except BaseException as error:  # noqa: BLE001 - it is raised again where it ends the job
            self._tell_or_leave(error)

    def _content(self, entry: Entry, record: Record) -> Content | None:
        """Return what is to be decoded; ``None`` where the record says all."""
        with self.pace.busy(Stage.READ):
            try:
                content = entry.read(self.most + 1)
            except OSError:
                record.outcome, record.reason = Outcome.UNREADABLE, Reason.SOURCE_UNREADABLE
                return None
        record.sha256, record.bytes = content.sha256, content.size
        if content.fault is not None:
            # What is mended may look as before from outside: it is looked at again.
            record.stamp = ""
            return content
        twin = self.journal.twin(record)
        if twin is None:
            return content
        _copy(twin, record)
        return None

    def _items(self, entry: Entry, record: Record) -> Iterator[Item]:
        """Yield what is to be stored of a file; the record says why, where that is not all."""
        content = self._content(entry, record)
        if content is None:
            return
        data = content.beginning
        try:
            choice = self._choice(content, record)
            if choice.frames is None:
                return
            with self.pace.busy(Stage.DECODE):
                for image in self._images(data, choice.frames):
                    metadata = image.metadata
                    record.sop_instance_uid = metadata.sop_instance_uid
                    record.modality = metadata.modality
                    record.transfer_syntax = metadata.transfer_syntax
                    yield Item(image, entry.labels.label, entry.labels.cancer_type)
        except InvalidInput as error:
            mishap = error.reason in _MISHAPS
            record.outcome = Outcome.UNREADABLE if mishap else Outcome.REFUSED
            record.reason = error.reason
            self._note(self._outline(data)[0], record)

    def _choice(self, content: Content, record: Record) -> Choice:
        """Return what is wanted of a file; a record of one that is not says so."""
        looked: Outline | None = None
        fault = content.fault
        if self.shard != WHOLE or self.selection.looks_inside:
            if fault is None:
                looked, fault = self._outline(content.beginning)
                self._note(looked, record)
            if not self.shard.has(looked.sop_instance_uid if looked else "", record.sha256):
                record.outcome = Outcome.OTHER_SHARD
                return Choice(None)
        if fault is not None:
            raise fault
        choice = self.selection.choose(looked, self.survey)
        if choice.frames is None:
            record.outcome = Outcome.NOT_SELECTED
        return choice

    @staticmethod
    def _note(looked: Outline | None, record: Record) -> None:
        """Write down what is known of a file that may never be decoded."""
        if looked is not None:
            record.sop_instance_uid, record.modality = looked.sop_instance_uid, looked.modality

    def _outline(self, data: bytes) -> tuple[Outline | None, InvalidInput | None]:
        try:
            return outline(data, self.decoders.policy), None
        except InvalidInput as error:
            return None, error

    def _images(self, data: bytes, frames: Frames) -> Iterator[Image]:
        never, told, again = Deadline.never(), False, False
        while True:
            try:
                if frames is Frames.ALL:
                    for image in self.decoders.decode_all(data, side=self.side, deadline=never):
                        told = True
                        yield image
                else:
                    yield self.decoders.decode(
                        data, side=self.side, frame=REPRESENTATIVE, deadline=never
                    )
            except Overloaded:
                # No decoder became free: the index is slow, and its images fill every place.
                if self.over.is_set():
                    raise Abandoned from None
            except InvalidInput as error:
                if error.reason not in _MISHAPS or told or again:
                    raise
                # Once more, before the file is blamed.
                again = True
            else:
                return

    def _tell(self, message: Message) -> None:
        while not self.over.is_set():
            try:
                self._messages.put(message, timeout=_GLANCE)
            except queue.Full:
                continue
            return
        raise Abandoned

    def _tell_or_leave(self, error: BaseException) -> None:
        while not self.over.is_set():
            try:
                self._messages.put(error, timeout=_GLANCE)
            except queue.Full:
                continue
            return


def _copy(twin: Record, record: Record) -> None:
    """Let a file have become what another one with the same bytes did."""
    record.outcome, record.reason = twin.outcome, twin.reason
    record.sop_instance_uid, record.modality = twin.sop_instance_uid, twin.modality
    record.transfer_syntax = twin.transfer_syntax
    record.added, record.unchanged = twin.added, twin.unchanged
    record.metadata_conflict = twin.metadata_conflict
    record.pixel_conflict = twin.pixel_conflict
    record.twin = twin.name != record.name
