"""The same questions to each: what it answers, how fast, and what it takes."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from bench.codes import varied
from bench.gateway import stock
from bench.load import WARM_UP, Ask, Connect, Load, fresh, one_by_one, percentiles, saturate
from bench.processes import Spent, resident
from bench.rivals.questions import Questions
from bench.rivals.worker import RECIPES, Process, pad, started, take
from bench.stack import encoder_of, pids, run, running
from dafh.client import Client
from dafh.deadline import Deadline
from dafh.evaluation.metrics import TOP, average_precision, by_class, macro, relevance
from dafh.imaging.decode import decode
from dafh.stack import Stack

Result = TypeVar("Result")

#: Clients at once of the throughput.
CLIENTS = 8


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    #: Images that are indexed; a fifth as many ask.
    images: int = 1_452
    #: Cases of the archive whose costs are measured.
    cases: int = 100_000
    #: Queries of the latency.
    queries: int = 200
    #: Of the throughput.
    seconds: float = 8.0


class Running(Protocol):
    """Something that answers."""

    @property
    def pids(self) -> dict[str, int]:
        """Its processes by their names."""

    def run(self, work: Callable[[Connect], Result]) -> Result:
        """Run clients."""


class Candidate(Protocol):
    """Something to compare."""

    @property
    def vector_bytes(self) -> int:
        """What an image takes in the index, without anything else that is kept of it."""

    def fill(self, made: Questions, cases: int) -> tuple[list[list[int]], float]:
        """Index images, answer the questions, then grow to so many cases; all is kept on disk.

        Returns
        -------
        tuple[list[list[int]], float]
            For each question the numbers of the most similar images; images indexed per second.
        """

    def start(self) -> AbstractContextManager[Running]:
        """Start with what is kept."""


def measured(candidate: Candidate, made: Questions, folder: Path, scale: Scale) -> dict[str, Any]:
    """Measure one candidate, whose data lie in a folder."""
    found, rate = candidate.fill(made, scale.cases)
    images = [sample.data for sample in made.queries]
    began = time.perf_counter()
    with candidate.start() as running:
        running.run(partial(answers, images[:1]))
        first = time.perf_counter() - began
        running.run(partial(latencies, images, 0, WARM_UP))
        used = Spent(running.pids)
        times = running.run(partial(latencies, images, scale.queries, 0))
        each = used.each(scale.queries)
        load = running.run(partial(busy, images, scale.seconds))
        memory = sum(resident(pid) for pid in running.pids.values())
    return {
        "map_at_10": round(quality(found, made), 4),
        "vector_bytes": candidate.vector_bytes,
        **percentiles(times),
        "per_s": load.figures()["per_s"],
        "outcomes": dict(load.outcomes),
        "cpu_ms": round(sum(each.values()), 2),
        "memory_mib": round(memory),
        "disk_mib": round(size_of(folder) / 2**20, 1),
        "first_answer_s": round(first, 2),
        "indexed_per_s": round(rate, 1),
    }


def answers(images: list[bytes], connect: Connect) -> list[list[int]]:
    """Return the numbers of the most similar indexed images, for each."""
    with connect() as ask:
        return [cast("list[int]", ask(data)) for data in images]


def latencies(images: list[bytes], count: int, warm_up: int, connect: Connect) -> list[float]:
    """Return milliseconds of queries, one after the other."""
    with connect() as ask:
        return one_by_one(ask, fresh(images), count, warm_up)


def busy(images: list[bytes], seconds: float, connect: Connect) -> Load:
    """Ask from `CLIENTS` clients that never pause."""
    return saturate(connect, fresh(images), CLIENTS, seconds)


def quality(found: list[list[int]], made: Questions) -> float:
    """Return the macro MAP@10 of answers, by the project's own metrics."""
    order = np.full((len(found), TOP), -1, np.int64)
    for row, places in zip(order, found, strict=True):
        row[: len(places)] = places
    asking, answering = ([one.class_name for one in some] for some in (made.queries, made.database))
    return macro(by_class(average_precision(relevance(order, asking, answering)), asking))


