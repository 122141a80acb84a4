"""What gateway, Triton and Milvus add to a query: ``python -m bench.gateway``.

The bound is the same query in one process: decode, ONNX Runtime, faiss exact search, at the same
archive size and the same threads. Everything is measured in one run, on the embedded stack as users
start it (`dafh up`); the client's processor time is not counted. Every query is another file, so
that none is answered from what was encoded a moment ago. Writes docs/performance/gateway.json;
`python -m bench.report` makes pages of it.
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import faiss
import grpc
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from bench import codes as kinds
from bench.environment import environment
from bench.index import settle
from bench.load import WARM_UP, Ask, Load, fresh, one_by_one, percentiles, saturate
from bench.parts import TOP_K, parts
from bench.processes import Spent, resident, watched
from bench.stack import coding_of, encoder_of, index_of, pids, running
from bench.stock import fill
from dafh.client import Client, Target, question
from dafh.codes import HashCode
from dafh.deadline import Deadline
from dafh.encoding.onnx import OnnxEncoder
from dafh.imaging.decode import decode
from dafh.imaging.phantom import phantoms
from dafh.index.connection import Connection
from dafh.settings import ModelSettings
from dafh.stack import Stack
from tests.imaging.encoders import encoded
from tests.imaging.instances import write_instance

OUT = Path(__file__).resolve().parent.parent / "docs" / "performance"
BITS = 64
#: What an overloaded service is sent, times what it can do.
OVERLOAD = 5.0
#: Clients at once of the throughput that is held against the bound's, and its turns.
BUSY, SLOTS = 8, 4


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    cases: int = 100_000
    #: Queries of each latency.
    queries: int = 200
    #: Of each throughput.
    seconds: float = 8.0
    clients: tuple[int, ...] = (1, 2, 4, 8, 16)


def files() -> dict[str, bytes]:
    """Return a CT, uncompressed and as JPEG 2000, and a small picture as DICOM."""
    plain = next(one.data for one in phantoms(60, 1) if one.modality == "CT")
    data_set = dcmread(io.BytesIO(plain))
    stream = encoded(data_set.pixel_array, JPEG2000Lossless, int(data_set.BitsStored))
    data_set.PixelData = encapsulate([stream])
    data_set["PixelData"].VR = "OB"
    data_set["PixelData"].is_undefined_length = True
    data_set.file_meta.TransferSyntaxUID = JPEG2000Lossless
    packed = io.BytesIO()
    data_set.save_as(packed)
    pixels = np.random.default_rng(0).integers(0, 4096, (128, 128), dtype=np.uint16)
    small = write_instance(pixels)
    return {"CT": plain, "CT, JPEG 2000": packed.getvalue(), "128 x 128": small}


class Bound:
    """One query in one process."""

    def __init__(self, encoder: OnnxEncoder, codes: NDArray[np.uint8]) -> None:
        self.encoder = encoder
        faiss.omp_set_num_threads(1)
        self.index = faiss.IndexBinaryFlat(BITS)
        self.index.add(codes)

    def ask(self, data: bytes) -> None:
        """Answer one query."""
        image = decode(data, side=self.encoder.model.side, content_hash=False)
        outputs = self.encoder.encode(image.pixels[None], Deadline.never())
        code = np.frombuffer(HashCode.of(outputs.hashes[BITS][0]).packed, np.uint8)[None]
        self.index.search(code, TOP_K)


def codes_of(scale: Scale) -> NDArray[np.uint8]:
    """Return the codes of the archive, uint8 ``[cases, 8]``."""
    return kinds.of_kind(kinds.kind(), scale.cases, 7)


_BOUND: Bound | None = None


def _bound_for(data: bytes, seconds: float, cases: int) -> int:
    global _BOUND
    if _BOUND is None:
        settings = ModelSettings()
        encoder = OnnxEncoder(settings.model_repository, settings.model_version)
        _BOUND = Bound(encoder, codes_of(Scale(cases)))
    made = fresh([data])
    _BOUND.ask(next(made))
    began, done = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        _BOUND.ask(next(made))
        done += 1
    return done


@contextmanager
def client(address: str) -> Iterator[Ask]:
    """Yield what asks a gateway, as an application that tries again when it is told to."""
    with Client(address, timeout=20) as made:
        yield lambda data: made.retrieve(dicom=data, top_k=TOP_K)


def loaded(stack: Stack, data: bytes, clients: int, seconds: float) -> Load:
    """Ask a gateway from clients that never pause."""
    return saturate(partial(client, stack.gateway.address), fresh([data]), clients, seconds)


def compared(stack: Stack, data: bytes, answering: Bound, scale: Scale) -> dict[str, Any]:
    """Measure the bound and a gateway by turns, so that a busy machine slows both: unloaded."""
    made, used = fresh([data]), 0.0
    times: dict[str, list[float]] = {"bound": [], "served": []}
    with client(stack.gateway.address) as ask:
        for asked in (answering.ask, ask):
            one_by_one(asked, made, 0)
        servers = Spent(pids(stack))
        for _ in range(scale.queries):
            began = time.process_time()
            times["bound"] += one_by_one(answering.ask, made, 1, 0)
            used += time.process_time() - began
            times["served"] += one_by_one(ask, made, 1, 0)
        each = servers.each(scale.queries)
    found: dict[str, Any] = {name: percentiles(taken) for name, taken in times.items()}
    found["bound"]["cpu_ms"] = round(1000 * used / scale.queries, 2)
    found["served"] |= {"cpu_ms": round(sum(each.values()), 2), "cpu_ms_of": each}
    return found


def rates(stack: Stack, data: bytes, scale: Scale) -> tuple[float, float, Counter[str]]:
    """Return answers per second by turns: of a process a core, and of a gateway with clients."""
    cores, slot = len(os.sched_getaffinity(0)), scale.seconds / SLOTS
    alone, outcomes = 0, Counter[str]()
    with ProcessPoolExecutor(cores) as pool:
        for turn, seconds in enumerate((0.1, *[slot] * SLOTS)):
            asked = [pool.submit(_bound_for, data, seconds, scale.cases) for _ in range(cores)]
            done = sum(one.result() for one in asked)
            if turn:
                alone += done
                outcomes += loaded(stack, data, BUSY, slot).outcomes
    return (
        round(alone / scale.seconds, 1),
        round(outcomes["answered"] / scale.seconds, 1),
        outcomes,
    )


def query(stack: Stack, data: bytes, answering: Bound, scale: Scale) -> dict[str, Any]:
    """Measure one kind of query: unloaded, then busy."""
    found = compared(stack, data, answering, scale)
    alone, together, outcomes = rates(stack, data, scale)
    found["bound"]["per_s"] = alone
    found["served"] |= {"per_s": together, "outcomes": dict(outcomes)}
    return {"bytes": len(data), **found}


def _flood(address: str, data: bytes, rate: float, seconds: float) -> tuple[list[float], int]:
    """Send at a rate whatever comes back; return the milliseconds of answers, and how many went."""
    made, sent = fresh([data]), 0
    times: list[float] = []
    # It would look through all calls under way, for so long that what is due goes in bursts.
    gc.disable()
    with Client(Target(address, retry=False), timeout=10) as client:
        pending = []
        began = time.monotonic()
        while (now := time.monotonic() - began) < seconds:
            while sent < now * rate:
                started = time.perf_counter()
                call = client.retrieval.Retrieve.future(
                    question({"top_k": TOP_K}, dicom=next(made)), timeout=10
                )
                call.add_done_callback(partial(_note, times, started))
                pending.append(call)
                sent += 1
            time.sleep(0.002)
        for call in pending:
            call.exception()
    time.sleep(0.2)
    return times, sent


def _note(times: list[float], started: float, done: grpc.Future[object]) -> None:
    """Note how long an answer took."""
    if done.exception() is None:
        times.append(1000 * (time.perf_counter() - started))


def overload(address: str, data: bytes, peak: float, seconds: float) -> dict[str, Any]:
    """Send five times what the service can do, from a process of its own."""
    with ProcessPoolExecutor(1) as pool:
        flood = pool.submit(_flood, address, data, OVERLOAD * peak, seconds)
        times, sent = flood.result()
    return {
        "sent_per_s": round(sent / seconds, 1),
        "goodput_per_s": round(len(times) / seconds, 1),
        **percentiles(times),
    }


def concurrency(stack: Stack, data: bytes, scale: Scale) -> dict[str, Any]:
    """Measure what more clients at once get, and what memory the servers take meanwhile."""
    every = min(1.0, scale.seconds / 4)
    with watched(pids(stack), every) as seen:
        loads = [loaded(stack, data, clients, scale.seconds).figures() for clients in scale.clients]
    return {"concurrency": loads, "memory_mib": seen, "memory_every_s": every}


def stages(log: Path, queries: int) -> dict[str, float]:
    """Return the mean milliseconds of each stage of the first, unloaded, queries, from the log."""
    # Lines of the audit stand between those of the calls.
    lines = [line for line in log.read_text().splitlines() if '"stages"' in line and '"OK"' in line]
    told = [json.loads(line) for line in lines[WARM_UP : WARM_UP + queries]]
    calls = [one["stages"] | {"all": one["ms"]} for one in told]
    return {name: round(fmean(call[name] for call in calls), 2) for name in calls[0]}


def stock(stack: Stack, codes: NDArray[np.uint8]) -> None:
    """Fill the archive, past the gateway."""
    coding = coding_of(stack)
    index_of(stack).close()
    connection = Connection(stack.milvus_uri, Deadline.after(60))
    fill(connection, codes, coding=coding)
    settle(connection, coding)
    connection.close()


def run(folder: Path, scale: Scale, settings: dict[str, Any]) -> dict[str, Any]:
    """Measure everything."""
    about = environment()
    queries, codes = files(), codes_of(scale)
    found: dict[str, dict[str, Any]] = {}
    with running(folder, **settings) as stack:
        stock(stack, codes)
        answering = Bound(encoder_of(stack), codes)
        for name, data in queries.items():
            found[name] = query(stack, data, answering, scale)
        results = {
            "environment": about,
            "settings": settings,
            "cases": scale.cases,
            "codes": kinds.kind(),
            "queries": found,
            "stages_ms": stages(folder / "logs" / "gateway.log", scale.queries),
            "parts_ms": parts(stack, codes, fresh([queries["CT"]]), scale.queries),
            **concurrency(stack, queries["CT"], scale),
        }
        small, peak = queries["128 x 128"], found["128 x 128"]["served"]["per_s"]
        results["overload"] = overload(stack.gateway.address, small, peak, scale.seconds)
        results["resident_mib"] = {name: resident(pid) for name, pid in pids(stack).items()}
    return results


def main(words: list[str] | None = None) -> None:
    """Measure, keep and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the JSON")
    parser.add_argument("--set", action="append", default=[], help="NAME=VALUE of the gateway")
    parser.add_argument("--cases", type=int, default=Scale.cases)
    parser.add_argument("--queries", type=int, default=Scale.queries, help="of each latency")
    parser.add_argument("--seconds", type=float, default=Scale.seconds, help="of each throughput")
    parser.add_argument("--clients", type=int, nargs="*", default=Scale.clients)
    options = parser.parse_args(words)
    settings = {name: json.loads(value) for name, value in (one.split("=") for one in options.set)}
    scale = Scale(options.cases, options.queries, options.seconds, tuple(options.clients))
    with tempfile.TemporaryDirectory(prefix="dafh-bench-") as folder:
        results = run(Path(folder), scale, settings)
    text = json.dumps(results, indent=1) + "\n"
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gateway.json").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
