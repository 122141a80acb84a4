"""What gateway, Triton and Milvus add to one query: ``python -m bench.gateway [--json FILE]``.

The bound is the same query in one process: decode, ONNX Runtime, faiss exact search, at the same
archive size and the same threads. Everything is measured in one run, on the machine's own servers;
the client's processor time is not counted. Every query is another file, so that none is answered
from what was encoded a moment ago.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import grpc
import numpy as np
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from bench.codes import CHECKOUT
from dafh.client import Client, Target, question
from dafh.codes import HashCode
from dafh.deadline import Deadline
from dafh.encoding.onnx import OnnxEncoder
from dafh.errors import DafhError
from dafh.imaging.decode import decode
from dafh.imaging.image import PatientKeyer
from dafh.imaging.phantom import phantoms
from dafh.index.case import DEFAULT_ARCHIVE, DEFAULT_TENANT, Case, Coding, case_id
from dafh.index.milvus import MilvusIndex
from dafh.security.keys import create_key, load_key
from tests.chaos.process import GatewayProcess
from tests.chaos.triton import Triton
from tests.imaging.encoders import encoded
from tests.imaging.instances import write_instance
from tests.index.servers import LiteServer

CASES = 100_000
QUERIES = 200
TOP_K = 10
#: Seconds of each throughput measurement.
SECONDS = 8.0
PATIENT = b"PHANTOM-"
#: What an overloaded service is sent, times what it can do.
OVERLOAD = 5.0


def files() -> dict[str, bytes]:
    """Return a CT, uncompressed and as JPEG 2000, and a small picture as DICOM."""
    plain = next(one.data for one in phantoms(60, 1) if modality(one.data) == "CT")
    data_set = dcmread(io.BytesIO(plain))
    stream = encoded(data_set.pixel_array, JPEG2000Lossless, int(data_set.BitsStored))
    data_set.PixelData = encapsulate([stream])
    data_set["PixelData"].VR = "OB"
    data_set["PixelData"].is_undefined_length = True
    data_set.file_meta.TransferSyntaxUID = JPEG2000Lossless
    packed = io.BytesIO()
    data_set.save_as(packed)
    pixels = np.random.default_rng(0).integers(0, 4096, (128, 128), dtype=np.uint16)
    small = write_instance(pixels, PatientID="PHANTOM-00000000", PatientName="PHANTOM-00000000")
    return {"CT": plain, "CT, JPEG 2000": packed.getvalue(), "small": small}


def modality(data: bytes) -> str:
    """Return the modality of a DICOM file."""
    return str(dcmread(io.BytesIO(data), stop_before_pixels=True).Modality)


def variants(data: bytes) -> Iterator[bytes]:
    """Yield files with the same pixels of which no two are equal."""
    data_set = dcmread(io.BytesIO(data))
    data_set.PatientName = "PHANTOM-00000000"
    stream = io.BytesIO()
    data_set.save_as(stream)
    head, _, tail = stream.getvalue().partition(b"PHANTOM-00000000")
    number = int(time.time() * 1000) % 10**7
    while True:
        number += 1
        yield head + PATIENT + f"{number % 10**8:08}".encode() + tail


class Bound:
    """One query in one process."""

    def __init__(self) -> None:
        self.encoder = OnnxEncoder(CHECKOUT / "model_repository", 1, threads=1)
        faiss.omp_set_num_threads(1)
        self.index = faiss.IndexBinaryFlat(64)
        self.index.add(codes())

    def ask(self, data: bytes) -> None:
        """Answer one query."""
        image = decode(data, side=self.encoder.model.side)
        encoded = self.encoder.encode(image.pixels[None], Deadline.never())
        code = np.frombuffer(HashCode.of(encoded.hashes[64][0]).packed, np.uint8)[None]
        self.index.search(code, TOP_K)


def codes() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the codes of the archive, uint8 ``[CASES, 8]``."""
    return np.random.default_rng(7).integers(0, 256, (CASES, 8), dtype=np.uint8)


