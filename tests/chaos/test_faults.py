"""Triton and Milvus stalled, killed, away: deadlines hold, errors say what helps, all recovers."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from dafh.client import Client, question
from dafh.errors import DafhError, Reason
from dafh.imaging.phantom import phantoms
from dafh_gateway.server import Gateway
from tests.chaos.conftest import Site
from tests.gateway.filled import fill

pytestmark = pytest.mark.stack
FILES = [one.data for one in phantoms(60, 89)]
#: Seconds by which an answer may be later than its deadline.
LATE_S = 0.1


@pytest.fixture
def gateway(site: Site) -> Gateway:
    made = site.gateway()
    fill(site.client(made), "default", 12, 88)
    return made


@contextmanager
def stopped(server: object) -> Iterator[None]:
    """Stop a server, so that it is there and says nothing."""
    send: Callable[[signal.Signals], None] = server.signal  # type: ignore[attr-defined]  # both have it
    send(signal.SIGSTOP)
    try:
        yield
    finally:
        send(signal.SIGCONT)


@pytest.mark.parametrize("which", ["triton", "milvus"])
@pytest.mark.parametrize("seconds", [0.5, 1.5])
def test_a_deadline_is_kept_while_a_server_stalls(
    site: Site, gateway: Gateway, which: str, seconds: float
) -> None:
    """Said by the gateway itself: the client would wait a second longer."""
    stub = site.client(gateway).retrieval
    request = question({}, dicom=FILES[0])
    stub.Retrieve(request, timeout=10)
    request.query.dicom = FILES[1]
    with stopped(getattr(site, which)):
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            stub.Retrieve(request, timeout=seconds)
        took = time.monotonic() - began
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert took == pytest.approx(seconds, abs=LATE_S)
    assert_no_call_left(gateway)
    request.query.dicom = FILES[2]
    assert stub.Retrieve(request, timeout=20).hits


def calls_in_hand(gateway: Gateway) -> float:
    text = gateway.observer.metrics.text().decode()
    lines = [line for line in text.splitlines() if line.startswith("dafh_stage_busy")]
    assert lines
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def assert_no_call_left(gateway: Gateway, seconds: float = 1.0) -> None:
    end = time.monotonic() + seconds
    while calls_in_hand(gateway):
        assert time.monotonic() < end, "a stage is still busy"
        time.sleep(0.02)


@pytest.mark.parametrize("which", ["triton", "milvus"])
def test_a_cancelled_call_leaves_no_work_behind(site: Site, gateway: Gateway, which: str) -> None:
    stub = site.client(gateway).retrieval
    with stopped(getattr(site, which)):
        calls = [stub.Retrieve.future(question({}, dicom=data), timeout=30) for data in FILES[:4]]
        time.sleep(0.5)
        assert calls_in_hand(gateway) > 0
        for call in calls:
            call.cancel()
        # While the server still says nothing: it is the gateway that has let go.
        assert_no_call_left(gateway)
    assert stub.Retrieve(question({}, dicom=FILES[5]), timeout=20).hits


@dataclass
class Load:
    """Clients that ask without pause, and what they were told."""

    client: Client
    expected: dict[bytes, bytes]
    outcomes: Counter[str] = field(default_factory=Counter)
    #: (when, whether it worked), on the monotonic clock.
    times: list[tuple[float, bool]] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def ask(self, place: int) -> None:
        files = list(self.expected)
        while not self.stopping.is_set():
            place = (place + 1) % len(files)
            data = files[place]
            try:
                answer = self.client.retrieve(dicom=data)
                right = answer.query.code == self.expected[data] and len(answer.hits) > 0
                self.outcomes["right" if right else "wrong"] += 1
                self.times.append((time.monotonic(), right))
            except DafhError as error:
                self.outcomes[error.reason] += 1
                self.times.append((time.monotonic(), False))
                time.sleep(0.05)

    @contextmanager
    def running(self, threads: int = 3) -> Iterator[None]:
        with ThreadPoolExecutor(threads) as pool:
            work = [pool.submit(self.ask, 13 * number) for number in range(threads)]
            try:
                yield
            finally:
                self.stopping.set()
            for one in work:
                one.result(60)

    def recovered_after(self, moment: float) -> float:
        """Return the seconds from a moment until no further call failed."""
        failed = [when for when, worked in self.times if not worked and when > moment]
        return max(failed, default=moment) - moment


def load(site: Site, gateway: Gateway) -> Load:
    client = site.client(gateway, timeout=5)
    return Load(client, {data: client.retrieve(dicom=data).query.code for data in FILES[:40]})


def test_triton_killed_and_back_under_load_gives_no_wrong_answer(
    site: Site, gateway: Gateway
) -> None:
    under = load(site, gateway)
    with under.running():
        time.sleep(1.5)
        site.triton.kill()
        time.sleep(2)
        site.triton.start()
        back = time.monotonic()
        time.sleep(6)
    assert under.outcomes["right"] > 50
    assert under.outcomes[Reason.ENCODER_UNAVAILABLE] > 3
    assert set(under.outcomes) <= {"right", Reason.ENCODER_UNAVAILABLE}, under.outcomes
    assert under.recovered_after(back) < 5


def test_unavailable_says_when_to_come_back(site: Site, gateway: Gateway) -> None:
    stub = site.client(gateway).retrieval
    site.triton.kill()
    try:
        with pytest.raises(grpc.RpcError) as caught:
            stub.Retrieve(question({}, dicom=FILES[7]), timeout=5)
        status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]  # what a stub raises is a call
        assert status is not None
        retry = error_details_pb2.RetryInfo()
        assert any(detail.Unpack(retry) for detail in status.details)
        assert retry.retry_delay.seconds == 1
    finally:
        site.triton.start()


def milvus_away(site: Site, gateway: Gateway, seconds: float) -> None:
    client = site.client(gateway, timeout=5)
    await_ready(gateway, 10)
    site.milvus.kill()
    gone = time.monotonic()
    try:
        while gateway.down() != ["milvus"]:
            assert time.monotonic() - gone < 2, gateway.down()
            time.sleep(0.02)
        while time.monotonic() - gone < seconds:
            with pytest.raises(DafhError) as caught:
                client.retrieve(dicom=FILES[9])
            assert caught.value.reason is Reason.INDEX_UNAVAILABLE
            time.sleep(0.5)
    finally:
        site.milvus.start()
    await_ready(gateway, 5)
    assert client.retrieve(dicom=FILES[9]).hits


def await_ready(gateway: Gateway, seconds: float) -> None:
    end = time.monotonic() + seconds
    while gateway.down():
        assert time.monotonic() < end, gateway.down()
        time.sleep(0.02)


def test_readiness_flips_and_returns_as_milvus_goes_and_comes(site: Site, gateway: Gateway) -> None:
    milvus_away(site, gateway, 4)


@pytest.mark.long
def test_readiness_returns_when_milvus_was_away_for_a_minute(site: Site, gateway: Gateway) -> None:
    milvus_away(site, gateway, 60)


def test_readiness_flips_when_triton_stalls(site: Site, gateway: Gateway) -> None:
    await_ready(gateway, 10)
    with stopped(site.triton):
        began = time.monotonic()
        while gateway.down() != ["triton"]:
            assert time.monotonic() - began < 2.5, gateway.down()
            time.sleep(0.02)
    await_ready(gateway, 5)
