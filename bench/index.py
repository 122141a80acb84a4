"""What finding cases costs: ``python -m bench.index`` measures a small archive in a minute or two.

``--full`` goes through all steps, each in a few minutes; a step whose result is kept in
``docs/performance/index`` is not measured again, so that it can be cut off and go on, but for
``--again``. ``--page`` writes the page and the plots from what is kept.

Every search is compared with faiss's `IndexBinaryFlat` over the same codes, by turns in the same
run: times are of one machine at one moment, ratios say more.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from bench import codes as kinds
from bench.environment import environment
from bench.floats import floats_step
from bench.index_page import report, write_page
from bench.stock import CODING, cases, fill, grown, memory_of
from dafh.codes import HashCode
from dafh.deadline import Deadline
from dafh.index.archives import Archives
from dafh.index.case import Coding
from dafh.index.collection import collection_name, expression
from dafh.index.connection import Connection
from dafh.index.filters.parse import parse
from dafh.index.indexing import EXACT, Index, Indexing
from dafh.index.milvus import MilvusIndex
from dafh.index.port import Query
from tests.index.servers import LiteServer, Server, StandaloneServer

KEPT = Path(__file__).resolve().parent.parent / "docs" / "performance" / "index"
SERVERS: Mapping[str, Callable[..., Server]] = {
    "embedded": LiteServer,
    "standalone": StandaloneServer,
}

TOP = 10
QUERIES = 400
WARM_UP = 50
#: Queries of a measurement of recall.
ASKED = 1_000
CLIENTS = (1, 4, 16)
#: Cases of the measurement of upserts; each batch as large as the product's.
UPSERTED, UPSERT_BATCH = 20_000, 1_000
#: Sizes of the archive that grows, and of the one of float vectors.
SIZES = (1_000, 10_000, 100_000, 1_000_000, 3_000_000, 10_000_000)
FLOATS = 200_000
FILTER = 'modality = "CT"'

Codes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Latency:
    """Searches, one after another or from several clients at once."""

    clients: int
    filtered: bool
    p50_ms: float
    p95_ms: float
    per_second: float
    #: Median of faiss over the same codes, one thread, in the same run; without a filter.
    faiss_p50_ms: float

    @property
    def ratio(self) -> float:
        """How many times faiss takes."""
        return self.p50_ms / self.faiss_p50_ms


def made_codes(kind: str, count: int) -> Codes:
    """Return codes of a kind: "real" ones are made from those of the corpus."""
    return kinds.of_kind(kind, count, 1)


def queries_of(kind: str, count: int) -> list[HashCode]:
    """Return codes that ask: of the same kind, but not those that are stored."""
    return [HashCode(row.tobytes()) for row in kinds.of_kind(kind, count, 2)]


def times(
    call: Callable[[Any], object], arguments: list[Any], warm_up: int = WARM_UP
) -> list[float]:
    """Return milliseconds of each call."""
    for argument in arguments[:warm_up]:
        call(argument)
    spent = []
    for argument in arguments:
        started = time.perf_counter()
        call(argument)
        spent.append(1000 * (time.perf_counter() - started))
    return spent


def faiss_of(codes: Codes) -> Callable[[HashCode], NDArray[np.int32]]:
    """Return faiss's exact search over codes: distances of the nearest, one thread."""
    faiss.omp_set_num_threads(1)
    flat = faiss.IndexBinaryFlat(8 * codes.shape[1])
    flat.add(codes)

    def search(code: HashCode) -> NDArray[np.int32]:
        distances, _ = flat.search(np.frombuffer(code.packed, np.uint8)[None], TOP)
        nearest: NDArray[np.int32] = distances[0]
        return nearest

    return search


def latencies(
    index: MilvusIndex, exact: Callable[[HashCode], object], asking: list[HashCode]
) -> Iterator[Latency]:
    """Measure searches of the product: unfiltered and filtered, from one client and from more."""
    bound = median(times(exact, asking))
    for filtered in (False, True):
        chosen = parse(FILTER) if filtered else None
        questions = [Query(code, TOP, filter=chosen) for code in asking]

        def ask(question: Query) -> object:
            return index.search(question, Deadline.after(60))

        for clients in CLIENTS:
            spent: list[float] = []
            shares = [questions[number::clients] for number in range(clients)]
            times(ask, questions[:WARM_UP], 0)
            with ThreadPoolExecutor(clients) as pool:
                started = time.perf_counter()
                for part in pool.map(partial(times, ask, warm_up=0), shares):
                    spent += part
                took = time.perf_counter() - started
            yield Latency(
                clients,
                filtered,
                round(median(spent), 3),
                round(quantiles(spent, n=20)[-1], 3),
                round(len(spent) / took, 1),
                round(bound, 3),
            )


