"""The index over the codes: chosen by size, measured, and honest about what it may miss."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dafh.codes import HashCode
from dafh.deadline import Deadline
from dafh.errors import DafhError, FailedPrecondition, Reason, Unavailable
from dafh.index import indexing
from dafh.index.capabilities import capabilities
from dafh.index.case import Case, Coding
from dafh.index.collection import collection_name
from dafh.index.connection import Connection
from dafh.index.endpoint import Endpoint
from dafh.index.exact import ExactIndex
from dafh.index.indexing import EXACT, FLAT_ROWS, FRESH_S, Index, Indexing, choose, recall
from dafh.index.milvus import MilvusIndex
from dafh.index.port import Found, Outcome, Query
from tests.index.models import Died, dying_at
from tests.index.servers import LiteServer, StandaloneServer

NewCoding = Callable[..., Coding]
NewCase = Callable[..., Case]
Opened = Callable[[Endpoint, Coding], MilvusIndex]

#: Enough rows that Milvus makes lists of them (rootCoord.minSegmentSizeToEnableIndex is 1024).
ROWS = 1500
CENTRES = 60


def soon() -> Deadline:
    return Deadline.after(90)


@given(st.integers(0, 10**10))
def test_an_archive_is_exact_up_to_a_few_million_cases_and_has_lists_beyond(rows: int) -> None:
    index = choose(rows)
    if rows <= FLAT_ROWS:
        assert index == EXACT
        assert not index.approximate
        return
    # Until it has been measured, every list is read.
    assert index.nprobe == index.nlist
    assert not index.approximate
    assert index.nlist == 4096 or 0.7 < index.nlist / math.sqrt(rows) < 1.5


def test_recall_counts_a_hit_as_near_as_the_last_true_one() -> None:
    exact = np.array([[0, 1, 3], [2, 2, 2]])
    assert recall(exact, exact) == 1
    assert recall(np.array([[3, 3, 3], [2, 2, 2]]), exact) == 1
    assert recall(np.array([[0, 1, 4], [2, 3, 3]]), exact) == 0.5


@pytest.fixture
def archive(
    standalone: StandaloneServer, opened: Opened, new_coding: NewCoding, new_case: NewCase
) -> tuple[MilvusIndex, ExactIndex, list[Case]]:
    """An archive in clusters on the standalone server, and the same one exact."""
    coding = new_coding()
    index, exact = opened(standalone.endpoint, coding), ExactIndex(coding)
    cases = [new_case(coding, number, code=clustered(number)) for number in range(ROWS)]
    for kept in (index, exact):
        kept.upsert(cases, soon())
    return index, exact, cases


@pytest.fixture
def index_of(standalone: StandaloneServer) -> Iterator[Callable[[MilvusIndex], Indexing]]:
    """Return what gives access to the index below an archive."""
    with closing(Connection(standalone.endpoint, soon())) as connection:
        yield lambda index: Indexing(connection, index.coding)


def clustered(number: int) -> HashCode:
    """A code a few bits from one of the centres."""
    centre = hashlib.sha256(b"centre %d" % (number % CENTRES)).digest()[:8]
    noise = hashlib.sha256(b"noise %d" % number).digest()
    flips = 1 << noise[0] % 64 | 1 << noise[1] % 64 | 1 << noise[2] % 64
    return HashCode((int.from_bytes(centre, "big") ^ flips).to_bytes(8, "big"))


@pytest.mark.stack
def test_an_approximate_index_says_so_and_finds_what_was_measured(
    archive: tuple[MilvusIndex, ExactIndex, list[Case]],
    index_of: Callable[[MilvusIndex], Indexing],
    new_case: NewCase,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    index, exact, cases = archive
    asked: list[int] = []
    call = Connection.call

    def seen(connection: Connection, *words: Any, **named: Any) -> Any:  # noqa: ANN401 - as it is
        asked.append(len(named.get("data", ())))
        return call(connection, *words, **named)

    with monkeypatch.context() as watched:
        watched.setattr(Connection, "call", seen)
        made = index_of(index).fit(soon(), Index(128, 128))
    # A large sample that asks all at once stalls a server with a large archive.
    assert max(asked) == indexing.ABREAST
    assert made == index_of(index).read(soon())
    assert 1 <= made.nprobe < 128
    queries = [Query(clustered(10_000 + number), 10) for number in range(100)]
    found = [index.search(query, soon()) for query in queries]
    true = [exact.search(query, soon()) for query in queries]
    assert all(answer.approximate for answer in found)
    near = [
        sum(hit.distance <= best.hits[-1].distance for hit in answer.hits) / 10
        for answer, best in zip(found, true, strict=True)
    ]
    assert np.mean(near) >= 0.97
    # What is read by key is exact as before: nothing may be overlooked when rows are written.
    assert index.get([case.id for case in cases], soon()) == {case.id: case for case in cases}
    assert index.upsert(cases[:50], soon()) == [Outcome.UNCHANGED] * 50
    late = new_case(index.coding, ROWS, code=clustered(ROWS))
    assert index.upsert([late], soon()) == [Outcome.ADDED]
    assert index.search(Query(late.code, 1), soon()).hits[0].case == late
    assert index.delete([cases[0].id, late.id], soon()) == 2
    exact.delete([cases[0].id], soon())
    assert list(index.scan(soon())) == list(exact.scan(soon()))
    # And back.
    assert index_of(index).fit(soon()) == EXACT
    threading.Event().wait(FRESH_S)
    for query in queries[:20]:
        assert index.search(query, soon()) == exact.search(query, soon())


@pytest.mark.stack
def test_a_search_while_the_index_is_made_again_is_right_or_unavailable(
    archive: tuple[MilvusIndex, ExactIndex, list[Case]],
    index_of: Callable[[MilvusIndex], Indexing],
) -> None:
    index, exact, _ = archive
    # One list of many is read: what it misses would not be overlooked.
    few, done = Index(128, 1), threading.Event()
    answers: list[Found] = []
    faults: set[str] = set()
    query = Query(clustered(70_000), 200)
    true = exact.search(query, soon())

    def search() -> None:
        while not done.is_set():
            try:
                answers.append(index.search(query, soon()))
            except Unavailable:
                continue
            except DafhError as error:
                faults.add(str(error))

    def answered(*, approximate: bool) -> None:
        """Wait for an answer of this kind that was asked for from now on."""
        before, patience = len(answers), soon()
        while all(answer.approximate is not approximate for answer in answers[before:]):
            patience.remaining("an answer of the index that was made")
            done.wait(0.01)

    searcher = threading.Thread(target=search)
    searcher.start()
    try:
        made = index_of(index)
        answered(approximate=False)
        made.fit(soon(), few)
        answered(approximate=True)
        made.fit(soon(), EXACT)
        answered(approximate=False)
    finally:
        done.set()
        searcher.join()
    assert faults == set()
    assert all(answer.approximate or answer == true for answer in answers)
    # By now nobody believes in the former index any more.
    assert answers[-1] == true


@pytest.mark.stack
@pytest.mark.long
def test_whoever_dies_while_an_index_is_made_leaves_an_archive_that_answers_right(
    archive: tuple[MilvusIndex, ExactIndex, list[Case]],
    index_of: Callable[[MilvusIndex], Indexing],
    standalone: StandaloneServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(indexing, "LEASE_S", 5.0)
    index, exact, _ = archive
    # The number of lists that a former one was measured to need.
    index_of(index).fit(soon(), Index(128, 1))
    index_of(index).fit(soon(), EXACT)
    query, stages = Query(clustered(70_000), 200), []
    for stage in ("create_index", "search"):
        with closing(Connection(standalone.endpoint, soon())) as mortal:
            capabilities(mortal, soon())
            with dying_at(stage, mortal), pytest.raises(Died):
                Indexing(mortal, index.coding).fit(soon(), Index(128, 128))
        with pytest.raises(Unavailable):
            index_of(index).read(soon())
        threading.Event().wait(indexing.LEASE_S)
        with closing(MilvusIndex.open(standalone.endpoint, index.coding, soon())) as opened:
            assert opened.search(query, soon()) == exact.search(query, soon())
        made = index_of(index).read(soon())
        assert made is not None
        stages.append(made.nlist)
    # The last one died when all but the measurement was done.
    assert stages == [0, 128]


@pytest.mark.stack
@pytest.mark.parametrize("left", ["an index that is not loaded", "no index"])
def test_who_runs_on_makes_searchable_again_what_the_dead_left_released(
    standalone: StandaloneServer,
    opened: Opened,
    new_coding: NewCoding,
    new_case: NewCase,
    left: str,
) -> None:
    coding = new_coding()
    index, case = opened(standalone.endpoint, coding), new_case(coding, 1)
    index.upsert([case], soon())
    query, name = Query(case.code, 1), collection_name(coding)
    assert index.search(query, soon()).hits[0].case == case
    with closing(Connection(standalone.endpoint, soon())) as connection:
        connection.call("x", soon(), "release_collection", name)
        if left == "no index":
            for made in connection.call("x", soon(), "list_indexes", name):
                connection.call("x", soon(), "drop_index", name, made)
    assert index.search(query, soon()).hits[0].case == case
    assert list(index.scan(soon())) == [case]


@pytest.mark.stack
def test_milvus_lite_refuses_an_approximate_index_and_keeps_the_exact_one(
    lite: LiteServer, opened: Opened, new_coding: NewCoding, new_case: NewCase
) -> None:
    coding = new_coding()
    index, case = opened(lite.endpoint, coding), new_case(coding, 1)
    index.upsert([case], soon())
    with closing(Connection(lite.endpoint, soon())) as connection:
        made = Indexing(connection, coding)
        with pytest.raises(FailedPrecondition) as refusal:
            made.fit(soon(), Index(128, 128))
        assert refusal.value.reason is Reason.INDEX_INCAPABLE
        assert made.read(soon()) == EXACT
        assert made.fit(soon()) == EXACT
    assert index.search(Query(case.code, 1), soon()).hits[0].case == case


@pytest.mark.stack
def test_a_collection_is_warm_when_it_has_been_loaded(
    archive: tuple[MilvusIndex, ExactIndex, list[Case]],
    standalone: StandaloneServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    index, _, _ = archive
    warmed: list[Coding] = []
    monkeypatch.setattr(Indexing, "warm", lambda self, _: warmed.append(self._coding))
    name = collection_name(index.coding)
    with closing(Connection(standalone.endpoint, soon())) as connection:
        made = Indexing(connection, index.coding)
        made.make_searchable(soon())
        assert warmed == []
        connection.run("x", soon(), lambda client, _: client.release_collection(name))
        made.make_searchable(soon())
    assert warmed == [index.coding]