def fill(index: MilvusIndex) -> None:
    """Store the archive."""
    coding, packed = index.coding, codes()
    for start in range(0, CASES, 10_000):
        cases = []
        for place in range(start, start + 10_000):
            uid = f"2.25.{place + 1}"
            cases.append(
                Case(
                    id=case_id(coding.tenant, coding.archive, uid, 1),
                    code=HashCode(packed[place].tobytes()),
                    sop_instance_uid=uid,
                    study_instance_uid=f"2.26.{place + 1}",
                    series_instance_uid=f"2.27.{place + 1}",
                    frame=1,
                    content_sha256=f"{place:064x}",
                    ingest_time=1,
                    label="x",
                )
            )
        index.upsert(cases, Deadline.after(120))


def tree(pid: int) -> Iterator[int]:
    """Yield a process and all that it has started."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from tree(int(child))


def spent(root: int) -> float:
    """Return processor seconds of a process, of what it started and what of that has ended."""
    ticks = 0
    for pid in tree(root):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def one_by_one(ask: Callable[[bytes], object], made: Iterator[bytes]) -> list[float]:
    """Return the milliseconds of queries, one after the other, the first ones left out."""
    times = []
    for number in range(QUERIES + 20):
        data = next(made)
        began = time.perf_counter()
        ask(data)
        if number >= 20:
            times.append(1000 * (time.perf_counter() - began))
    return times


def percentiles(times: list[float]) -> dict[str, float]:
    """Return percentiles of milliseconds."""
    return {f"p{share}": round(float(np.percentile(times, share)), 2) for share in (50, 95, 99)}


_BOUND: Bound | None = None


def _bound_for(data: bytes, seconds: float) -> tuple[int, float]:
    global _BOUND
    _BOUND = _BOUND or Bound()
    made = variants(data)
    _BOUND.ask(next(made))
    began, used, done = time.monotonic(), time.process_time(), 0
    while time.monotonic() - began < seconds:
        _BOUND.ask(next(made))
        done += 1
    return done, time.process_time() - used


def bound_throughput(data: bytes) -> float:
    """Return queries per second of as many processes as there are cores."""
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores) as pool:
        list(pool.map(_bound_for, [data] * cores, [0.5] * cores))
        done = sum(one for one, _ in pool.map(_bound_for, [data] * cores, [SECONDS] * cores))
    return done / SECONDS


def saturate(address: str, data: bytes, clients: int) -> tuple[float, list[float], Counter[str]]:
    """Return answers per second, their milliseconds and outcomes, of clients without pause."""
    lock, made = threading.Lock(), variants(data)
    times: list[float] = []
    outcomes: Counter[str] = Counter()
    until = time.monotonic() + SECONDS

    def ask(_: int) -> None:
        with Client(Target(address, retry=False), timeout=20) as client:
            while time.monotonic() < until:
                with lock:
                    query = next(made)
                began = time.perf_counter()
                try:
                    client.retrieve(dicom=query, top_k=TOP_K)
                    times.append(1000 * (time.perf_counter() - began))
                    outcomes["answered"] += 1
                except DafhError as error:
                    outcomes[error.reason] += 1

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(ask, range(clients)))
    return len(times) / SECONDS, times, outcomes


def _flood(address: str, data: bytes, rate: float, seconds: float) -> tuple[list[float], int]:
    """Send at a rate whatever comes back; return the milliseconds of answers, and how many went."""
    made, sent = variants(data), 0
    times: list[float] = []
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


def overload(address: str, data: bytes, peak: float) -> dict[str, Any]:
    """Send five times what the service can do, from a process of its own."""
    with ProcessPoolExecutor(1) as pool:
        times, sent = pool.submit(_flood, address, data, OVERLOAD * peak, SECONDS).result()
    return {"sent/s": round(sent / SECONDS, 1), "goodput/s": round(len(times) / SECONDS, 1)} | (
        percentiles(times) if times else {}
    )


def run(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Measure everything."""
    results: dict[str, Any] = {}
    queries = files()
    bound = Bound()
    for name, data in queries.items():
        made = variants(data)
        used = time.process_time()
        times = one_by_one(bound.ask, made)
        cpu = (time.process_time() - used) / (QUERIES + 20)
        results[name] = {
            "bytes": len(data),
            "bound": percentiles(times)
            | {"cpu_ms": round(1000 * cpu, 2), "per_s": round(bound_throughput(data), 1)},
        }
    create_key(folder / "patient.key")
    for part in ("triton", "milvus"):
        (folder / part).mkdir()
    with Triton(folder / "triton") as triton, LiteServer(folder / "milvus") as milvus:
        keyer = PatientKeyer(load_key(folder / "patient.key"), DEFAULT_TENANT)
        coding = Coding(
            DEFAULT_TENANT, DEFAULT_ARCHIVE, bound.encoder.model.hash, 1, 64, keyer.key_id
        )
        index = MilvusIndex.open_or_create(milvus.endpoint, coding, Deadline.after(60))
        fill(index)
        index.close()
        values = {
            "triton_address": triton.address,
            "milvus_uri": milvus.endpoint.uri,
            "patient_key_file": folder / "patient.key",
        } | settings
        with GatewayProcess(folder / "gateway.log", **values) as gateway:
            pids = {"gateway": gateway.pid, "triton": triton.pid, "milvus": milvus.pid}
            for name, data in queries.items():
                results[name]["served"] = served(gateway, data, pids)
            small = queries["small"]
            results["small"]["overload"] = overload(
                gateway.address, small, results["small"]["served"]["per_s"]
            )
            results["resident_mib"] = round(gateway.status("VmHWM") / 2**20)
            results["waterfall_ms"] = waterfall(folder / "gateway.log")
    return results