def tie_aware_recall(
    index: MilvusIndex, exact: Callable[[HashCode], NDArray[np.int32]], asking: list[HashCode]
) -> float:
    """Return the share of hits that are as near as the tenth nearest, by faiss, is."""
    near = 0
    for code in asking:
        border = int(exact(code)[-1])
        hits = index.search(Query(code, TOP), Deadline.after(60)).hits
        near += sum(hit.distance <= border for hit in hits)
    return near / (TOP * len(asking))


@contextmanager
def running(server: str, **settings: Any) -> Iterator[tuple[Server, Connection]]:  # noqa: ANN401 - of Milvus
    """Run a server with an empty archive."""
    with (
        tempfile.TemporaryDirectory() as folder,
        SERVERS[server](Path(folder), **settings) as started,
    ):
        connection = Connection(started.endpoint, Deadline.after(60))
        deadline = Deadline.after(120)
        Archives(connection, CODING.tenant).create(CODING, deadline)
        yield started, connection
        connection.close()


def search_step(server: str, kind: str, rows: int) -> dict[str, Any]:
    """Fill an archive; measure memory, upserts and searches, exact and, where there is one, not."""
    codes, asking = made_codes(kind, rows), queries_of(kind, QUERIES)
    with running(server) as (started, connection):
        empty = memory_of(started.pid, started.folder)
        began = time.perf_counter()
        fill(connection, codes)
        filled = time.perf_counter() - began
        # What lies in sealed segments is what an archive at rest is.
        settle(connection)
        full = memory_of(started.pid, started.folder)
        index, exact = MilvusIndex(connection, CODING), faiss_of(codes)
        indexing = Indexing(connection, CODING)
        indexing.warm(Deadline.never())
        result: dict[str, Any] = {
            "server": server,
            "codes": kind,
            "rows": rows,
            "fingerprint": kinds.fingerprint(codes),
            "fill_rows_per_second": round(rows / filled),
            "memory": grown(empty, full),
            "flat": [asdict(one) for one in latencies(index, exact, asking)],
            "flat_bare": bare(connection, EXACT, asking),
        }
        if server == "standalone":
            result["ivf"] = approximate(connection, index, exact, asking, rows, kind)
        result["upsert"] = upserts(index, kind)
    return result


def settle(connection: Connection, coding: Coding = CODING) -> None:
    """Let a server seal, index and load all that it was given."""
    name, never = collection_name(coding), Deadline.never()
    connection.call("sealing", never, "flush", name)
    connection.call("releasing", never, "release_collection", name)
    indexing = Indexing(connection, coding)
    while facts := connection.call("waiting", never, "describe_index", name, "code"):
        if int(facts.get("pending_index_rows", 0)) == 0:
            break
        time.sleep(0.5)
    indexing.make_searchable(never)


def asking_alone(
    connection: Connection, coding: Coding, index: Index = EXACT
) -> Callable[..., object]:
    """Return what asks the server alone: for ten keys and nothing else, and by an expression."""

    def ask(code: HashCode, which: str = "") -> object:
        return connection.call(
            "searching",
            Deadline.never(),
            "search",
            collection_name(coding),
            data=[code.packed],
            anns_field="code",
            filter=which,
            limit=TOP,
            search_params=index.search_params,
        )

    return ask


def bare(connection: Connection, index: Index, asking: list[HashCode]) -> dict[str, float]:
    """Measure the server alone, without and with the tenant's term."""
    ask, tenant = asking_alone(connection, CODING, index), expression(CODING)
    return {
        "p50_ms": round(median(times(partial(ask, which=""), asking)), 3),
        "tenant_p50_ms": round(median(times(partial(ask, which=tenant), asking)), 3),
    }


def approximate(
    connection: Connection,
    index: MilvusIndex,
    exact: Callable[[HashCode], NDArray[np.int32]],
    asking: list[HashCode],
    rows: int,
    kind: str,
) -> dict[str, Any]:
    """Make lists, measure as the product does, and search; then measure recall apart."""
    indexing, nlist = Indexing(connection, CODING), 1 << round(np.log2(np.sqrt(rows)))
    began = time.perf_counter()
    made = indexing.fit(Deadline.never(), Index(nlist, nlist))
    took = time.perf_counter() - began
    indexing.warm(Deadline.never())
    told = {
        "nlist": made.nlist,
        "nprobe": made.nprobe,
        "fit_seconds": round(took, 1),
        "latency": [asdict(one) for one in latencies(index, exact, asking)],
        "bare": bare(connection, made, asking),
        "recall": round(tie_aware_recall(index, exact, queries_of(kind, ASKED)), 4),
    }
    indexing.fit(Deadline.never(), EXACT)
    return told


