"""Several processes answer probes and Prometheus as one."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from dafh.telemetry.metrics import Metrics
from dafh_gateway.http import HttpPort
from dafh_gateway.merged import MergedHttp
from tests.index.servers import free_ports


class Process:
    """What one gateway process has to say."""

    def __init__(self) -> None:
        self.down: list[str] = []
        self.alive = True
        self.metrics = Metrics()
        self.metrics.requests.labels("Retrieve", "OK", "").inc(2)
        self.metrics.up.labels("triton").set(1)
        self.metrics.seconds.labels("Retrieve").observe(0.004)
        self.http = HttpPort(
            "127.0.0.1:0",
            down=lambda: self.down,
            alive=lambda: self.alive,
            metrics=self.metrics.text,
        )


@pytest.fixture
def pair() -> Iterator[tuple[Process, Process]]:
    both = Process(), Process()
    yield both
    for one in both:
        one.http.close()


@pytest.fixture
def port(pair: tuple[Process, Process]) -> Iterator[int]:
    (free,) = free_ports(1)
    merged = MergedHttp(f"127.0.0.1:{free}", [one.http.port for one in pair])
    yield free
    merged.close()


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_all_must_be_ready(pair: tuple[Process, Process], port: int) -> None:
    assert get(port, "/readyz")[0] == 200
    pair[0].down, pair[1].down = ["triton"], ["draining"]
    status, body = get(port, "/readyz")
    assert (status, json.loads(body)["down"]) == (503, ["draining", "triton"])


def test_all_must_be_alive(pair: tuple[Process, Process], port: int) -> None:
    assert get(port, "/livez")[0] == 200
    pair[1].alive = False
    assert get(port, "/livez")[0] == 503


def test_one_that_is_silent_is_neither_alive_nor_ready(
    pair: tuple[Process, Process],
) -> None:
    first, dead = free_ports(2)
    merged = MergedHttp(f"127.0.0.1:{first}", [pair[0].http.port, dead])
    try:
        assert get(first, "/livez")[0] == 503
        assert json.loads(get(first, "/readyz")[1])["down"] == ["process"]
        assert 'dafh_part_up{part="triton",process="0"} 1.0' in get(first, "/metrics")[1]
    finally:
        merged.close()


def test_metrics_of_all_are_told_apart_and_each_is_described_once(
    pair: tuple[Process, Process], port: int
) -> None:
    pair[1].metrics.requests.labels("Retrieve", "OK", "").inc(3)
    text = get(port, "/metrics")[1]
    counted = 'dafh_requests_total{code="OK",method="Retrieve",process="%d",reason=""} %s'
    assert counted % (0, "2.0") in text
    assert counted % (1, "5.0") in text
    assert text.count("# TYPE dafh_requests_total counter") == 1
    assert text.count("# TYPE dafh_request_seconds histogram") == 1
    assert 'dafh_request_seconds_bucket{le="0.005",method="Retrieve",process="1"} 1.0' in text