def size_of(folder: Path) -> int:
    """Return the bytes that a folder takes on disk."""
    told = subprocess.run(["du", "-sb", folder], capture_output=True, text=True, check=True)  # noqa: S607 - any du
    return int(told.stdout.split()[0])


class Rebuilt:
    """A rival of `RECIPES`.

    Parameters
    ----------
    folder
        For its data.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self._name, self._folder = name, folder
        self.vector_bytes = RECIPES[name].vector_bytes

    def fill(self, made: Questions, cases: int) -> tuple[list[list[int]], float]:
        """Index, answer, grow."""
        images = [sample.data for sample in made.database]
        _, classes = np.unique([sample.class_name for sample in made.database], return_inverse=True)
        with self.start() as rival:
            seconds = rival.tell(partial(take, images))
            found = rival.run(partial(answers, [sample.data for sample in made.queries]))
            rival.tell(partial(pad, classes, cases - len(images)))
        return found, len(images) / seconds

    def start(self) -> AbstractContextManager[Process]:
        """Start with what is kept."""
        return started(self._name, self._folder)


class Dafh:
    """DAFH as it is shipped: `dafh up`, `dafh index`, questions over gRPC.

    Parameters
    ----------
    folder
        For its data.
    bits
        Code length.
    """

    def __init__(self, bits: int, folder: Path) -> None:
        self._bits, self._folder = bits, folder
        self.vector_bytes = bits // 8
        self._places: dict[str, int] = {}

    def fill(self, made: Questions, cases: int) -> tuple[list[list[int]], float]:
        """Index, answer, grow."""
        self._places = {one.sop_instance_uid: n for n, one in enumerate(made.database)}
        with tempfile.TemporaryDirectory(prefix="dafh-bench-") as images, self.start() as stack:
            for number, sample in enumerate(made.database):
                Path(images, f"{number:06}.dcm").write_bytes(sample.data)
            began = time.perf_counter()
            run("index", images, "--data-dir", str(self._folder))
            seconds = time.perf_counter() - began
            found = stack.run(partial(answers, [sample.data for sample in made.queries]))
            stock(stack.note, self._codes(stack.note, made, cases - len(made.database)))
        return found, len(made.database) / seconds

    @contextmanager
    def start(self) -> Iterator[RunningDafh]:
        """Start with what is kept."""
        with running(self._folder, bits=self._bits) as note:
            yield RunningDafh(note, self._places)

    def _codes(self, note: Stack, made: Questions, count: int) -> NDArray[np.uint8]:
        encoder = encoder_of(note)
        pixels = [decode(one.data, side=encoder.model.side).pixels for one in made.database]
        outputs = np.stack(
            [encoder.encode(one[None], Deadline.never()).hashes[self._bits][0] for one in pixels]
        )
        _, classes = np.unique([sample.class_name for sample in made.database], return_inverse=True)
        some = varied(outputs, classes, count, 1)
        return np.concatenate([np.packbits(one > 0, axis=1) for one in some])


@dataclass(frozen=True, slots=True)
class RunningDafh:
    """A stack, asked over gRPC with the client as it is shipped, which tries again when told to."""

    note: Stack
    #: SOP Instance UID -> number of the image.
    places: dict[str, int]

    @property
    def pids(self) -> dict[str, int]:
        """Its processes by their names."""
        return pids(self.note)

    def run(self, work: Callable[[Connect], Result]) -> Result:
        """Run clients."""
        return work(self._connect)

    @contextmanager
    def _connect(self) -> Iterator[Ask]:
        with Client(self.note.gateway.address) as client:

            def ask(data: bytes) -> list[int]:
                hits = client.retrieve(dicom=data, top_k=TOP).hits
                return [self.places.get(hit.case.sop_instance_uid, -1) for hit in hits]

            yield ask


#: Name -> makes a candidate whose data lie in a folder.
CANDIDATES: dict[str, Callable[[Path], Candidate]] = {
    "DAFH, 64 bits": partial(Dafh, 64),
    "DAFH, 48 bits": partial(Dafh, 48),
    **{name: partial(Rebuilt, name) for name in RECIPES},
}
