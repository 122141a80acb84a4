"""Several gateway processes, several Tritons behind one name: all are used, one may leave."""

from __future__ import annotations

import os
import signal
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tritonclient.grpc import InferenceServerClient

from dafh.client import Client, Target
from dafh.errors import DafhError, Reason
from dafh.imaging.phantom import phantoms
from dafh_gateway.server import Gateway
from tests.chaos.conftest import Site
from tests.chaos.process import GatewayProcess
from tests.chaos.triton import Triton
from tests.gateway.filled import fill
from tests.index.servers import free_row

pytestmark = pytest.mark.stack
FILES = [one.data for one in phantoms(60, 83)]


def seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
            return True
    except urllib.error.URLError:
        return False


def test_processes_are_ready_together_and_counted_apart(site: Site) -> None:
    # The two ports after it are those of the processes.
    port = free_row(3)
    settings = site.values(processes=2, decode_workers=1, http_listen=f"127.0.0.1:{port}")
    with GatewayProcess(site.folder / "gateway.log", **settings):
        end = time.monotonic() + 60
        while not ready(port):
            assert time.monotonic() < end
            time.sleep(0.2)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        for process in ("0", "1"):
            assert f'dafh_part_up{{part="milvus",process="{process}"}} 1.0' in text


def test_processes_share_a_port_and_their_pages(site: Site) -> None:
    settings = site.values(processes=2, decode_workers=1)
    with GatewayProcess(site.folder / "gateway.log", **settings) as gateway:
        siblings = children(gateway.pid)
        assert len(siblings) == 2
        time.sleep(1)
        before = {pid: seconds(pid) for pid in siblings}
        with Client(gateway.address, timeout=30) as client:
            fill(client, "default", 8, 83)

        def ask(place: int) -> int:
            # A connection of its own: the kernel gives each to one of the processes.
            with Client(gateway.address, timeout=30) as client:
                options = {"top_k": 4, "page_size": 2, "include_same_patient": True}
                answer = client.retrieve(dicom=FILES[place], **options)  # type: ignore[arg-type]  # a plain dictionary
                return len(client.retrieve(page_token=answer.next_page_token, **options).hits)  # type: ignore[arg-type]  # as above

        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(ask, range(40))) == {2}
        busy = {pid: seconds(pid) - before[pid] for pid in siblings}
        assert min(busy.values()) > 0.1 * max(busy.values()), busy
    assert not any(Path(f"/proc/{pid}").exists() for pid in siblings)


def test_a_lost_process_ends_them_all(site: Site) -> None:
    settings = site.values(processes=2, decode_workers=1)
    gateway = GatewayProcess(site.folder / "gateway.log", **settings)
    with gateway:
        first, second = children(gateway.pid)
        os.kill(first, signal.SIGKILL)
        assert gateway.wait(30) != 0
        assert not Path(f"/proc/{second}").exists()


def inferences(triton: Triton) -> int:
    with InferenceServerClient(triton.address) as client:
        statistics = client.get_inference_statistics("dafh")
    return sum(int(version.inference_count) for version in statistics.model_stats)


def test_two_tritons_are_both_used_and_one_may_leave(site: Site, tmp_path: Path) -> None:
    other = Triton(tmp_path)
    try:
        other.start()
        addresses = ",".join((site.triton.address, other.address))
        gateway = site.gateway(triton_address=f"ipv4:{addresses}")
        client = site.client(gateway)
        fill(client, "default", 6, 83)
        before = inferences(site.triton), inferences(other)
        for data in FILES[:30]:
            client.encode(dicom=data)
        share = inferences(site.triton) - before[0], inferences(other) - before[1]
        assert min(share) >= 10, share
        outcomes: Counter[str] = Counter()
        other.kill()
        for data in FILES[30:]:
            try:
                client.encode(dicom=data)
                outcomes["answered"] += 1
            except DafhError as error:
                outcomes[error.reason] += 1
        # What was on its way to the one that left may fail; then nothing does any more.
        assert outcomes["answered"] >= 28, outcomes
        assert set(outcomes) <= {"answered", Reason.ENCODER_UNAVAILABLE}
        assert gateway.down() == []
    finally:
        other.kill()


def test_connections_grow_old_so_that_new_replicas_are_found(site: Site) -> None:
    aging = Gateway(site.settings(connection_age=0.5))
    try:
        target = Target(f"127.0.0.1:{aging.port}", retry=False)
        with Client(target, timeout=10) as client:
            peers = set()
            end = time.monotonic() + 2.5
            while time.monotonic() < end:
                assert client.list_models()
                peers.add(connections(aging.port))
                time.sleep(0.05)
        # Each connection had a port of its own on the client's side.
        assert len(peers) >= 3
    finally:
        aging.stop()


def connections(port: int) -> str:
    """Return the client's side of the established connections to a port."""
    wanted = f":{port:04X}"
    files = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    rows = [line.split() for file in files for line in file.read_text().splitlines()[1:]]
    return ",".join(sorted(row[1] for row in rows if row[2].endswith(wanted) and row[3] == "01"))
