"""The heart of a job, on real decoders and an index in memory."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.uid import ExplicitVRLittleEndian

from dafh.deadline import Deadline
from dafh.encoding.scripted import SIDE, ScriptedEncoder
from dafh.errors import InvalidInput, Reason, Unavailable
from dafh.imaging.image import Image
from dafh.imaging.limits import DEFAULT_LIMITS
from dafh.imaging.phantom import phantoms
from dafh.imaging.pool import DecoderPool
from dafh.index import port
from dafh.index.case import Coding
from dafh.index.exact import ExactIndex
from dafh.ingest.ingest import Ingester, Item
from dafh_jobs import storing as storing_module
from dafh_jobs.decoding import Decoding
from dafh_jobs.journal import Journal, Outcome, Record
from dafh_jobs.pace import Pace, Stage
from dafh_jobs.pipeline import Pipeline
from dafh_jobs.selection import Frames, Rule, Selection
from dafh_jobs.sources import Entry, entries
from dafh_jobs.storing import Store, Storing
from tests.imaging.processes import children
from tests.index.models import soon
from tests.jobs.reading import zipped

CODING = Coding("default", "a", "0" * 64, 1, 64, "0123456789abcdef")


@pytest.fixture(scope="module")
def decoders() -> Iterator[DecoderPool]:
    with DecoderPool(workers=2) as pool:
        yield pool


@dataclass
class Parts:
    """A job whose index is in memory."""

    decoders: DecoderPool
    folder: Path
    index: ExactIndex = field(default_factory=lambda: ExactIndex(CODING))
    pace: Pace = field(default_factory=lambda: Pace(dict.fromkeys(Stage, 2)))
    stop: threading.Event = field(default_factory=threading.Event)
    said: list[str] = field(default_factory=list)
    selection: Selection = field(default_factory=Selection)

    def store(self, items: Sequence[Item], deadline: Deadline) -> list[port.Outcome]:
        ingester = Ingester.alone(ScriptedEncoder(), self.index)
        return [one.outcome for one in ingester.ingest(items, deadline)]

    def run(
        self, source: Path, store: Store, *, patience: float = 60.0
    ) -> tuple[bool, list[Record]]:
        journal = Journal(self.folder / "journal", b"k" * 32, "")
        over = threading.Event()
        decoding = Decoding(
            decoders=self.decoders,
            journal=journal,
            side=SIDE,
            workers=2,
            most=2**24,
            pace=self.pace,
            selection=self.selection,
            over=over,
        )
        storing = Storing(
            store, abreast=2, patience=patience, stops=(self.stop, over), tell=self.said.append
        )
        pipeline = Pipeline(decoding, storing, journal, self.pace, self.stop, lambda: None)
        try:
            return pipeline.run(self.entries(source)), list(journal.records())
        finally:
            over.set()
            storing.close()
            decoding.close()
            self.left = list(journal.records())
            journal.close()

    def entries(self, source: Path) -> Iterator[Entry]:
        return entries([str(source)], DEFAULT_LIMITS)


@pytest.fixture
def parts(decoders: DecoderPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parts:
    monkeypatch.setattr(storing_module, "LEAST", 8)
    monkeypatch.setattr(storing_module, "FIRST_PAUSE_S", 0.05)
    return Parts(decoders, tmp_path)


def test_every_file_is_stored_and_written_down(parts: Parts, few: Path) -> None:
    finished, records = parts.run(few, parts.store)
    assert finished
    assert parts.index.count(soon()) == 60
    assert len(records) == 62
    assert sum(record.frames for record in records) == 60
    assert {record.reason for record in records} == {"", "NOT_AN_IMAGE", "EMPTY_INPUT"}


def test_a_damaged_archive_is_refused_by_its_bytes_and_looked_at_again(
    parts: Parts, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    file = zipped(source, {"a": b"no image " * 40, "b": b"no image either " * 40})
    whole = file.read_bytes()
    times = file.stat()
    spoiled = whole[:40] + bytes(4) + whole[44:]
    told = []
    for data in (spoiled, spoiled[:-60], whole):
        file.write_bytes(data)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        _, records = parts.run(source, parts.store)
        assert {record.outcome for record in records} == {Outcome.REFUSED}
        told.append([(record.reason, record.sha256[:8]) for record in records])
    named = [
        hashlib.sha256(data).hexdigest()[:8]
        for data in (b"no image either " * 40, spoiled[:-60], b"no image " * 40)
    ]
    assert told[0] == [("CONTAINER_DAMAGED", ""), ("NOT_AN_IMAGE", named[0])]
    assert told[1] == [("CONTAINER_DAMAGED", named[1])]
    # It was mended, and nothing of its outside tells.
    assert sorted(told[2]) == sorted([("NOT_AN_IMAGE", named[0]), ("NOT_AN_IMAGE", named[2])])


def test_nothing_is_written_down_before_the_index_has_it(parts: Parts, few: Path) -> None:
    """Whatever is in the journal when a job dies must be in the archive."""
    stored = 0

    def store(items: Sequence[Item], deadline: Deadline) -> list[port.Outcome]:
        nonlocal stored
        if stored >= 16:
            raise _Died
        stored += len(items)
        return parts.store(items, deadline)

    with pytest.raises(_Died):
        parts.run(few, store)
    written = {record.sop_instance_uid for record in parts.left if record.frames}
    there = {case.sop_instance_uid for case in parts.index.scan(soon())}
    assert {record.sop_instance_uid for record in parts.left if not record.reason} == written
    assert written <= there
    assert there


class _Died(BaseException):
    """The program ended here."""


def test_no_more_images_are_held_than_the_stages_take(parts: Parts, few: Path) -> None:
    """The index hangs: readers stop, and do not gather the source in memory."""
    gate, read = threading.Event(), 0

    def store(items: Sequence[Item], deadline: Deadline) -> list[port.Outcome]:
        gate.wait(30)
        return parts.store(items, deadline)

    class Counted(Parts):
        def entries(self, source: Path) -> Iterator[Entry]:
            nonlocal read
            for _ in range(20):
                for entry in super().entries(source):
                    read += 1
                    yield entry

    counted = Counted(parts.decoders, parts.folder)
    runner = threading.Thread(target=counted.run, args=(few, store))
    runner.start()
    time.sleep(4)
    held = read
    counted.stop.set()
    gate.set()
    runner.join(300)
    assert not runner.is_alive()
    # Two batches that fly, one that is gathered, what waits, what is decoded.
    assert 0 < held < 3 * 8 + 64 + 2 * 4 + 10


def test_frames_of_one_file_are_not_gathered_in_memory(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, frames = tmp_path / "source", 400
    source.mkdir()
    (source / "many").write_bytes(with_frames(frames))
    gate, decoded = threading.Event(), 0
    images = Decoding._images

    def counted(self: Decoding, data: bytes, which: Frames) -> Iterator[Image]:
        nonlocal decoded
        for image in images(self, data, which):
            decoded += 1
            yield image

    def store(items: Sequence[Item], deadline: Deadline) -> list[port.Outcome]:
        gate.wait(30)
        return parts.store(items, deadline)

    monkeypatch.setattr(Decoding, "_images", counted)
    parts.selection = Selection([Rule(frames=Frames.ALL)])
    runner = threading.Thread(target=parts.run, args=(source, store))
    runner.start()
    time.sleep(3)
    held = decoded
    gate.set()
    runner.join(300)
    assert not runner.is_alive()
    assert 0 < held <= 3 * 8 + 64 + 2
    assert parts.index.count(soon()) == frames


@pytest.mark.parametrize("frames", Frames)
def test_a_decoder_that_is_killed_from_outside_costs_no_file(
    parts: Parts, few: Path, frames: Frames
) -> None:
    """As where memory runs out: the file that it had in hand is not to blame."""
    parts.selection = Selection([Rule(frames=frames)])
    others = workers()
    with DecoderPool(workers=2) as parts.decoders, ThreadPoolExecutor(1) as runner:
        held = workers() - others
        for pid in held:
            os.kill(pid, signal.SIGSTOP)
        running = runner.submit(parts.run, few, parts.store)
        # Each has a file in hand by now.
        time.sleep(1)
        for pid in held:
            os.kill(pid, signal.SIGKILL)
        finished, records = running.result(120)
    assert len(held) == 2
    assert finished
    assert {record.reason for record in records} == {"", "NOT_AN_IMAGE", "EMPTY_INPUT"}
    assert parts.index.count(soon()) >= 60


def test_told_to_end_with_its_parent_a_decoder_goes_on(parts: Parts, few: Path) -> None:
    others = workers()
    with DecoderPool(workers=2) as parts.decoders:
        for pid in (held := workers() - others) | set(children(os.getpid())):
            os.kill(pid, signal.SIGTERM)
        finished, _ = parts.run(few, parts.store)
        assert workers() - others == held
    assert finished
    assert parts.index.count(soon()) == 60


def test_a_file_that_costs_its_decoder_twice_is_tried_again_by_the_next_run(
    parts: Parts, few: Path
) -> None:
    class Dying(DecoderPool):
        """Two decoders die at every CT."""

        def decode(self, data: bytes, **options: Any) -> Image:  # noqa: ANN401 - as it is called
            image = super().decode(data, **options)
            if image.metadata.modality == "CT":
                raise InvalidInput(Reason.DECODER_CRASHED, "The decoder ended at this file.")
            return image

    real = parts.decoders
    with Dying(workers=2) as parts.decoders:
        _, records = parts.run(few, parts.store)
    lost = [record for record in records if record.outcome is Outcome.UNREADABLE]
    assert {(record.reason, record.modality) for record in lost} == {("DECODER_CRASHED", "CT")}
    parts.decoders = real
    _, records = parts.run(few, parts.store)
    assert {record.reason for record in records} == {"", "NOT_AN_IMAGE", "EMPTY_INPUT"}
    assert parts.index.count(soon()) == 60


def test_the_modality_of_a_file_that_is_left_out_is_told_where_it_is_known(
    parts: Parts, few: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(few, tmp_path / "source"))
    cut = min(source.glob("*ct.dcm"))
    cut.write_bytes(cut.read_bytes()[:-1000])
    parts.selection = Selection([Rule(modality=("MR",))])
    _, records = parts.run(source, parts.store)
    left = [record for record in records if record.outcome is Outcome.NOT_SELECTED]
    assert {record.modality for record in left} == {"CT", "PT", "US", "MG"}
    assert all(record.sop_instance_uid for record in left)
    parts.folder, parts.selection = tmp_path / "all", Selection()
    _, records = parts.run(source, parts.store)
    refused = {record.reason: record.modality for record in records if record.reason}
    assert refused.pop("NOT_AN_IMAGE") == refused.pop("EMPTY_INPUT") == ""
    assert list(refused.values()) == ["CT"]


def workers() -> set[int]:
    """Return the process ids of all decoders of this process."""
    return {pid for zygote in children(os.getpid()) for pid in children(zygote)}


def with_frames(count: int) -> bytes:
    """Return an instance of many small frames, each another."""
    data_set = dcmread(io.BytesIO(next(phantoms(1, 3)).data))
    data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data_set.Rows = data_set.Columns = 16
    data_set.NumberOfFrames = count
    pixels = np.random.default_rng(1).integers(0, 2000, (count, 16, 16), np.uint16)
    data_set.PixelData = pixels.tobytes()
    data_set["PixelData"].is_undefined_length = False
    stream = io.BytesIO()
    dcmwrite(stream, data_set, enforce_file_format=True)
    return stream.getvalue()


def test_one_bad_image_costs_its_file_and_not_its_batch(parts: Parts, few: Path) -> None:
    def store(items: Sequence[Item], deadline: Deadline) -> list[port.Outcome]:
        if any(item.image.metadata.modality == "PT" for item in items):
            raise InvalidInput(Reason.ARGUMENT_INVALID, "not in this archive")
        return parts.store(items, deadline)

    _, records = parts.run(few, store)
    refused = [record for record in records if record.reason == "ARGUMENT_INVALID"]
    assert {record.modality for record in refused} == {"PT"}
    assert parts.index.count(soon()) == 60 - len(refused)


def test_a_server_that_is_away_is_waited_for_and_told_once(parts: Parts, few: Path) -> None:
    faults = iter(range(6))

    def store(items: Sequence[Item], deadline: Deadline) -> list[port.Outcome]:
        if next(faults, None) is not None:
            raise Unavailable(Reason.INDEX_UNAVAILABLE, "It is away.")
        return parts.store(items, deadline)

    finished, _ = parts.run(few, store)
    assert finished
    assert parts.said[:1] == ["waiting: It is away."]
    assert parts.said.count("going on") == parts.said.count("waiting: It is away.")
    assert parts.index.count(soon()) == 60


def test_patience_ends(parts: Parts, few: Path) -> None:
    def store(items: Sequence[Item], deadline: Deadline) -> list[port.Outcome]:
        raise Unavailable(Reason.INDEX_UNAVAILABLE, "It is away.")

    with pytest.raises(Unavailable):
        parts.run(few, store, patience=0.2)


@pytest.mark.parametrize(("seconds", "check"), [(0.4, lambda n: n > 8), (2.5, lambda n: n == 8)])
def test_a_batch_grows_where_servers_hold_the_job_up_and_are_quick(
    parts: Parts, few: Path, seconds: float, check: Callable[[int], bool]
) -> None:
    sizes: list[int] = []

    def store(items: Sequence[Item], deadline: Deadline) -> list[port.Outcome]:
        sizes.append(len(items))
        time.sleep(seconds)
        return parts.store(items, deadline)

    parts.run(few, store)
    assert check(max(sizes))