def upserts(index: MilvusIndex, kind: str) -> dict[str, float]:
    """Measure the product's own writes: acknowledged after a Strong read has seen them."""
    arriving = list(cases(made_codes(kind, UPSERTED), 9_999))
    spent = []
    for start in range(0, UPSERTED, UPSERT_BATCH):
        began = time.perf_counter()
        index.upsert(arriving[start : start + UPSERT_BATCH], Deadline.after(60))
        spent.append(time.perf_counter() - began)
    return {
        "batch": UPSERT_BATCH,
        "rows_per_second": round(UPSERTED / sum(spent)),
        "batch_p50_ms": round(1000 * median(spent), 1),
    }


def growth_step(rows: int) -> dict[str, Any]:
    """Measure how an archive on the standalone server grows, of real codes where they can be made.

    Fields are mapped from files, as Milvus is set where archives are large: ten million rows would
    need 13 GB otherwise.
    """
    kind = kinds.kind()
    codes, asking = made_codes(kind, rows), queries_of(kind, QUERIES // 2)
    with (
        tempfile.TemporaryDirectory() as mapped,
        running("standalone", queryNode={"mmapDirPath": mapped}) as (started, connection),
    ):
        empty = memory_of(started.pid, started.folder)
        began = time.perf_counter()
        fill(connection, codes)
        filled = time.perf_counter() - began
        settle(connection)
        full = memory_of(started.pid, started.folder)
        index, exact = MilvusIndex(connection, CODING), faiss_of(codes)
        indexing = Indexing(connection, CODING)
        indexing.warm(Deadline.never())

        def ask(code: HashCode) -> object:
            return index.search(Query(code, TOP), Deadline.after(60))

        flat = median(times(ask, asking))
        began = time.perf_counter()
        nlist = 1 << round(np.log2(np.sqrt(rows)))
        made = indexing.fit(Deadline.never(), Index(nlist, nlist))
        took = time.perf_counter() - began
        return {
            "codes": kind,
            "rows": rows,
            "fill_rows_per_second": round(rows / filled),
            "memory": grown(empty, full),
            "faiss_p50_ms": round(median(times(exact, asking)), 3),
            "flat_p50_ms": round(flat, 3),
            "ivf": {"nlist": made.nlist, "nprobe": made.nprobe, "fit_seconds": round(took, 1)},
            "ivf_p50_ms": round(median(times(ask, asking)), 3),
            "ivf_recall": round(tie_aware_recall(index, exact, queries_of(kind, ASKED // 2)), 4),
        }


def steps() -> dict[str, Callable[[], dict[str, Any]]]:
    """Return all steps of the full measurement by name."""
    million = 1_000_000
    made: dict[str, Callable[[], dict[str, Any]]] = {
        f"search-{server}-{kind}": partial(search_step, server, kind, million)
        for server in SERVERS
        for kind in ("real", "uniform")
    }
    made |= {f"growth-{rows}": partial(growth_step, rows) for rows in SIZES}
    made |= {f"floats-{kind}": partial(floats_step, kind, FLOATS) for kind in ("ivf", "hnsw")}
    return made


def full(wanted: list[str], *, again: bool) -> None:
    """Go through the steps; what is kept is measured again only where that is wanted."""
    KEPT.mkdir(parents=True, exist_ok=True)
    for name, step in steps().items():
        kept = KEPT / f"{name}.json"
        if (kept.exists() and not again) or (wanted and name not in wanted):
            continue
        if name.endswith("real") and kinds.kind() != "real":
            sys.stderr.write(f"{name}: left out, {kinds.CORPUS.name} is not there\n")
            continue
        began = time.monotonic()
        told = environment() | step() | {"seconds": round(time.monotonic() - began)}
        kept.write_text(json.dumps(told, indent=1) + "\n")
        sys.stdout.write(f"{name}: {told['seconds']} s\n")
        sys.stdout.flush()


def small(rows: int) -> None:
    """Measure small archives, and print what was found."""
    found = [search_step(server, kinds.kind(), rows) for server in SERVERS]
    told = environment()
    sys.stdout.write(report([told | one for one in found]) + "\n")


def main(words: list[str] | None = None) -> None:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m bench.index", description=__doc__)
    parser.add_argument("--full", action="store_true", help="go through all steps")
    parser.add_argument("--step", action="append", default=[], help="of --full, this one only")
    parser.add_argument("--again", action="store_true", help="also what is kept")
    parser.add_argument("--page", action="store_true", help="write the page of what is kept")
    parser.add_argument("--rows", type=int, default=50_000, help="of the small archives")
    arguments = parser.parse_args(words)
    if arguments.full:
        full(arguments.step, again=arguments.again)
    if arguments.full or arguments.page:
        write_page(list(steps()))
    else:
        small(arguments.rows)


if __name__ == "__main__":
    main()