def served(gateway: GatewayProcess, data: bytes, pids: dict[str, int]) -> dict[str, Any]:
    """Measure a gateway: unloaded, then saturated."""
    made = variants(data)
    with Client(Target(gateway.address, retry=False), timeout=20) as client:
        before = {name: spent(pid) for name, pid in pids.items()}
        times = one_by_one(lambda query: client.retrieve(dicom=query, top_k=TOP_K), made)
        parts = {
            name: round(1000 * (spent(pid) - before[name]) / (QUERIES + 20), 2)
            for name, pid in pids.items()
        }
    rate, busy, outcomes = saturate(gateway.address, data, 8)
    return percentiles(times) | {
        "cpu_ms": round(sum(parts.values()), 2),
        "cpu_ms_of": parts,
        "per_s": round(rate, 1),
        "busy_p99": percentiles(busy)["p99"],
        "outcomes": dict(outcomes),
    }


def waterfall(log: Path) -> dict[str, float]:
    """Return the mean milliseconds of each stage of the first, unloaded, queries, from the log."""
    stages: dict[str, list[float]] = {}
    for line in log.read_text().splitlines():
        if '"Retrieve"' not in line or '"OK"' not in line or len(stages.get("all", ())) >= QUERIES:
            continue
        told = json.loads(line)
        for name, spent_ms in (told["stages"] | {"all": told["ms"]}).items():
            stages.setdefault(name, []).append(spent_ms)
    return {name: round(float(np.mean(values)), 2) for name, values in stages.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.gateway")
    parser.add_argument("--json", type=Path, help="write the results here as well")
    parser.add_argument("--set", action="append", default=[], help="NAME=VALUE of the gateway")
    options = parser.parse_args()
    settings = {name: json.loads(value) for name, value in (one.split("=") for one in options.set)}
    with tempfile.TemporaryDirectory() as folder:
        results = run(Path(folder), settings)
    text = json.dumps(results, indent=1)
    sys.stdout.write(text + "\n")
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
