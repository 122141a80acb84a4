"""`kill -9` in the middle of bulk upserts: what was acknowledged is there, whole, and once.

A process stores batches, some cases a second time and some with other pixels, and notes on disk
each batch that it begins and each that was acknowledged. The server or this process is killed at a
random moment, and another goes on with the first batch that was not acknowledged. In the end the
archive is what one in memory is that got the same batches undisturbed.
"""

from __future__ import annotations

import multiprocessing
import random
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dafh.deadline import Deadline
from dafh.errors import DafhError
from dafh.index.case import Case, CaseId, Coding
from dafh.index.endpoint import Endpoint
from dafh.index.exact import ExactIndex
from dafh.index.milvus import MilvusIndex
from dafh.index.port import MAX_TOP_K, Query
from tests.index.models import soon
from tests.index.servers import Server
from tests.index.writer import ACKNOWLEDGED, BEGUN, Journal, batch, write

pytestmark = pytest.mark.stack

NewCoding = Callable[..., Coding]
Opened = Callable[[Endpoint, Coding], MilvusIndex]

#: Rounds of `make test`, and of `make test-long`.
FEW, MANY = 1, 20
#: Seconds after the first acknowledged batch of a round in which the kill comes.
SOONEST, LATEST = 0.02, 0.8

SPAWN = multiprocessing.get_context("spawn")


def killed_at_work(
    server: Server, coding: Coding, journal: Journal, victim: str, moment: float
) -> None:
    """Let a process write; kill the server, or it, a moment after it had a batch acknowledged."""
    before = len(journal.numbers(ACKNOWLEDGED))
    writer = SPAWN.Process(target=write, args=(server.endpoint, coding, journal.path), daemon=True)
    writer.start()
    try:
        deadline = Deadline.after(60)
        while len(journal.numbers(ACKNOWLEDGED)) == before:
            deadline.remaining("waiting for the writer")
            assert writer.is_alive(), "the writer ended by itself"
            time.sleep(0.005)
        time.sleep(moment)
        assert writer.is_alive()
        if victim == "server":
            server.kill()
    finally:
        writer.kill()
        writer.join()
        writer.close()


def answering(server: Server, coding: Coding) -> MilvusIndex:
    """Return the archive as soon as it can be asked."""
    deadline = Deadline.after(120)
    while True:
        try:
            index = MilvusIndex.open(server.endpoint, coding, deadline)
        except DafhError as error:
            if not error.waiting_helps:
                raise
            time.sleep(0.05)
        else:
            return index


def check(index: MilvusIndex, journal: Journal) -> None:
    """Hold the archive against the journal: nothing lost, torn or doubled."""
    coding = index.coding
    stored = {case.id: case for case in index.scan(soon())}
    assert index.count(soon()) == len(stored), "doubled"
    written: dict[CaseId, list[Case]] = defaultdict(list)
    for number in journal.numbers(BEGUN):
        for case in batch(coding, number):
            written[case.id].append(case)
    torn = [key for key, case in stored.items() if case not in written[key]]
    assert not torn, "torn"
    reference = ExactIndex(coding)
    for number in journal.numbers(ACKNOWLEDGED):
        reference.upsert(batch(coding, number), soon())
    for case in reference.scan(soon()):
        assert case.id in stored, "lost"
        # Of a batch that was not acknowledged some may stand; they stand by precedence only.
        assert ExactIndex(coding, [stored[case.id], case]).get([case.id], soon()) == {
            case.id: stored[case.id]
        }, "lost against a row that it precedes"
    some = next(iter(stored.values()))
    hits = index.search(Query(some.code, MAX_TOP_K), soon()).hits
    assert len({hit.case.id for hit in hits}) == len(hits) == min(MAX_TOP_K, len(stored)), "doubled"
    assert all(hit.case == stored[hit.case.id] for hit in hits)


def survive(server: Server, coding: Coding, journal: Journal, victim: str, rounds: int) -> None:
    """Kill again and again, and check each time; at the end finish what was begun."""
    moments = random.Random(rounds)  # noqa: S311 - no secrets
    MilvusIndex.open_or_create(server.endpoint, coding, Deadline.after(60)).close()
    for _ in range(rounds):
        killed_at_work(server, coding, journal, victim, moments.uniform(SOONEST, LATEST))
        if victim == "server":
            server.start()
        index = answering(server, coding)
        check(index, journal)
        index.close()
    index, reference = answering(server, coding), ExactIndex(coding)
    for number in journal.numbers(BEGUN):
        if number not in journal.numbers(ACKNOWLEDGED):
            index.upsert(batch(coding, number), Deadline.after(60))
        reference.upsert(batch(coding, number), soon())
    assert len(journal.numbers(ACKNOWLEDGED)) >= rounds
    assert list(index.scan(soon())) == list(reference.scan(soon()))
    index.close()


@pytest.mark.parametrize("victim", ["server", "client"])
def test_a_kill_in_the_middle_of_upserts_loses_tears_and_doubles_nothing(
    own_server: Server, new_coding: NewCoding, tmp_path: Path, victim: str
) -> None:
    survive(own_server, new_coding(), Journal(tmp_path / "journal"), victim, FEW)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("victim", ["server", "client"])
def test_many_kills_in_the_middle_of_upserts_lose_tear_and_double_nothing(
    own_server: Server, new_coding: NewCoding, tmp_path: Path, victim: str
) -> None:
    survive(own_server, new_coding(), Journal(tmp_path / "journal"), victim, MANY)


def test_the_check_of_these_tests_notices_what_a_kill_could_do(
    server: Server, opened: Opened, new_coding: NewCoding, tmp_path: Path
) -> None:
    coding = new_coding()
    index, journal = opened(server.endpoint, coding), Journal(tmp_path / "journal")
    for number in (0, 1):
        index.upsert(batch(coding, number), soon())
        journal.note(BEGUN, number)
        journal.note(ACKNOWLEDGED, number)
    check(index, journal)
    first = batch(coding, 0)
    index.delete([first[3].id], soon())
    with pytest.raises(AssertionError, match="lost"):
        check(index, journal)
    index.upsert([replace(first[3], label="half")], soon())
    with pytest.raises(AssertionError, match="torn"):
        check(index, journal)
    # One that came with other pixels, and lies there as the row that should have given way.
    index.delete([first[3].id], soon())
    index.upsert([first[3]], soon())
    check(index, journal)
    both = {case.id: case for case in first}
    later = next(case for case in batch(coding, 1) if case.id in both and case != both[case.id])
    stands = index.get([later.id], soon())[later.id]
    gives_way = both[later.id] if stands == later else later
    index.delete([later.id], soon())
    index.upsert([gives_way], soon())
    with pytest.raises(AssertionError, match="precedes"):
        check(index, journal)
